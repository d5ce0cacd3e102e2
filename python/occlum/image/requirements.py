"""Python packages into the image: `occlum add --python requirements.txt`.

pip installs them into a directory aside, for the Python that the image has; from there they go to
where that Python looks for packages, with the shared libraries that their extensions need.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from occlum.errors import Error
from occlum.image.programs import Adder
from occlum.image.runtimes import Python

TIMEOUT_S = 1800


class RequirementsError(Error):
    """Python requirements can't be installed."""

    code = "python-requirements"


def add(
    adder: Adder,
    interpreter: Path,
    python: Python,
    files: tuple[Path, ...],
    progress: Callable[[str, int, int], None],
) -> int:
    """Install the requirements in the files for ``interpreter``; returns the number of files."""
    for file in files:
        if not file.is_file():
            raise RequirementsError(f"{file} is not there", code="python-requirements-missing")
    with tempfile.TemporaryDirectory(prefix="occlum-pip-") as staging:
        progress("pip install", 0, 1)
        _install(interpreter, files, Path(staging))
        progress("pip install", 1, 1)
        found = list(Path(staging).rglob("*"))
        adder.directory(Path(staging), python.site, lambda path: path.name != "__pycache__")
    return sum(path.is_file() for path in found)


def _install(interpreter: Path, files: tuple[Path, ...], target: Path) -> None:
    command = [*_pip(interpreter), "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-compile", "--no-warn-script-location", "--target", str(target)]
    for file in files:
        command += ["-r", str(file)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise RequirementsError(f"pip can't be run: {problem}") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        said = lines[-1].removeprefix("ERROR: ") if lines else done.stderr.strip()[-300:]
        raise RequirementsError(
            f"pip can't install {', '.join(map(str, files))} for {interpreter}: {said}",
            hint=f"try it by hand: {' '.join(command[:4])} -r {files[0]}",
        )


def _pip(interpreter: Path) -> list[str]:
    """pip for this Python: its own, or ours told to work for it."""
    for command in (
        [str(interpreter), "-m", "pip"],
        [sys.executable, "-m", "pip", "--python", str(interpreter)],
    ):
        if (
            subprocess.run([*command, "--version"], capture_output=True, check=False).returncode
            == 0
        ):
            return command
    raise RequirementsError(
        f"neither {interpreter} nor {sys.executable} has pip",
        hint="apt install python3-pip",
        code="python-pip",
    )

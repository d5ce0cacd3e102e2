"""Languages whose programs need more than their shared libraries: Python, Perl, Node.

Each interpreter is asked where its library is, on this machine, rather than guessed.
"""

from __future__ import annotations

import json
import re
import subprocess
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

from occlum.elf.file import is_elf
from occlum.errors import Error

TIMEOUT_S = 60

# In a standard library, but of no use in an enclave, or with needs of its own (Tk).
_UNWANTED_PYTHON = re.compile(
    r"/(test|tests|idlelib|turtledemo|tkinter|ensurepip|lib2to3|site-packages|dist-packages"
    r"|config-[^/]*|_tkinter[^/]*\.so|[^/]*\.opt-[12]\.pyc)$"
)
_PYTHON_NAME = re.compile(r"python(3(\.\d+)?)?")
_PERL_NAME = re.compile(r"perl(5[.\d]*)?")
_NODE_NAME = re.compile(r"node(js)?")
# Debian's node reads parts of its library from files whose names stand in the binary.
_NODE_FILE = re.compile(rb"/usr/share/nodejs/[\w./-]+\.js")

_ASK_PYTHON = """
import json, site, sys, sysconfig
paths = sysconfig.get_paths()
print(json.dumps({
    "executable": sys.executable,
    "version": list(sys.version_info[:2]),
    "prefix": sys.prefix,
    "base_prefix": sys.base_prefix,
    "stdlib": [paths["stdlib"], paths["platstdlib"]],
    "site": site.getsitepackages(),
}))
"""

_ASK_PACKAGES = """
import importlib.metadata as metadata, json, re, sys
names, seen, files = sys.argv[1:], set(), []
while names:
    name = names.pop()
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        continue
    seen.add(key)
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        print(json.dumps({"missing": name}))
        sys.exit()
    for file in found.files or []:
        path = found.locate_file(file).resolve()
        if ".." not in file.parts and path.is_file():
            files.append([str(path), str(file)])
    for requirement in found.requires or []:
        wanted, _, marker = requirement.partition(";")
        if not marker.strip():
            names.append(re.match(r"[\\w.-]+", wanted)[0])
print(json.dumps({"version": list(sys.version_info[:2]), "files": files}))
"""


@dataclass(frozen=True)
class Runtime:
    """What an interpreter reads: directories (filtered by `wants`) and single files."""

    directories: tuple[Path, ...]
    files: tuple[Path, ...] = ()

    def wants(self, path: Path) -> bool:
        return True


@dataclass(frozen=True)
class Python(Runtime):
    """A Python interpreter. ``site`` is where packages for it go."""

    version: tuple[int, int] = (3, 0)
    site: Path = field(default=Path("/usr/local/lib"))

    def wants(self, path: Path) -> bool:
        return _UNWANTED_PYTHON.search(str(path)) is None


def is_interpreter(path: Path, real: Path) -> bool:
    """Whether this is an interpreter that finds its library by where it stands."""
    names = (path.name, real.name)
    return any(
        pattern.fullmatch(name)
        for pattern in (_PYTHON_NAME, _PERL_NAME, _NODE_NAME)
        for name in names
    )


def of(path: Path, real: Path) -> Runtime | None:
    """The runtime of an interpreter, by its name; ``real`` is where its links end."""
    if _PYTHON_NAME.fullmatch(real.name) or _PYTHON_NAME.fullmatch(path.name):
        return _python(path)
    if _PERL_NAME.fullmatch(real.name):
        return _perl(path)
    if _NODE_NAME.fullmatch(real.name):
        return _node(real)
    return None


def behind_shim(path: Path) -> Path | None:
    """The interpreter that a ``python`` which is only a script (pyenv's) stands for."""
    if not _PYTHON_NAME.fullmatch(path.name) or is_elf(path):
        return None
    return Path(_ask(path, _ASK_PYTHON)["executable"])


def package_files(target: Python, names: tuple[str, ...]) -> Iterator[tuple[Path, Path]]:
    """(file here, place in the image) for packages of the current environment's Python."""
    current = which("python3")
    if current is None:
        raise Error(
            "python3 is not in PATH, so there are no packages to take", code="python-package"
        )
    answer = _ask(Path(current), _ASK_PACKAGES, *names)
    if "missing" in answer:
        raise Error(
            f"the Python package {answer['missing']} is not installed for {current}",
            hint=f"{current} -m pip install {answer['missing']}",
            code="python-package",
        )
    version = tuple(answer["version"])
    if version != target.version:
        raise Error(
            f"packages are from Python {version[0]}.{version[1]} ({current}); the image has "
            f"{target.version[0]}.{target.version[1]}",
            hint="use an environment of the same version",
            code="python-package",
        )
    for source, relative in answer["files"]:
        yield Path(source), target.site / relative


def _python(path: Path) -> Python:
    about = _ask(path, _ASK_PYTHON)
    directories = {Path(each): None for each in about["stdlib"]}
    files: tuple[Path, ...] = ()
    if about["prefix"] != about["base_prefix"]:
        files = (Path(about["prefix"]) / "pyvenv.cfg",)
        directories.update(dict.fromkeys(Path(each) for each in about["site"]))
    return Python(
        tuple(path for path in directories if path.is_dir()),
        files,
        (about["version"][0], about["version"][1]),
        Path(about["site"][0]),
    )


def _perl(path: Path) -> Runtime:
    script = 'use Config; print "$_\\n" for $Config{privlibexp}, $Config{archlibexp}, @INC'
    listed = dict.fromkeys(_run([str(path), "-e", script]).split("\n"))
    core = [Path(each) for each in listed if each.startswith("/")]
    # Of @INC only what belongs to Perl itself; other directories hold packages.
    wanted = [each for each in core[:2] + core if each in core[:2] or each.name == "perl-base"]
    return Runtime(tuple(dict.fromkeys(each for each in wanted if each.is_dir())))


def _node(real: Path) -> Runtime:
    binaries = [real, *Path("/usr/lib/x86_64-linux-gnu").glob("libnode.so.*")]
    names = {name for binary in binaries for name in _NODE_FILE.findall(binary.read_bytes())}
    files = [Path(name.decode("ascii")) for name in sorted(names)]
    return Runtime((), tuple(path for path in files if path.is_file()))


def _ask(python: Path, script: str, *arguments: str) -> dict[str, typing.Any]:
    answer: dict[str, typing.Any] = json.loads(_run([str(python), "-c", script, *arguments]))
    return answer


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
        ).stdout
    except (OSError, subprocess.SubprocessError) as problem:
        raise Error(
            f"{command[0]} can't be asked for its library: {problem}", code="runtime-library"
        ) from None

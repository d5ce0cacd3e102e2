"""Every program of this directory, on Linux and inside, with the same expectations."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import TIMEOUT_S, Instance, MakeInstance

HERE = Path(__file__).parent
PYTHON = Path("/usr/bin/python3")
INSIDE = "/opt/linux"
NEEDS_RIGHTS = 77
"""Exit code of a program that can't do its work natively, for want of root's rights."""

COMPILERS = {
    "glibc": ["gcc"],
    "static": ["gcc", "-static"],
    "static-pie": ["gcc", "-static-pie"],
    "no-pie": ["gcc", "-no-pie"],
    "musl": ["musl-gcc"],
    "musl-static": ["musl-gcc", "-static"],
}
_DIRECTIVE = re.compile(
    r"^(?://|#) (flags|variants|args|stdin|expect-status):\s*(.*)$", re.MULTILINE
)


@dataclass(frozen=True)
class Case:
    """One program in one build."""

    source: Path
    variant: str
    flags: tuple[str, ...]
    args: tuple[str, ...]
    stdin: bytes
    status: int

    @property
    def name(self) -> str:
        return f"{self.source.stem}-{self.variant}"

    @property
    def is_python(self) -> bool:
        return self.source.suffix == ".py"

    def compile(self, directory: Path) -> Path:
        """Build the program; returns its path."""
        program = directory / self.name
        if self.is_python:
            shutil.copy(self.source, program)
            return program
        flags = ["-O1", "-g", "-Wall", "-D_GNU_SOURCE", "-pthread", *self.flags]
        subprocess.run(
            [*COMPILERS[self.variant], "-o", program, self.source, *flags],
            check=True,
            capture_output=True,
            text=True,
        )
        return program


def read_cases() -> list[Case]:
    sources = [*HERE.glob("*.c"), *HERE.glob("*.py")]
    found = []
    for source in sorted(sources):
        if source.name.startswith("test_") or source.name == "conftest.py":
            continue
        head = "\n".join(source.read_text(encoding="ascii").splitlines()[:20])
        says = {match[1]: match[2].strip() for match in _DIRECTIVE.finditer(head)}
        for variant in says.get("variants", "glibc").split():
            found.append(
                Case(
                    source,
                    "python" if source.suffix == ".py" else variant,
                    tuple(shlex.split(says.get("flags", ""))),
                    tuple(shlex.split(says.get("args", ""))),
                    says.get("stdin", "").replace("\\n", "\n").encode(),
                    int(says.get("expect-status", "0")),
                )
            )
    return found


CASES = read_cases()
FORKING = [case for case in CASES if case.name.startswith("fork_")]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every program that can be built here, by case name."""
    directory = tmp_path_factory.mktemp("linux")
    built = {}
    for case in CASES:
        if case.is_python or shutil.which(COMPILERS[case.variant][0]):
            built[case.name] = case.compile(directory)
    return built


def put(programs: list[Path], instance: Instance) -> None:
    # Those that name libraries bring them; then all of them stand in one place.
    added = instance.occlum("add", *programs, timeout=300)
    assert added.returncode == 0, added.stderr.decode()
    target = instance.image / INSIDE.lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    for program in programs:
        shutil.copy(program, target)


@pytest.fixture(scope="session")
def inside(make_instance: MakeInstance, programs: dict[str, Path]) -> Instance:
    """One instance that holds all of them."""
    wanted = [PYTHON] if any(case.is_python for case in CASES) else []
    return make_instance(
        "linux-instance", *wanted, prepare=lambda made: put(list(programs.values()), made)
    )


@pytest.fixture(scope="session")
def copying(make_instance: MakeInstance, programs: dict[str, Path]) -> Instance:
    """One for a CPU that can't change permissions of pages, with the programs that fork."""
    forking = [programs[case.name] for case in FORKING if case.name in programs]
    return make_instance(
        "copying-instance", prepare=lambda made: put(forking, made), options=("--enable-edmm", "N")
    )


@pytest.fixture(scope="session")
def on_host_loopback(inside: Instance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    """The same with the host's loopback: what sockets promise holds through the host too."""
    root = tmp_path_factory.mktemp("host-loopback") / "instance"
    shutil.copytree(inside.root, root, symlinks=True)
    config = root / "Occlum.json"
    text = config.read_text()
    assert '"loopback": "inside"' in text
    config.write_text(text.replace('"loopback": "inside"', '"loopback": "host"'))
    instance = Instance(root)
    instance.build()
    return instance


def native(case: Case, program: Path) -> subprocess.CompletedProcess[bytes]:
    command = [PYTHON, program] if case.is_python else [program]
    done = subprocess.run(
        [*command, *case.args],
        input=case.stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd="/",
    )
    if done.returncode < 0:
        done.returncode = 128 - done.returncode
    return done


@pytest.mark.enclave
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_runs_as_on_linux(case: Case, programs: dict[str, Path], inside: Instance) -> None:
    agrees(case, programs, inside)


@pytest.mark.enclave
@pytest.mark.parametrize("case", FORKING, ids=lambda case: case.name)
def test_forks_where_permissions_are_fixed(
    case: Case, programs: dict[str, Path], copying: Instance
) -> None:
    agrees(case, programs, copying)


def agrees(case: Case, programs: dict[str, Path], inside: Instance) -> None:
    if case.name not in programs:
        pytest.skip(f"{COMPILERS[case.variant][0]} is not installed")
    expected = native(case, programs[case.name])
    if expected.returncode == NEEDS_RIGHTS:
        pytest.skip("this system does not let the program do what it tests")
    assert expected.returncode == case.status, expected.stdout + expected.stderr

    check_against(expected, inside, case)


@pytest.mark.enclave
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name.startswith("inet_")], ids=lambda case: case.name
)
def test_runs_as_on_linux_through_the_host(
    case: Case, programs: dict[str, Path], on_host_loopback: Instance
) -> None:
    expected = native(case, programs[case.name])
    assert expected.returncode == case.status, expected.stdout + expected.stderr
    check_against(expected, on_host_loopback, case)


def check_against(
    expected: subprocess.CompletedProcess[bytes], instance: Instance, case: Case
) -> None:
    command = [f"{INSIDE}/{case.name}"]
    if case.is_python:
        command = [str(PYTHON), *command]
    got = instance.run(*command, *case.args, stdin=case.stdin)
    assert got.stdout == expected.stdout, got.stderr.decode(errors="replace")
    assert got.returncode == expected.returncode, got.stderr.decode(errors="replace")

"""What the tests share: the installed `occlum`, and instances to run programs in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

OCCLUM = Path(sys.executable).with_name("occlum")
TIMEOUT_S = 120


@dataclass(frozen=True)
class Instance:
    """An instance directory, driven as a person drives it."""

    root: Path

    @property
    def image(self) -> Path:
        return self.root / "image"

    def occlum(
        self,
        *arguments: str | Path,
        stdin: bytes | None = None,
        env: dict[str, str] | None = None,
        timeout: float = TIMEOUT_S,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the instance directory."""
        return occlum(*arguments, cwd=self.root, stdin=stdin, env=env, timeout=timeout)

    def run(
        self, program: str, *arguments: str, **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program inside the enclave."""
        return self.occlum("run", program, *arguments, **options)  # type: ignore[arg-type]

    def build(self, *options: str) -> None:
        done = self.occlum("build", *options, timeout=600)
        assert done.returncode == 0, done.stderr.decode()


def occlum(
    *arguments: str | Path,
    cwd: Path,
    stdin: bytes | None = None,
    env: dict[str, str] | None = None,
    timeout: float = TIMEOUT_S,
) -> subprocess.CompletedProcess[bytes]:
    """The command as a person types it, with its output kept."""
    return subprocess.run(
        [OCCLUM, *map(str, arguments)],
        cwd=cwd,
        input=stdin if stdin is not None else b"",
        env={**os.environ, **(env or {})},
        capture_output=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> None:
    """Signals as at a prompt: background jobs of scripts ignore some, and all they start do."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def own_debug_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests sign with a key of their own, not with the person's."""
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))
    os.environ.pop("SGX_MODE", None)
    os.environ.pop("OCCLUM_LOG_LEVEL", None)


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """A fresh instance, not built."""
    root = tmp_path / "instance"
    done = occlum("new", root, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    return Instance(root)


STORE = '"source": "./run/mount/__ROOT"'


def keep_nothing(instance: Instance) -> None:
    """Keep what programs write in memory: then several enclaves of one instance can run at once."""
    config = instance.root / "Occlum.json"
    text = config.read_text()
    assert STORE in text
    config.write_text(text.replace(STORE, STORE + ', "options": {"temporary": true}'))


MakeInstance = Callable[..., Instance]


@pytest.fixture(scope="session")
def make_instance(tmp_path_factory: pytest.TempPathFactory) -> MakeInstance:
    """Makes and builds an instance with the programs given; for fixtures that share one."""

    def make(
        name: str,
        *programs: str | Path,
        prepare: Callable[[Instance], None] | None = None,
        options: tuple[str, ...] = (),
    ) -> Instance:
        parent = tmp_path_factory.mktemp(name)
        made = occlum("new", parent / "instance", cwd=parent)
        assert made.returncode == 0, made.stderr.decode()
        instance = Instance(parent / "instance")
        if programs:
            added = instance.occlum("add", *programs, timeout=300)
            assert added.returncode == 0, added.stderr.decode()
        if prepare is not None:
            prepare(instance)
        instance.build(*options)
        return instance

    return make


HELLO = """
#include <unistd.h>
int main(void) { return write(1, "hello\\n", 6) != 6; }
"""


@pytest.fixture(scope="session")
def boots(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """Why no program at all runs in an enclave; None if one does.

    One look at the start, so that a kernel that hangs fails each test at once and not after each
    one's own timeout.
    """
    directory = tmp_path_factory.mktemp("boots")
    (directory / "hello.c").write_text(HELLO)
    command = ["gcc", "-static", "-o", directory / "hello", directory / "hello.c"]
    subprocess.run(command, check=True)
    instance = make_instance("boots-instance", directory / "hello")
    try:
        done = instance.run("/usr/local/bin/hello", timeout=20)
    except subprocess.TimeoutExpired:
        return "hello does not come to an end within 20 s"
    if (done.returncode, done.stdout) != (0, b"hello\n"):
        return f"hello gives {done.stdout!r}, status {done.returncode}: {done.stderr.decode()}"
    return None


@pytest.fixture(autouse=True)
def enclave_boots(request: pytest.FixtureRequest) -> None:
    """A test marked ``enclave`` needs an enclave that boots."""
    if request.node.get_closest_marker("enclave") is None:
        return
    problem = request.getfixturevalue("boots")
    if problem is not None:
        pytest.fail(f"no program runs in an enclave: {problem}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many Rust tests stand behind the one test of tests/rust."""
    reports = terminalreporter.getreports("passed")
    lines = [text for report in reports for key, text in report.user_properties if key == "rust"]
    if lines:
        terminalreporter.section("Rust tests")
        for line in lines:
            terminalreporter.line(line)

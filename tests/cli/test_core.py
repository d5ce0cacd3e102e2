"""Core files of programs that crash inside, read by GDB outside."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance

pytestmark = pytest.mark.enclave

SOURCE = """
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
static char greeting[] = "kept in memory";
static int crash(volatile int *where) { greeting[0] = 'K'; return *where; }
int main(int argc, char **argv) {
    struct rlimit limit = {argc > 1 ? atol(argv[1]) : RLIM_INFINITY, RLIM_INFINITY};
    if (chdir("/host") || setrlimit(RLIMIT_CORE, &limit)) return 9;
    if (fork() == 0) return crash((int *)8);
    int status;
    wait(&status);
    return WTERMSIG(status) | (WCOREDUMP(status) ? 0x80 : 0);
}
"""
PROGRAM = "/usr/local/bin/crasher"


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    directory = tmp_path_factory.mktemp("crasher")
    (directory / "crasher.c").write_text(SOURCE)
    command = ["gcc", "-g", "-O0", "-o", directory / "crasher", directory / "crasher.c"]
    subprocess.run(command, check=True)
    return make_instance("core", directory / "crasher")


@pytest.fixture
def core(built: Instance) -> Path:
    path = built.root / "core"
    path.unlink(missing_ok=True)
    return path


def test_a_crash_leaves_a_core_that_gdb_reads(built: Instance, core: Path):
    assert built.run(PROGRAM).returncode == signal.SIGSEGV | 0x80
    assert core.stat().st_mode & 0o777 == 0o600
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    commands = ["set sysroot image", "core core", "bt", "print greeting"]
    options = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(
        ["gdb", "-q", "-nx", "-batch", *options, built.image / PROGRAM.lstrip("/")],
        cwd=built.root,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert "Program terminated with signal SIGSEGV" in said
    assert re.search(r"#0 .*crash \(where=0x8\) at .*crasher\.c", said)
    assert re.search(r"#1 .* main \(argc=1, ", said)
    assert '= "Kept in memory"' in said


def test_readelf_finds_the_notes(built: Instance, core: Path):
    built.run(PROGRAM)
    done = subprocess.run(
        ["readelf", "-hn", core], capture_output=True, text=True, check=True, timeout=60
    )
    assert "CORE (Core file)" in done.stdout
    for note in ("NT_PRSTATUS", "NT_PRPSINFO", "NT_AUXV", "NT_FILE"):
        assert note in done.stdout
    assert done.stderr == ""


def test_the_limit_says_whether_there_is_one_and_how_large(built: Instance, core: Path):
    assert built.run(PROGRAM, "0").returncode == signal.SIGSEGV
    assert not core.exists()
    assert built.run(PROGRAM, "16384").returncode == signal.SIGSEGV | 0x80
    assert core.stat().st_size == 16384

"""`occlum gdb`: breakpoints and backtraces in programs, their libraries and the kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance

pytestmark = [
    pytest.mark.enclave,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]

SOURCE = """
#include <pthread.h>
#include <unistd.h>
static int innermost(int x) { char c = 'a' + x; return (int)write(1, &c, 1); }
static int middle(int x) { return innermost(x + 1) + 1; }
static void *sleeper(void *arg) { pause(); return arg; }
int main(void) {
    pthread_t thread;
    pthread_create(&thread, 0, sleeper, 0);
    usleep(100000);
    return middle(3) - 2;
}
"""
PROGRAM = "/usr/local/bin/debugged"


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    directory = tmp_path_factory.mktemp("debugged")
    (directory / "debugged.c").write_text(SOURCE)
    command = ["gcc", "-g", "-O0", "-pthread", "-o", directory / "debugged"]
    subprocess.run([*command, directory / "debugged.c"], check=True)
    return make_instance("gdb", directory / "debugged")


def gdb(instance: Instance, *commands: str) -> str:
    """What GDB says when it runs these commands over the program."""
    options = [word for command in commands for word in ("-ex", command)]
    done = instance.occlum("gdb", "-b", *options, PROGRAM)
    said = done.stdout.decode()
    if "ptrace: Operation not permitted" in said + done.stderr.decode():
        pytest.skip("this machine does not let GDB trace")
    return said + done.stderr.decode()


def test_a_breakpoint_in_the_program_shows_source_and_callers(built: Instance):
    said = gdb(built, "break debugged.c:4", "run", "backtrace", "print x")
    assert re.search(r"#0 +innermost \(x=4\) at .*debugged\.c:4", said)
    assert re.search(r"#1 .* in middle \(x=3\)", said)
    assert re.search(r"#2 .* in main \(\)", said)
    assert "$1 = 4" in said


def test_the_backtrace_crosses_the_system_call(built: Instance):
    place = "break occlum_kernel::vfs::open::OpenFile::write"
    said = gdb(built, place, "run", "backtrace", "occlum-bt", "info occlum-threads", "continue")
    assert "sys_write ()" in said
    assert re.search(r"user_loop::live \(\).*\n#\d+ .* in .*write", said)
    assert re.search(r"#\d+ .* in middle \(x=3\)", said)
    assert re.search(r"#\d+ .* in main \(\)", said)
    listed = said[said.index("  tid  where") :]
    assert len(re.findall(r"^ +\d+  0x[0-9a-f]+ ", listed, re.MULTILINE)) == 2
    assert "exited normally" in said


def test_the_frames_of_a_sleeping_thread_can_be_seen(built: Instance):
    said = gdb(built, "break debugged.c:4", "run", "info occlum-threads", "occlum-bt 3", "continue")
    assert re.search(r"#\d+ .* in sleeper \(arg=0x0\)", said)
    assert "exited normally" in said


def test_wrong_use_is_refused(built: Instance, instance: Instance, tmp_path: Path):
    assert built.occlum("gdb").returncode == 2
    assert instance.occlum("gdb", "/bin/true").returncode == 127

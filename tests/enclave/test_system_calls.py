"""No instruction of a program reaches the host's kernel as a system call, however it is written.

The witness is a seccomp filter around the host program: a system call with a number that no kernel
has kills the process there. Inside, the same call is answered: ENOSYS.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from conftest import OCCLUM, Instance, MakeInstance

HERE = Path(__file__).parent
WAYS = "/usr/local/bin/ways"
TIMEOUT_S = 60

# As in ways.c.
MAGIC = 19018
ANSWERED = [
    "program",
    "libc",
    "generated",
    "writable",
    "across-pages",
    "changed",
    "prefixed",
    "inside-another",
    "signal-handler",
    "thread",
    "child",
]
FAULTS = {"int80": {"ILL", "SEGV"}, "sysenter": {"ILL", "SEGV"}, "vsyscall": {"SEGV"}}


def die_at_the_magic_call() -> None:
    """In a child before exec: whoever makes the magic call is killed, by whichever entry."""
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    kill_process, allow = 0x8000_0000, 0x7FFF_0000
    filter_ = b"".join(
        struct.pack("<HBBI", *statement)
        for statement in [
            (load, 0, 0, 0),
            (jump_if_equal, 0, 1, MAGIC),
            (answer, 0, 0, kill_process),
            (answer, 0, 0, allow),
        ]
    )
    buffer = ctypes.create_string_buffer(filter_)
    program = struct.pack("<HxxxxxxQ", len(filter_) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_no_new_privs, pr_set_seccomp, mode_filter = 38, 22, 2
    if libc.prctl(pr_set_no_new_privs, 1, 0, 0, 0):
        os._exit(99)
    if libc.prctl(pr_set_seccomp, mode_filter, ctypes.create_string_buffer(program), 0, 0):
        os._exit(98)


def run_watched(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        preexec_fn=die_at_the_magic_call,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope="session")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("ways") / "ways"
    command = ["gcc", "-O1", "-Wall", "-D_GNU_SOURCE", "-pthread", "-o", program, HERE / "ways.c"]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="session")
def instance(make_instance: MakeInstance, ways: Path) -> Instance:
    return make_instance("ways-instance", ways)


@pytest.mark.parametrize("way", ANSWERED)
def test_the_witness_sees_the_call_on_linux(way: str, ways: Path, tmp_path: Path) -> None:
    done = run_watched(ways, way, cwd=tmp_path)
    if way == "child":
        # The filter is inherited, and the parent says how its child ended.
        assert (done.returncode, done.stdout) == (1, "answer 1\n")
    else:
        assert done.returncode == -signal.SIGSYS, done.stdout


@pytest.mark.enclave
@pytest.mark.parametrize("way", ANSWERED)
def test_a_call_is_answered_inside(way: str, instance: Instance) -> None:
    done = run_watched(OCCLUM, "run", WAYS, way, cwd=instance.root)
    # A child prints its answer too.
    assert (done.returncode, set(done.stdout.splitlines())) == (0, {"answer -38"}), done.stderr


@pytest.mark.enclave
@pytest.mark.parametrize("way", FAULTS)
def test_what_is_no_call_is_a_fault(way: str, instance: Instance) -> None:
    done = run_watched(OCCLUM, "run", WAYS, way, cwd=instance.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.removeprefix("signal ").strip() in FAULTS[way], done.stdout

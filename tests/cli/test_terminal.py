"""`occlum run`, `exec` and `shell` on a terminal: keys, job control, window size, settings."""

from __future__ import annotations

import re
import signal
import subprocess
import termios
from collections.abc import Iterator

import pexpect
import pytest

from conftest import OCCLUM, Instance, MakeInstance, keep_nothing

pytestmark = pytest.mark.enclave

PATIENCE_S = 30
PROMPT = "ready> "
PROGRAMS = ["/bin/sh", "/bin/bash", "/bin/cat", "/bin/sleep", "/bin/stty", "/bin/echo"]


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance) -> Instance:
    return make_instance("terminal", *PROGRAMS, prepare=keep_nothing)


@pytest.fixture(scope="module", params=["run", "exec"])
def verb(request: pytest.FixtureRequest, built: Instance) -> Iterator[str]:
    """Both ways to run a program must feel the same."""
    if request.param == "exec":
        assert built.occlum("start").returncode == 0
    yield request.param
    if request.param == "exec":
        built.occlum("stop", "--grace", "1")


def spawn(built: Instance, verb: str, *command: str, **options: object) -> pexpect.spawn:
    arguments = [verb, *command]
    return pexpect.spawn(
        str(OCCLUM), arguments, cwd=built.root, timeout=PATIENCE_S, encoding="ascii", **options
    )


def host_shell(built: Instance) -> pexpect.spawn:
    """An interactive shell of the host, in the instance."""
    shell = pexpect.spawn(
        "/bin/bash", ["--norc", "-i"], cwd=built.root, timeout=PATIENCE_S, encoding="ascii",
        env={"PS1": "host> ", "PATH": f"{OCCLUM.parent}:/usr/bin:/bin", "TERM": "dumb"},
    )  # fmt: skip
    shell.expect_exact("host> ")
    return shell


def inner_bash(built: Instance, verb: str) -> pexpect.spawn:
    shell = spawn(built, verb, "/bin/bash", "--norc", "--noediting", "-i")
    shell.expect(r"[$#] ")
    shell.setecho(False)
    shell.sendline(f"PS1='{PROMPT}'")
    shell.expect_exact(PROMPT)
    return shell


def ask(shell: pexpect.spawn, line: str) -> str:
    shell.sendline(line)
    shell.expect_exact(PROMPT)
    return shell.before.replace("\r\n", "\n").replace(line + "\n", "")


def start_in_foreground(shell: pexpect.spawn, command: str) -> None:
    shell.sendline(f"sh -c 'echo here; exec {command}'")
    shell.expect_exact("here")


def status_of(child: pexpect.spawn) -> int:
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus if child.exitstatus is not None else -child.signalstatus


@pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("\x1c", 131)])
def test_keys_end_the_program(built: Instance, verb: str, key: str, status: int):
    child = spawn(built, verb, "/bin/sh", "-c", "echo started; exec sleep 60")
    child.expect_exact("started")
    child.send(key)
    assert status_of(child) == status


def test_a_flood_of_interrupts_leaves_the_terminal_as_it_was(built: Instance, verb: str):
    child = spawn(built, verb, "/bin/sh", "-c", "stty -icanon -echo; echo started; sleep 60")
    before = termios.tcgetattr(child.child_fd)
    child.expect_exact("started")
    assert termios.tcgetattr(child.child_fd) != before
    for _ in range(200):
        child.kill(signal.SIGINT)
    assert status_of_while_open(child) == 130


def status_of_while_open(child: pexpect.spawn) -> int:
    """The status of a child; asserts that it has put the terminal back."""
    child.wait()
    settings = termios.tcgetattr(child.child_fd)
    assert settings[3] & termios.ICANON
    assert settings[3] & termios.ECHO
    return child.exitstatus


def test_a_hang_up_ends_the_program(built: Instance, verb: str):
    child = spawn(built, verb, "/bin/sh", "-c", "echo started; exec sleep 60")
    child.expect_exact("started")
    child.kill(signal.SIGHUP)
    assert status_of(child) == 129


def test_the_window_size_and_its_change_reach_the_program(built: Instance, verb: str):
    text = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
    child = spawn(built, verb, "/bin/sh", "-c", text, dimensions=(33, 77))
    child.expect_exact("33 77")
    child.setwinsize(44, 99)
    child.expect_exact("44 99")
    child.send("\x03")
    assert status_of(child) == 130


def test_the_shell_of_the_host_can_stop_and_continue_it(built: Instance, verb: str):
    shell = host_shell(built)
    shell.sendline(f"occlum {verb} /bin/sh -c 'echo star''ted; read line; echo got $line; exit 3'")
    shell.expect_exact("started")
    shell.send("\x1a")
    shell.expect_exact("Stopped")
    shell.expect_exact("host> ")
    shell.sendline("jobs; fg")
    shell.expect_exact("read line")
    shell.sendline("word")
    shell.expect_exact("got word")
    shell.expect_exact("host> ")
    shell.sendline("echo status $?")
    shell.expect_exact("status 3")


def test_bash_controls_its_jobs(built: Instance, verb: str):
    shell = inner_bash(built, verb)
    assert "no job control" not in shell.before
    start_in_foreground(shell, "sleep 61")
    shell.send("\x1a")
    shell.expect_exact(PROMPT)
    assert "Stopped" in ask(shell, "jobs")
    shell.sendline("fg")
    shell.expect_exact("sleep 61'")
    shell.send("\x03")
    shell.expect_exact(PROMPT)
    assert ask(shell, "echo $?").strip() == "130"
    assert re.search(r"\[1\] \d+", ask(shell, "sleep 62 &"))
    assert "Running" in ask(shell, "jobs")
    ask(shell, "kill %1; wait")
    shell.sendline("exit 5")
    assert status_of(shell) == 5


def test_a_background_reader_is_stopped(built: Instance, verb: str):
    shell = inner_bash(built, verb)
    ask(shell, "cat &")
    assert "Stopped" in ask(shell, "sleep 0.3; jobs -l")
    assert "(tty input)" in ask(shell, "jobs -l")
    ask(shell, "kill -9 %1; wait 2>/dev/null")
    # Unlike exit, exec does not ask whether bash has heard of the job's end.
    shell.sendline("exec sleep 0")
    assert status_of(shell) == 0


def test_a_background_writer_is_stopped_only_with_tostop(built: Instance, verb: str):
    shell = inner_bash(built, verb)
    assert "free" in ask(shell, "(sleep 0.1; echo fr'e'e) & wait")
    ask(shell, "stty tostop")
    ask(shell, "(sleep 0.1; echo hidden) &")
    said = ask(shell, "sleep 0.5; jobs -l")
    assert "(tty output)" in said
    ask(shell, "kill -9 %1; wait 2>/dev/null; stty -tostop")
    shell.sendline("exit 0")
    assert status_of(shell) == 0


def test_interrupts_go_to_the_foreground_only(built: Instance, verb: str):
    shell = inner_bash(built, verb)
    ask(shell, "sleep 63 &")
    start_in_foreground(shell, "sleep 64")
    shell.send("\x03")
    shell.expect_exact(PROMPT)
    assert "Running" in ask(shell, "jobs")
    ask(shell, "kill %1; wait")
    shell.sendline("exit 0")
    assert status_of(shell) == 0


def test_editing_works(built: Instance, verb: str):
    shell = spawn(built, verb, "/bin/bash", "--norc", "-i", env={"TERM": "xterm"})
    shell.expect(r"[$#] ")
    shell.send("echo wrong\x15echo rght\x1b[D\x1b[D\x1b[Di\r")
    shell.expect("\nright|\rright")
    shell.send("\x04")
    assert status_of(shell) == 0


def test_dev_tty_is_the_terminal(built: Instance, verb: str):
    text = "echo on the terminal > /dev/tty; tty=$(cat </dev/tty); echo got $tty"
    child = spawn(built, verb, "/bin/sh", "-c", text)
    child.expect_exact("on the terminal")
    child.sendline("typed")
    child.send("\x04")
    child.expect_exact("got typed")
    assert status_of(child) == 0


def test_a_pipe_of_the_host_shell_works(built: Instance, verb: str):
    line = f"printf 'a\\nb\\n' | '{OCCLUM}' {verb} /bin/cat | '{OCCLUM}' {verb} /bin/cat"
    done = subprocess.run(["bash", "-c", line], cwd=built.root, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"a\nb\n")


def test_a_reader_that_goes_away_ends_the_writer(built: Instance, verb: str):
    text = f"set -o pipefail; '{OCCLUM}' {verb} /bin/sh -c 'while :; do echo y; done' | head -1"
    done = subprocess.run(["bash", "-c", text], cwd=built.root, capture_output=True, timeout=60)
    assert done.stdout == b"y\n"
    assert done.returncode == 141


def test_shell_opens_a_shell(built: Instance):
    built.occlum("stop", "--grace", "1")
    assert built.occlum("start").returncode == 0
    try:
        child = pexpect.spawn(
            str(OCCLUM), ["shell"], cwd=built.root, timeout=PATIENCE_S, encoding="ascii"
        )
        child.expect(r"[$#] ")
        child.sendline("exit 9")
        assert status_of(child) == 9
    finally:
        built.occlum("stop", "--grace", "1")

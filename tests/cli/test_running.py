"""An enclave that stays up: start, exec, ps, kill, logs, stop, and what goes wrong with them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import occlum as sdk
from conftest import OCCLUM, Instance, MakeInstance, occlum

pytestmark = pytest.mark.enclave

PROGRAMS = ["/bin/sh", "/bin/bash", "/bin/cat", "/bin/sleep", "/bin/echo", "/usr/bin/env"]
PATIENCE_S = 30


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def make_interesting(instance: Instance) -> None:
    config = instance.root / "Occlum.json"
    text = re.sub(r'"OCCLUM=yes"', '"OURS=built"', config.read_text())
    text = re.sub(r'"untrusted": \[.*?\]', '"untrusted": ["THEIRS", "LC_*"]', text, flags=re.DOTALL)
    config.write_text(text)


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance) -> Instance:
    return make_instance("running", *PROGRAMS, prepare=make_interesting)


@pytest.fixture(scope="module")
def up(built: Instance) -> Iterator[Instance]:
    """The instance, started."""
    done = built.occlum("start")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    yield built
    built.occlum("stop", "--grace", "1")


@pytest.fixture
def own(built: Instance, tmp_path: Path) -> Iterator[Instance]:
    """A copy of the instance, not started."""
    root = tmp_path / "own"
    left = shutil.ignore_patterns("control", "log")
    shutil.copytree(built.root, root, ignore=left, symlinks=True)
    instance = Instance(root)
    yield instance
    instance.occlum("stop", "--grace", "0")


def script(instance: Instance, text: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return instance.occlum("exec", "/bin/sh", "-c", text, **options)  # type: ignore[arg-type]


def client(instance: Instance, *command: str, **options: object) -> subprocess.Popen[bytes]:
    arguments = [str(OCCLUM), "exec", *command]
    return subprocess.Popen(
        arguments,
        cwd=instance.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def commands(instance: Instance) -> list[str]:
    """The command lines of the processes inside."""
    listed = json.loads(instance.occlum("ps", "--json").stdout)
    return [" ".join(process["command"]) for process in listed]


def test_exec_connects_the_three_streams(up: Instance):
    done = script(up, "cat; echo wrong >&2", stdin=b"through\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"through\n", b"wrong\n")


@pytest.mark.parametrize(
    ("text", "status"),
    [("exit 0", 0), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_exec_exits_as_the_program(up: Instance, text: str, status: int):
    assert script(up, text).returncode == status


def test_exec_stays_while_the_program_becomes_another(up: Instance):
    done = script(up, "exec /bin/sh -c 'sleep 0.2; echo last; exit 3'")
    assert (done.returncode, done.stdout) == (3, b"last\n")


def test_exec_applies_the_rules_for_the_environment(up: Instance):
    host = {"THEIRS": "host", "OURS": "host", "SECRET": "host", "LC_ALL": "C"}
    done = up.occlum("exec", "/usr/bin/env", env=host)
    found = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert found.keys() >= {"LC_ALL", "OURS", "THEIRS"}
    assert (found["OURS"], found["THEIRS"]) == ("built", "host")
    assert "SECRET" not in found


def test_exec_starts_where_it_is_told(up: Instance):
    assert up.occlum("exec", "--cwd", "/tmp", "/bin/sh", "-c", "pwd").stdout == b"/tmp\n"
    done = up.occlum("exec", "--cwd", "/nowhere", "/bin/sh", "-c", "pwd")
    assert (done.returncode, done.stdout) == (126, b"")
    assert b"no such directory" in done.stderr


def test_programs_of_one_instance_see_the_same_files(up: Instance):
    assert script(up, "echo kept > /tmp/kept").returncode == 0
    assert script(up, "cat /tmp/kept").stdout == b"kept\n"


def test_large_output_and_input_pass(up: Instance):
    data = os.urandom(3 << 20)
    assert up.occlum("exec", "/bin/cat", stdin=data).stdout == data


def test_many_run_at_once(up: Instance):
    def one(number: int) -> tuple[int, bytes]:
        done = script(up, f"sleep 0.3; echo {number}; exit {number}")
        return done.returncode, done.stdout

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(one, range(24)))
    assert found == [(number, b"%d\n" % number) for number in range(24)]


def test_closed_descriptors_stay_closed(up: Instance):
    done = subprocess.run(
        ["sh", "-c", f'exec "{OCCLUM}" exec /bin/sh -c "echo gone >&2; exit 4" 2>&-'],
        cwd=up.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (4, b"", b"")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_signals_to_the_client_reach_the_program(up: Instance, number: int, status: int):
    process = client(up, "/bin/sh", "-c", "echo ready; exec sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == status


def test_a_program_may_handle_the_signal(up: Instance):
    text = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    process = client(up, "/bin/sh", "-c", text)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == b"caught\n"
    assert process.wait(PATIENCE_S) == 5


def test_a_killed_client_hangs_up_its_program(up: Instance):
    process = client(up, "/bin/sleep", "4321")
    wait_for(lambda: "sleep 4321" in commands(up))
    process.kill()
    process.communicate()
    wait_for(lambda: "sleep 4321" not in commands(up))


def test_ps_and_kill(up: Instance):
    process = client(up, "/bin/sleep", "1234")
    wait_for(lambda: "sleep 1234" in commands(up))
    listed = up.occlum("ps").stdout.decode()
    pid = next(line.split()[0] for line in listed.splitlines() if "sleep 1234" in line)
    assert up.occlum("kill", "-s", "USR1", pid).returncode == 0
    assert process.wait(PATIENCE_S) == 128 + signal.SIGUSR1
    done = up.occlum("kill", pid)
    assert done.returncode == 1
    assert b"no such process" in done.stderr
    assert up.occlum("kill", "-s", "NONSENSE", "1").returncode == 2


def test_exec_explains_what_can_not_run(up: Instance):
    done = up.occlum("exec", "/bin/nothing")
    assert done.returncode == 127
    assert b"/bin/nothing: no such file in the enclave" in done.stderr
    assert b"hint: " in done.stderr
    assert up.occlum("exec", "/etc/passwd").returncode == 126
    assert up.occlum("exec", "sh").returncode == 127
    assert up.occlum("exec").returncode == 2
    assert up.occlum("exec", "--nonsense", "/bin/sh").returncode == 2
    assert up.occlum("exec", "--help").stdout.startswith(b"Usage: occlum exec")


def test_exec_refuses_what_is_too_large(up: Instance):
    done = up.occlum("exec", "/bin/echo", *["x" * 100_000] * 12)
    assert done.returncode == 126
    assert b"too large" in done.stderr


def test_a_second_start_is_refused(up: Instance):
    done = up.occlum("start")
    assert done.returncode == 1
    assert b"is started already" in done.stderr
    assert up.occlum("status").stdout == b"running\n"
    assert script(up, "exit 9").returncode == 9


def test_run_beside_a_started_instance_does_not_share_its_store(up: Instance):
    done = up.run("/bin/sh", "-c", "exit 6")
    assert done.returncode == 125
    assert b'{"temporary": true}' in done.stderr
    assert script(up, "exit 6").returncode == 6


def test_the_socket_is_its_owners_alone(up: Instance):
    found = (up.root / "run/control").stat()
    assert found.st_mode & 0o777 == 0o700
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("another user can be tried by root only, with setpriv")
    parent = up.root
    while parent != parent.parent:
        parent.chmod(parent.stat().st_mode | 0o055)
        parent = parent.parent
        if parent == Path("/"):
            break
    stranger = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    done = subprocess.run(
        [*stranger, OCCLUM, "exec", "/bin/true"], cwd=up.root, capture_output=True, check=False
    )
    if b"Permission denied" in done.stderr and b"belongs to another user" not in done.stderr:
        pytest.skip("another user can't reach this installation")
    assert done.returncode == 1
    assert b"belongs to another user" in done.stderr


def test_stop_ends_everything(own: Instance):
    assert own.occlum("start").returncode == 0
    text = "trap 'echo bye; exit 8' TERM; echo on; while :; do sleep 0.05; done"
    process = client(own, "/bin/sh", "-c", text)
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    assert own.occlum("stop").returncode == 0
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert (out, process.returncode) == (b"bye\n", 8)
    assert own.occlum("status").stdout == b"built\n"
    assert own.occlum("start").returncode == 0
    assert script(own, "exit 4").returncode == 4


def test_stop_kills_what_does_not_end(own: Instance):
    assert own.occlum("start").returncode == 0
    process = client(own, "/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"deaf\n"
    started = time.monotonic()
    assert own.occlum("stop", "--grace", "0.5").returncode == 0
    assert 0.4 < time.monotonic() - started < PATIENCE_S
    assert process.wait(PATIENCE_S) == 137


def test_without_start_the_commands_say_so(own: Instance):
    for command in (["stop"], ["ps"], ["exec", "/bin/sh"], ["kill", "5"], ["shell"]):
        done = own.occlum(*command)
        assert done.returncode == 127, command
        assert b"is not started\nhint: occlum start" in done.stderr
    assert own.occlum("status").stdout == b"built\n"


def test_a_killed_server_is_noticed(own: Instance):
    assert own.occlum("start").returncode == 0
    process = client(own, "/bin/sh", "-c", "echo here; exec sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    os.kill(int((own.root / "run/control/lock").read_text()), signal.SIGKILL)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 125
    assert b"has ended" in said
    wait_for(lambda: own.occlum("status").stdout == b"built\n")
    assert own.occlum("exec", "/bin/sh").returncode == 127
    assert own.occlum("stop").returncode == 127
    # The socket it left is no obstacle.
    assert own.occlum("start").returncode == 0
    assert script(own, "exit 2").returncode == 2


def test_a_terminated_server_ends_its_programs(own: Instance):
    assert own.occlum("start").returncode == 0
    text = "trap 'exit 11' TERM; echo on; while :; do sleep 0.05; done"
    process = client(own, "/bin/sh", "-c", text)
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    os.kill(int((own.root / "run/control/lock").read_text()), signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 11
    wait_for(lambda: own.occlum("status").stdout == b"built\n")


def test_a_server_that_hangs_is_killed_by_stop(own: Instance, monkeypatch: pytest.MonkeyPatch):
    assert own.occlum("start").returncode == 0
    os.kill(int((own.root / "run/control/lock").read_text()), signal.SIGSTOP)
    monkeypatch.setattr("occlum.enclave.KILL_S", 0.5)
    enclave = sdk.Enclave(sdk.Instance.open(own.root))
    enclave.stop(0)
    assert own.occlum("status").stdout == b"built\n"


def test_a_start_that_fails_says_why(own: Instance):
    image = own.root / "build/image.occ"
    data = bytearray(image.read_bytes())
    data[:4096] = bytes(4096)
    image.chmod(0o644)
    image.write_bytes(data)
    done = own.occlum("start")
    assert done.returncode == 125
    assert b"image" in done.stderr
    assert own.occlum("status").stdout == b"built\n"


def test_start_before_build(instance: Instance):
    done = instance.occlum("start")
    assert done.returncode == 127
    assert b"is not built" in done.stderr


def test_logs_are_kept(own: Instance):
    done = own.occlum("logs")
    assert done.returncode == 1
    assert own.occlum("start", env={"OCCLUM_LOG_LEVEL": "warn"}).returncode == 0
    script(own, "kill -SEGV $$")
    wait_for(lambda: b"ends by" in own.occlum("logs").stdout)
    assert len(own.occlum("logs", "-n", "1").stdout.splitlines()) == 1


def test_commands_outside_an_instance(tmp_path: Path):
    for command in (["start"], ["stop"], ["exec", "/bin/sh"], ["ps"], ["logs"]):
        done = occlum(*command, cwd=tmp_path)
        assert done.returncode == 1
        assert b"is not in an Occlum instance" in done.stderr

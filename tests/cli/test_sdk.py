"""`import occlum`: instances and enclaves from Python, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import occlum as sdk
from conftest import Instance, MakeInstance
from occlum import aio

pytestmark = pytest.mark.enclave


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance) -> Instance:
    return make_instance("sdk", "/bin/sh", "/bin/cat", "/bin/sleep")


@pytest.fixture(scope="module")
def enclave(built: Instance) -> Iterator[sdk.Enclave]:
    with sdk.Enclave.start(sdk.Instance.open(built.root)) as enclave:
        yield enclave


def sh(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def test_run_is_like_subprocess(enclave: sdk.Enclave):
    done = enclave.run(
        sh("cat; echo two >&2; exit 3"), input=b"one", stdout=sdk.PIPE, stderr=sdk.PIPE
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"one", b"two\n")
    with pytest.raises(subprocess.CalledProcessError):
        done.check_returncode()


def test_streams_can_be_files_and_each_other(enclave: sdk.Enclave, tmp_path: Path):
    with open(tmp_path / "out", "wb") as out:
        enclave.run(sh("echo a; echo b >&2"), stdin=sdk.DEVNULL, stdout=out, stderr=sdk.STDOUT)
    assert (tmp_path / "out").read_bytes() == b"a\nb\n"


def test_more_than_a_pipe_holds_passes_both_ways(enclave: sdk.Enclave):
    data = os.urandom(1 << 20)
    assert enclave.run(["/bin/cat"], input=data, stdout=sdk.PIPE).stdout == data


def test_a_process_can_be_watched_and_signalled(enclave: sdk.Enclave):
    with enclave.exec(["/bin/sleep", "60"]) as process:
        assert process.poll() is None
        assert process.pid in {each.pid for each in enclave.processes()}
        process.send_signal(signal.SIGSTOP)
        assert process.next_event(10) == sdk.Event("stopped", signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        assert process.next_event(10) == sdk.Event("continued")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL


def test_a_run_that_takes_too_long_is_killed(enclave: sdk.Enclave):
    with pytest.raises(subprocess.TimeoutExpired):
        enclave.run(["/bin/sleep", "60"], timeout=0.2)
    assert enclave.processes() == []


def test_files_are_copied_in_and_out(enclave: sdk.Enclave, tmp_path: Path):
    (tmp_path / "in").write_bytes(b"content" * 50_000)
    (tmp_path / "in").chmod(0o640)
    enclave.copy_in(tmp_path / "in", "/tmp/there")
    done = enclave.run(sh("ls -l /tmp/there 2>/dev/null; cat /tmp/there"), stdout=sdk.PIPE)
    assert done.stdout is not None
    assert done.stdout.endswith(b"content")
    enclave.copy_out("/tmp/there", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"content" * 50_000
    with pytest.raises(sdk.ControlError, match="ENOENT"):
        enclave.copy_out("/tmp/nothing", tmp_path / "out")


def test_metrics_and_measurements(enclave: sdk.Enclave):
    metrics = enclave.metrics()
    assert metrics["ocalls"] > 0
    assert metrics["user_memory_limit_bytes"] > 0
    assert metrics["uptime_ns"] > 0
    assert len(enclave.instance.identity().mrenclave) == 32


def test_refusals_are_exceptions(enclave: sdk.Enclave):
    with pytest.raises(sdk.ControlError) as caught:
        enclave.run(["/bin/nothing"])
    assert caught.value.exit_status == 127
    assert caught.value.hint


def test_several_enclaves_in_one_process(enclave: sdk.Enclave, make_instance: MakeInstance):
    other = make_instance("sdk-other", "/bin/sh", "/bin/cat")
    with sdk.Enclave.start(sdk.Instance.open(other.root)) as second:
        enclave.run(sh("echo first > /tmp/where"))
        second.run(sh("echo second > /tmp/where"))
        found = [e.run(sh("cat /tmp/where"), stdout=sdk.PIPE).stdout for e in (enclave, second)]
    assert found == [b"first\n", b"second\n"]
    with pytest.raises(sdk.NotStartedError):
        second.processes()


def test_asyncio(enclave: sdk.Enclave):
    async def all_at_once() -> list[bytes | None]:
        mine = await aio.attach(enclave.instance)
        runs = [mine.run(["/bin/cat"], input=b"%d" % n, stdout=sdk.PIPE) for n in range(8)]
        return [done.stdout for done in await asyncio.gather(*runs)]

    assert asyncio.run(all_at_once()) == [b"%d" % n for n in range(8)]


def test_asyncio_processes_can_be_watched_and_killed(enclave: sdk.Enclave):
    async def watch() -> list[sdk.Event]:
        mine = aio.Enclave(enclave.instance)
        process = await mine.exec(["/bin/sleep", "60"])
        process.send_signal(signal.SIGSTOP)
        events = []
        async for event in process.events():
            events.append(event)
            process.kill()
        return events

    events = asyncio.run(watch())
    assert events[0] == sdk.Event("stopped", signal.SIGSTOP)
    assert events[-1] == sdk.Event("ended", -signal.SIGKILL)


def test_a_cancelled_run_is_killed(enclave: sdk.Enclave):
    async def cancel() -> None:
        mine = aio.Enclave(enclave.instance)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(mine.run(["/bin/sleep", "60"]), 0.3)

    asyncio.run(cancel())
    while enclave.processes():
        pass

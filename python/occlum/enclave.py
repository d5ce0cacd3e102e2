"""An enclave that stays up, and the programs that run in it.

::

    instance = occlum.Instance.open("hello")
    with occlum.Enclave.start(instance) as enclave:
        done = enclave.run(["/bin/echo", "hi"], stdout=occlum.PIPE)
        assert done.stdout == b"hi\\n"

`Enclave` starts, finds and ends it; what it is asked travels through `occlum.client`; programs are
`occlum.process.Process`. A process may use as many enclaves as it likes.

Life cycle: `occlum-host serve` holds ``run/control/lock`` (flock) from before it binds the control
socket until it is gone, however it goes. So a lock that is free means that whatever else lies in
``run/control`` is left over, and the next start replaces it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from occlum import client, toolchain, wire
from occlum.client import NotStartedError, ProcessInfo
from occlum.errors import Error
from occlum.instance import Instance
from occlum.process import Completed, Process, Stream

GRACE_S = 30.0
"""How long programs may take to end after SIGTERM."""

KILL_S = 10.0
"""How long the host program may take beyond the grace, before it is killed."""

LOG_SIZE_MAX = 16 << 20
"""A log larger than this becomes ``log.old`` at the next start."""


class Enclave:
    """A started instance. Use `start` or `attach`."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    @classmethod
    def start(
        cls,
        instance: Instance,
        *,
        log_level: str = "off",
        grace: float = GRACE_S,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Start the enclave of a built instance; returns when it takes requests.

        It lives until `stop`, also after this process has ended. ``grace``: seconds that programs
        get to end when the host program itself is told to end. Raises with what the enclave said
        if it does not come up.
        """
        _Start(instance, log_level, grace, env).run()
        return cls(instance)

    @classmethod
    def attach(cls, instance: Instance) -> Self:
        """The enclave of an instance that somebody started; raises `NotStartedError`."""
        client.connect(instance).close()
        return cls(instance)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(NotStartedError):
            self.stop()

    def exec(
        self,
        command: Sequence[str | bytes],
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        env: Mapping[str, str] | None = None,
        directory: str = "",
    ) -> Process:
        """Start a program inside; like `subprocess.Popen`.

        ``command``: absolute path inside, and arguments. Streams: None for this process's own, an
        open file or descriptor, `PIPE`, `DEVNULL`, or `STDOUT` for ``stderr``. ``env``: of it the
        program gets what the builder lets the host choose. ``directory``: where it starts, inside.
        """
        return Process(
            self.instance,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            directory=directory,
        )

    def run(
        self,
        command: Sequence[str | bytes],
        *,
        input: bytes | None = None,  # noqa: A002, as subprocess has it
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        directory: str = "",
    ) -> Completed:
        """Run a program inside to its end; like `subprocess.run`."""
        if input is not None:
            stdin = subprocess.PIPE
        process = self.exec(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, directory=directory
        )
        with process:
            try:
                out, err = process.communicate(input, timeout=timeout)
            except BaseException:
                process.kill()
                process.wait()
                raise
            done = Completed(process.command, process.wait(), out, err)
        if check:
            done.check_returncode()
        return done

    def processes(self) -> list[ProcessInfo]:
        return client.processes(self.instance)

    def metrics(self) -> dict[str, int]:
        """Counters and sizes by name; names end in their unit."""
        return client.metrics(self.instance)

    def send_signal(self, pid: int, signal: int) -> None:
        """Signal a process by its id inside; signal 0 only asks whether it is there."""
        client.send_signal(self.instance, pid, signal)

    def set_log_level(self, level: str) -> None:
        client.set_log_level(self.instance, level)

    def copy_in(self, source: str | Path, target: str) -> None:
        """Copy a file of the host to an absolute path inside; debuggable enclaves only."""
        client.copy_in(self.instance, Path(source), target)

    def copy_out(self, source: str, target: str | Path) -> None:
        """Copy the file at an absolute path inside to the host; debuggable enclaves only."""
        client.copy_out(self.instance, source, Path(target))

    def stop(self, grace: float = GRACE_S) -> None:
        """End all programs (SIGTERM, after ``grace`` seconds SIGKILL) and the enclave.

        Returns when the host program is gone. Raises `NotStartedError` if there is none.
        """
        server = _find_server(self.instance)
        try:
            with contextlib.suppress(NotStartedError, wire.ControlError, OSError):
                milliseconds = max(0, round(grace * 1000))
                field = wire.number(milliseconds)
                client.ask(self.instance, wire.Ask.SHUTDOWN, field, timeout=KILL_S)
            if not _wait_until_gone(server, grace + KILL_S):
                signal.pidfd_send_signal(server, signal.SIGKILL)
                _wait_until_gone(server, KILL_S)
        finally:
            os.close(server)


def _find_server(instance: Instance) -> int:
    """A pidfd of the host program; raises `NotStartedError`."""
    try:
        with client.connect(instance) as stream:
            credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, _, _ = struct.unpack("3i", credentials)
            return os.pidfd_open(pid)
    except (NotStartedError, ProcessLookupError):
        if not is_locked(instance):
            raise NotStartedError(f"{instance.root} is not started", hint="occlum start") from None
    # It holds the lock but does not listen: it starts, ends, or hangs.
    try:
        return os.pidfd_open(int((instance.control / "lock").read_text()))
    except (OSError, ValueError):
        raise NotStartedError(f"{instance.root} is not started", hint="occlum start") from None


def _wait_until_gone(pidfd: int, seconds: float) -> bool:
    ready, _, _ = select.select([pidfd], [], [], seconds)
    return bool(ready)


def is_locked(instance: Instance) -> bool:
    """Whether a host program serves the instance, or is about to."""
    try:
        descriptor = os.open(instance.control / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class _Start:
    """One attempt to start the host program."""

    def __init__(
        self, instance: Instance, log_level: str, grace: float, env: Mapping[str, str] | None
    ) -> None:
        self._instance = instance
        self._log_level = log_level
        self._grace_ms = max(0, round(grace * 1000))
        self._env = env

    def run(self) -> None:
        if not self._instance.build.is_complete():
            raise Error(
                f"{self._instance.root} is not built",
                hint="occlum build",
                exit_status=127,
                code="not-built",
            )
        make_private(self._instance.control)
        with contextlib.ExitStack() as stack:
            lock = self._take_lock()
            stack.callback(os.close, lock)
            running = self._instance.hold_lock()
            stack.callback(os.close, running)
            log = self._open_log()
            stack.callback(os.close, log)
            said_before = os.fstat(log).st_size
            ready, ready_end = os.pipe()
            stack.callback(os.close, ready)
            try:
                host = self._spawn(log, ready_end, (lock, running, ready_end))
            finally:
                os.close(ready_end)
            os.pwrite(lock, b"%d\n" % host.pid, 0)
            self._wait_until_ready(host, ready, said_before)

    def _take_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock = os.open(self._instance.control / "lock", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Error(
                f"{self._instance.root} is started already",
                hint="occlum stop ends it; occlum exec runs a program in it",
                code="started-already",
            ) from None
        os.ftruncate(lock, 0)
        return lock

    def _open_log(self) -> int:
        log = self._instance.log
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > LOG_SIZE_MAX:
                log.replace(log.with_suffix(".old"))
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _spawn(self, log: int, ready: int, kept: tuple[int, ...]) -> subprocess.Popen[bytes]:
        command = [str(toolchain.host()), "serve", "--build-dir", "build"]
        command += ["--log-level", self._log_level, "--grace-ms", str(self._grace_ms)]
        command += ["--socket", "run/control/socket", "--ready-fd", str(ready)]
        return subprocess.Popen(
            command,
            # Sources of hostfs mounts are relative to the instance.
            cwd=self._instance.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self._env,
            pass_fds=kept,
            start_new_session=True,
        )

    def _wait_until_ready(
        self, host: subprocess.Popen[bytes], ready: int, said_before: int
    ) -> None:
        try:
            word = os.read(ready, 16)
        except BaseException:
            host.kill()
            host.wait()
            raise
        if word == b"ready\n":
            # It outlives this object, which must not complain about that.
            host.returncode = 0
            return
        status = host.wait()
        with open(self._instance.log, "rb") as log:
            log.seek(said_before)
            said = log.read().decode(errors="replace").strip()
        message, _, hint = said.partition("\nhint: ")
        raise Error(
            message.removeprefix("error: ") or f"the host program ended with status {status}",
            hint=hint or f"the log is {self._instance.log}",
            exit_status=status if status > 0 else 125,
            code="start-failed",
        )


def make_private(directory: Path) -> None:
    """Make sure that the directory is there and only its owner can enter it."""
    directory.parent.mkdir(exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        raise Error(
            f"{directory} belongs to another user",
            hint="only the owner of an instance, or root, can start it",
            code="not-owner",
        )
    if found.st_mode & 0o077:
        directory.chmod(0o700)


def wait_until_stopped(instance: Instance, seconds: float) -> bool:
    """Wait until nobody serves the instance."""
    end = time.monotonic() + seconds
    while is_locked(instance):
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True

"""A program inside a started enclave, in the manner of `subprocess.Popen`."""

from __future__ import annotations

import os
import selectors
import signal as signals
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE, STDOUT
from types import TracebackType
from typing import IO, Literal, Self

from occlum import client, wire
from occlum.instance import Instance
from occlum.wire import Answer, Frame

Stream = int | IO[bytes] | IO[str] | None
"""None for this process's own, an open file or descriptor, `PIPE`, `DEVNULL`, `STDOUT`."""

CHUNK = 64 << 10


@dataclass(frozen=True)
class Event:
    """What became of a program: ``value`` is the signal, or the return code of ``ended``."""

    kind: Literal["stopped", "continued", "ended"]
    value: int = 0


@dataclass(frozen=True)
class Completed:
    """A program that has ended. ``returncode``: exit code, or minus the signal."""

    args: tuple[str | bytes, ...]
    returncode: int
    stdout: bytes | None
    stderr: bytes | None

    def check_returncode(self) -> None:
        """Raise `subprocess.CalledProcessError` unless the program succeeded."""
        if self.returncode:
            raise subprocess.CalledProcessError(
                self.returncode, [*map(os.fsdecode, self.args)], self.stdout, self.stderr
            )


def return_code(wait_status: int) -> int:
    """Exit code, or minus the signal, for a wait status."""
    signal = wait_status & 0x7F
    return -signal if signal else wait_status >> 8 & 0xFF


class Process:
    """A running program. Made by `occlum.Enclave.exec`, which documents the parameters."""

    def __init__(
        self,
        instance: Instance,
        command: Sequence[str | bytes],
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        env: Mapping[str, str] | None = None,
        directory: str = "",
    ) -> None:
        if not command:
            raise ValueError("the command is empty")
        self.command = tuple(command)
        self.returncode: int | None = None
        """None while it runs; then the exit code, or minus the signal."""
        pipes = Pipes(stdin, stdout, stderr)
        self._stream = client.connect(instance)
        try:
            client.request_start(
                self._stream, command, stdio=pipes.theirs, env=env, directory=directory
            )
            self.pid = wire.check(wire.receive(self._stream)).number(0)
            """Its process id inside."""
        except BaseException:
            self._stream.close()
            pipes.close_ours()
            raise
        finally:
            pipes.close_theirs()
        self.stdin: IO[bytes] | None = pipes.open(0, "wb")
        self.stdout: IO[bytes] | None = pipes.open(1, "rb")
        self.stderr: IO[bytes] | None = pipes.open(2, "rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream is not None:
                stream.close()
        self.wait()

    def poll(self) -> int | None:
        """The return code if the program has ended."""
        while self.returncode is None:
            ready = selectors.DefaultSelector()
            with ready:
                ready.register(self._stream, selectors.EVENT_READ)
                if not ready.select(0):
                    return None
            self._take(wire.receive(self._stream))
        return self.returncode

    def next_event(self, timeout: float | None = None) -> Event:
        """Wait for the next thing that becomes of it; TimeoutExpired if nothing does."""
        if self.returncode is not None:
            return Event("ended", self.returncode)
        self._stream.settimeout(timeout)
        try:
            return self._take(wire.receive(self._stream))
        except TimeoutError:
            raise self._too_late(timeout) from None
        finally:
            if self.returncode is None:
                self._stream.settimeout(None)

    def _too_late(self, timeout: float | None) -> subprocess.TimeoutExpired:
        return subprocess.TimeoutExpired([*map(os.fsdecode, self.command)], timeout or 0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; gives the return code."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            self.next_event(None if end is None else max(0.001, end - time.monotonic()))
        return self.returncode

    def communicate(
        self,
        input: bytes | None = None,  # noqa: A002, as subprocess has it
        timeout: float | None = None,
    ) -> tuple[bytes | None, bytes | None]:
        """Send input, read the pipes to their ends, and wait."""
        end = None if timeout is None else time.monotonic() + timeout
        found = _exchange(self, input or b"", end)
        self.wait(None if end is None else max(0.001, end - time.monotonic()))
        return found

    def send_signal(self, signal: int) -> None:
        """Signal the program; nothing happens if it has ended."""
        if self.poll() is None:
            client.signal_program(self._stream, signal)

    def interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to the foreground group of its terminal, or to its group."""
        if self.poll() is None:
            client.signal_program(self._stream, signals.SIGINT, "foreground")

    def terminate(self) -> None:
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signals.SIGKILL)

    def _take(self, frame: Frame | None) -> Event:
        try:
            event = to_event(wire.check(frame))
        except wire.ControlError:
            # The enclave is gone, and the program with it.
            self.returncode = -signals.SIGKILL
            self._stream.close()
            raise
        if event.kind == "ended":
            self.returncode = event.value
            self._stream.close()
        return event


def to_event(frame: Frame) -> Event:
    match frame.kind:
        case Answer.STOPPED:
            return Event("stopped", frame.number(0))
        case Answer.CONTINUED:
            return Event("continued")
        case Answer.ENDED:
            return Event("ended", return_code(frame.number(0)))
        case kind:
            raise wire.ControlError(f"the control socket sends a frame of kind {kind}")


class Pipes:
    """The three standard descriptors of a program, and this side's ends of its pipes."""

    def __init__(self, *streams: Stream) -> None:
        self.theirs: dict[int, int] = {}
        self._ours: dict[int, int] = {}
        self._to_close: list[int] = []
        for at, stream in enumerate(streams):
            self._add(at, stream)

    def _add(self, at: int, stream: Stream) -> None:
        match stream:
            case None:
                if _is_open(at):
                    self.theirs[at] = at
            case subprocess.PIPE:
                read_end, write_end = os.pipe()
                theirs, ours = (read_end, write_end) if at == 0 else (write_end, read_end)
                self.theirs[at], self._ours[at] = theirs, ours
                self._to_close.append(theirs)
            case subprocess.DEVNULL:
                self.theirs[at] = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                self._to_close.append(self.theirs[at])
            case subprocess.STDOUT:
                if at == 2 and 1 in self.theirs:
                    self.theirs[2] = self.theirs[1]
            case int():
                self.theirs[at] = stream
            case file:
                self.theirs[at] = file.fileno()

    def open(self, at: int, mode: Literal["rb", "wb"]) -> IO[bytes] | None:
        """This side's end of a pipe, as an unbuffered file."""
        descriptor = self._ours.pop(at, None)
        return None if descriptor is None else os.fdopen(descriptor, mode, 0)

    def take(self, at: int) -> int | None:
        """This side's end of a pipe, as a descriptor."""
        return self._ours.pop(at, None)

    def close_theirs(self) -> None:
        for descriptor in self._to_close:
            os.close(descriptor)
        self._to_close.clear()

    def close_ours(self) -> None:
        for descriptor in self._ours.values():
            os.close(descriptor)
        self._ours.clear()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _exchange(
    process: Process, data: bytes, end: float | None
) -> tuple[bytes | None, bytes | None]:
    """Write and read the pipes of a process until all are closed."""
    found: dict[IO[bytes], bytearray] = {}
    rest = memoryview(data)
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            if stream is not None and not stream.closed:
                selector.register(stream, selectors.EVENT_READ)
                found[stream] = bytearray()
        if process.stdin is not None and not process.stdin.closed:
            if rest:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE)
            else:
                process.stdin.close()
        while selector.get_map():
            ready = selector.select(None if end is None else max(0, end - time.monotonic()))
            if not ready and end is not None:
                raise process._too_late(None)
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    rest = _write(process.stdin, rest)
                    is_done = not rest
                else:
                    data = os.read(key.fd, CHUNK)
                    found[key.fileobj] += data  # type: ignore[index]
                    is_done = not data
                if is_done:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
    outputs = (process.stdout, process.stderr)
    out, err = (bytes(found[s]) if s is not None and s in found else None for s in outputs)
    return out, err


def _write(stdin: IO[bytes], rest: memoryview) -> memoryview:
    """Write what the pipe takes; nothing is left if nobody reads it."""
    try:
        return rest[os.write(stdin.fileno(), rest[:CHUNK]) :]
    except BrokenPipeError:
        return rest[:0]
    except BlockingIOError:
        return rest


__all__ = ["DEVNULL", "PIPE", "STDOUT", "Completed", "Event", "Process", "Stream"]

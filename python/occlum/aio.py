"""The SDK for asyncio: what ``occlum.enclave`` and ``occlum.process`` do, awaited.

::

    async with await aio.start(instance) as enclave:
        process = await enclave.exec(["/bin/cat"], stdin=occlum.PIPE, stdout=occlum.PIPE)
        out, err = await process.communicate(b"hi")
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from occlum import client, wire
from occlum.client import NotStartedError, ProcessInfo
from occlum.enclave import GRACE_S
from occlum.enclave import Enclave as SyncEnclave
from occlum.instance import Instance
from occlum.process import Completed, Event, Pipes, Stream, to_event


async def start(instance: Instance, *, log_level: str = "off", grace: float = GRACE_S) -> Enclave:
    """Start the enclave of a built instance; see `occlum.Enclave.start`."""
    await asyncio.to_thread(SyncEnclave.start, instance, log_level=log_level, grace=grace)
    return Enclave(instance)


async def attach(instance: Instance) -> Enclave:
    """The enclave of an instance that somebody started; raises `NotStartedError`."""
    await asyncio.to_thread(SyncEnclave.attach, instance)
    return Enclave(instance)


class Enclave:
    """A started instance. Use `start` or `attach`."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._sync = SyncEnclave(instance)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(NotStartedError):
            await self.stop()

    async def exec(
        self,
        command: Sequence[str | bytes],
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        env: Mapping[str, str] | None = None,
        directory: str = "",
    ) -> Process:
        """Start a program inside; parameters as in `occlum.Enclave.exec`."""
        pipes = Pipes(stdin, stdout, stderr)
        try:
            stream = await asyncio.to_thread(client.connect, self.instance)
            try:
                client.request_start(
                    stream, command, stdio=pipes.theirs, env=env, directory=directory
                )
                reader, writer = await asyncio.open_unix_connection(sock=stream)
                pid = wire.check(await _receive(reader)).number(0)
            except BaseException:
                stream.close()
                raise
            process = Process(tuple(command), pid, reader, writer)
            await process._open_pipes(pipes)
        except BaseException:
            pipes.close_ours()
            raise
        finally:
            pipes.close_theirs()
        return process

    async def run(
        self,
        command: Sequence[str | bytes],
        *,
        input: bytes | None = None,  # noqa: A002, as subprocess has it
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        directory: str = "",
    ) -> Completed:
        """Run a program inside to its end. It is killed if this is cancelled."""
        if input is not None:
            stdin = subprocess.PIPE
        process = await self.exec(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, directory=directory
        )
        try:
            out, err = await process.communicate(input)
        except BaseException:
            process.kill()
            raise
        done = Completed(process.command, await process.wait(), out, err)
        if check:
            done.check_returncode()
        return done

    async def processes(self) -> list[ProcessInfo]:
        return await asyncio.to_thread(self._sync.processes)

    async def metrics(self) -> dict[str, int]:
        return await asyncio.to_thread(self._sync.metrics)

    async def send_signal(self, pid: int, signal: int) -> None:
        await asyncio.to_thread(self._sync.send_signal, pid, signal)

    async def stop(self, grace: float = GRACE_S) -> None:
        """End all programs and the enclave; see `occlum.Enclave.stop`."""
        await asyncio.to_thread(self._sync.stop, grace)


class Process:
    """A running program; see `occlum.Process`."""

    def __init__(
        self,
        command: tuple[str | bytes, ...],
        pid: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.command = command
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    async def _open_pipes(self, pipes: Pipes) -> None:
        if (descriptor := pipes.take(0)) is not None:
            self.stdin = await _open_writer(descriptor)
        if (descriptor := pipes.take(1)) is not None:
            self.stdout = await _open_reader(descriptor)
        if (descriptor := pipes.take(2)) is not None:
            self.stderr = await _open_reader(descriptor)

    async def events(self) -> AsyncIterator[Event]:
        """What becomes of it, up to its end."""
        while self.returncode is None:
            async with self._turn:
                if self.returncode is not None:
                    return
                event = await self._next()
            yield event

    async def _next(self) -> Event:
        try:
            event = to_event(wire.check(await _receive(self._reader)))
        except wire.ControlError:
            # The enclave is gone, and the program with it.
            self.returncode = -signals.SIGKILL
            self._writer.close()
            raise
        if event.kind == "ended":
            self.returncode = event.value
            self._writer.close()
        return event

    async def wait(self) -> int:
        """Wait for the end; gives the exit code, or minus the signal."""
        async for _ in self.events():
            pass
        assert self.returncode is not None
        return self.returncode

    async def communicate(
        self,
        input: bytes | None = None,  # noqa: A002, as subprocess has it
    ) -> tuple[bytes | None, bytes | None]:
        """Send input, read the pipes to their ends, and wait."""
        _, out, err = await asyncio.gather(
            _feed(self.stdin, input or b""), _drain(self.stdout), _drain(self.stderr)
        )
        await self.wait()
        return out, err

    def send_signal(self, signal: int) -> None:
        """Signal the program; nothing happens if it has ended."""
        if self.returncode is None:
            fields = (wire.number(signal), b"program")
            self._writer.write(wire.pack(wire.Ask.SIGNAL, fields))

    def terminate(self) -> None:
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signals.SIGKILL)


async def _receive(reader: asyncio.StreamReader) -> wire.Frame | None:
    try:
        size = int.from_bytes(await reader.readexactly(4), "little")
        return wire.unpack(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None


async def _open_writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop), os.fdopen(descriptor, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _open_reader(descriptor: int) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    return reader


async def _feed(stdin: asyncio.StreamWriter | None, data: bytes) -> None:
    if stdin is None:
        return
    # A program that reads no more has what it wanted.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(data)
        await stdin.drain()
    stdin.close()


async def _drain(stream: asyncio.StreamReader | None) -> bytes | None:
    return None if stream is None else await stream.read()

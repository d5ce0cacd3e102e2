"""Requests to a running instance, one function each. See `occlum.wire` for how they travel.

Only the standard library is imported here: `occlum exec` starts through this module.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from occlum import wire
from occlum.errors import Error
from occlum.instance import Instance
from occlum.wire import Answer, Ask, Frame


class NotStartedError(Error):
    """Nobody serves the instance."""

    code = "not-started"

    exit_status = 127


def connect(instance: Instance) -> socket.socket:
    """Connect to the instance's server; raises `NotStartedError` if there is none."""
    try:
        return wire.connect(instance.control)
    except PermissionError as error:
        raise Error(
            f"{instance.root} belongs to another user: {error.strerror}",
            hint="only who started an instance, or root, can use it",
            code="not-owner",
        ) from None
    except OSError:
        raise NotStartedError(f"{instance.root} is not started", hint="occlum start") from None


@dataclass(frozen=True)
class ProcessInfo:
    """One process inside, as ``occlum ps`` shows it. Times in nanoseconds, sizes in bytes."""

    pid: int
    ppid: int
    pgid: int
    sid: int
    threads: int
    cpu_ns: int
    elapsed_ns: int
    virtual_bytes: int
    resident_bytes: int
    state: str
    command: tuple[str, ...]
    """The arguments; only the name if the enclave is not debuggable."""


PATIENCE_S = 20.0
"""How long a server may take to answer, when it does not have to work for it."""


def ask(
    instance: Instance,
    kind: Ask,
    *fields: bytes,
    descriptors: Sequence[int] = (),
    timeout: float | None = PATIENCE_S,
) -> Frame:
    """Ask one thing and give the answer; a refusal is raised."""
    with connect(instance) as stream:
        stream.settimeout(timeout)
        try:
            wire.send(stream, kind, *fields, descriptors=descriptors)
            return wire.check(wire.receive(stream))
        except TimeoutError:
            raise wire.ControlError(
                "the instance does not answer", hint="occlum stop ends it", exit_status=125
            ) from None


def processes(instance: Instance) -> list[ProcessInfo]:
    frame = ask(instance, Ask.PROCESSES)
    return [_process(wire.split(row)) for row in frame.fields]


def _process(row: tuple[bytes, ...]) -> ProcessInfo:
    command = row[10].decode(errors="replace").rstrip("\0").split("\0")
    pid, ppid, pgid, sid, threads, cpu, elapsed, virtual, resident = map(int, row[:9])
    return ProcessInfo(
        pid=pid,
        ppid=ppid,
        pgid=pgid,
        sid=sid,
        threads=threads,
        cpu_ns=cpu,
        elapsed_ns=elapsed,
        virtual_bytes=virtual,
        resident_bytes=resident,
        state=row[9].decode(),
        command=tuple(command),
    )


def metrics(instance: Instance) -> dict[str, int]:
    """Values by name; names end in their unit."""
    rows = (wire.split(row) for row in ask(instance, Ask.METRICS).fields)
    return {name.decode(): int(value) for name, value in rows}


def send_signal(instance: Instance, pid: int, signal: int) -> None:
    """Send a signal to a process by its id inside."""
    ask(instance, Ask.KILL, wire.number(pid), wire.number(signal))


def set_log_level(instance: Instance, level: str) -> None:
    ask(instance, Ask.LOG_LEVEL, level.encode())


def copy_in(instance: Instance, source: Path, target: str) -> None:
    """Copy a file of the host to the absolute path ``target`` inside. Debuggable enclaves only."""
    with open(source, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o7777
        ask(
            instance,
            Ask.COPY,
            os.fsencode(target),
            b"in",
            wire.number(mode),
            descriptors=[file.fileno()],
            timeout=None,
        )


def copy_out(instance: Instance, source: str, target: Path) -> None:
    """Copy the file at the absolute path ``source`` inside out. Debuggable enclaves only."""
    with open(target, "wb") as file:
        fields = (os.fsencode(source), b"out")
        ask(instance, Ask.COPY, *fields, descriptors=[file.fileno()], timeout=None)


def request_start(
    stream: socket.socket,
    command: Sequence[str | bytes],
    *,
    stdio: Mapping[int, int],
    env: Mapping[str, str] | None = None,
    directory: str = "",
) -> None:
    """Ask for a program; its start, stops and end are told on ``stream``.

    ``command``: absolute path inside, arguments. ``stdio``: descriptors of this process for 0, 1
    and 2; the program has those that are left out closed. ``env``: what the builder lets the host
    choose is taken from it; by default this process's environment.
    """
    path, *arguments = (os.fsencode(word) for word in command)
    wire.send(
        stream,
        Ask.START,
        path,
        wire.join(arguments),
        wire.join(name + b"=" + value for name, value in _environment(env)),
        os.fsencode(directory),
        bytes(stdio),
        descriptors=list(stdio.values()),
    )


def _environment(env: Mapping[str, str] | None) -> Iterable[tuple[bytes, bytes]]:
    if env is None:
        return os.environb.items()
    return [(os.fsencode(name), os.fsencode(value)) for name, value in env.items()]


def signal_program(stream: socket.socket, signal: int, to: str = "program") -> None:
    """Signal the program started over ``stream``, or the ``foreground`` group of its terminal."""
    wire.send(stream, Ask.SIGNAL, wire.number(signal), to.encode())


def exit_status(wait_status: int) -> int:
    """What a shell shows for a wait status: the exit code, or 128 + the signal."""
    signal = wait_status & 0x7F
    return 128 + signal if signal else wait_status >> 8 & 0xFF


__all__ = [
    "Answer",
    "NotStartedError",
    "ProcessInfo",
    "connect",
    "copy_in",
    "copy_out",
    "exit_status",
    "metrics",
    "processes",
    "request_start",
    "send_signal",
    "set_log_level",
    "signal_program",
]

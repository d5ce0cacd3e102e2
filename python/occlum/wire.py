"""The control socket of a running instance: frames, as ``docs/format/control.md`` has them.

Only the standard library is imported here, and little of it: `occlum exec` starts through this
module.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from occlum.errors import Error

SIZE_MAX = 16 << 20
"""Larger frames are no answer of a server."""


class Ask(IntEnum):
    """Kinds of frames that clients send."""

    START = 1
    SIGNAL = 2
    KILL = 3
    PROCESSES = 4
    METRICS = 5
    LOG_LEVEL = 6
    SHUTDOWN = 7
    COPY = 8


class Answer(IntEnum):
    """Kinds of frames that the server sends."""

    DONE = 64
    STARTED = 65
    REFUSED = 66
    STOPPED = 67
    CONTINUED = 68
    ENDED = 69
    TABLE = 70


class ControlError(Error):
    """The instance refuses a request, or is not there."""

    code = "control"


@dataclass(frozen=True)
class Frame:
    """One frame: its kind and its fields."""

    kind: int
    fields: tuple[bytes, ...]

    def number(self, at: int) -> int:
        """The field as the decimal number it holds."""
        return int(self.fields[at])

    def text(self, at: int) -> str:
        return self.fields[at].decode(errors="replace")


def join(fields: Iterable[bytes]) -> bytes:
    """Fields one after the other."""
    return b"".join(struct.pack("<I", len(field)) + field for field in fields)


def split(data: bytes) -> tuple[bytes, ...]:
    """What `join` joined; raises `ControlError` for anything else."""
    fields = []
    at = 0
    while at < len(data):
        end = at + 4
        if end > len(data):
            raise ControlError("a field of the control socket is cut short")
        (size,) = struct.unpack_from("<I", data, at)
        at = end + size
        if at > len(data):
            raise ControlError("a field of the control socket is cut short")
        fields.append(data[end:at])
    return tuple(fields)


def number(value: int) -> bytes:
    return b"%d" % value


def connect(directory: Path) -> socket.socket:
    """Connect to the socket in ``directory``; raises OSError if nobody listens.

    Paths of sockets are short, those of instances may be long, so it is named through a descriptor.
    """
    holder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.connect(f"/proc/self/fd/{holder}/socket")
    except BaseException:
        stream.close()
        raise
    finally:
        os.close(holder)
    return stream


def pack(kind: Ask, fields: Iterable[bytes]) -> bytes:
    """A frame as it is sent."""
    body = join(fields)
    return struct.pack("<IB", len(body) + 1, kind) + body


def send(stream: socket.socket, kind: Ask, *fields: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a frame; the descriptors go with its first byte."""
    data = pack(kind, fields)
    sent = 0
    if descriptors:
        rights = struct.pack(f"{len(descriptors)}i", *descriptors)
        sent = stream.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    if sent == len(data):
        return
    # A server that has refused and closed by now has said why.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.sendall(data[sent:])


def receive(stream: socket.socket) -> Frame | None:
    """The next frame, None when the server has closed the connection."""
    head = _receive_all(stream, 4)
    if head is None:
        return None
    (size,) = struct.unpack("<I", head)
    if not 0 < size <= SIZE_MAX:
        raise ControlError(f"the control socket sends a frame of {size} bytes")
    body = _receive_all(stream, size)
    return None if body is None else unpack(body)


def unpack(body: bytes) -> Frame:
    """The frame whose bytes after the size are these."""
    return Frame(body[0], split(body[1:]))


def _receive_all(stream: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        try:
            part = stream.recv(min(size, 1 << 20))
        except ConnectionResetError:
            return None
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def check(frame: Frame | None) -> Frame:
    """The frame, unless it is a refusal or missing: those are raised."""
    if frame is None:
        raise ControlError(
            "the instance has ended",
            hint="occlum logs shows its last words",
            exit_status=125,
            code="enclave-ended",
        )
    if frame.kind == Answer.REFUSED:
        status = frame.number(2)
        raise ControlError(frame.text(0), hint=frame.text(1) or None, exit_status=status)
    return frame

"""The system-call trace of a program: ``occlum trace``.

The kernel writes a line for each call that has returned (``crates/kernel/src/syscall/trace``);
here they become what a person reads. Only debuggable enclaves can be traced.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from occlum import toolchain
from occlum.instance import Instance

_LINE = re.compile(rb"(\d+) (\d+) (\d+) (.*)\n?")
_CALL = re.compile(r"(\w+)\(")
_FAILED = re.compile(r"\) = -1 E\w+")


@dataclass(frozen=True)
class Line:
    """One line: which thread, when (CLOCK_MONOTONIC), how long, and what."""

    tid: int
    start_ns: int
    duration_ns: int
    text: str

    @property
    def call(self) -> str | None:
        """Name of the system call, None for a signal or an end."""
        match = _CALL.match(self.text)
        return match[1] if match else None

    @property
    def is_failed(self) -> bool:
        return _FAILED.search(self.text) is not None


def parse(raw: bytes) -> Line | None:
    """The line the kernel wrote; None for anything else."""
    match = _LINE.fullmatch(raw)
    if match is None:
        return None
    tid, start, duration = (int(match[at]) for at in (1, 2, 3))
    return Line(tid, start, duration, match[4].decode(errors="replace"))


@dataclass
class _Total:
    calls: int = 0
    errors: int = 0
    ns: int = 0


@dataclass
class Summary:
    """Time, calls and errors by system call."""

    totals: dict[str, _Total] = field(default_factory=lambda: defaultdict(_Total))

    def add(self, line: Line) -> None:
        if line.call is not None:
            total = self.totals[line.call]
            total.calls += 1
            total.errors += line.is_failed
            total.ns += line.duration_ns

    def table(self) -> Iterator[str]:
        """The lines of a table in the manner of ``strace -c``, the most expensive call first."""
        yield f"{'% time':>6} {'seconds':>11} {'usecs/call':>11} {'calls':>9} {'errors':>9} syscall"
        whole = sum(total.ns for total in self.totals.values()) or 1
        for name, total in sorted(self.totals.items(), key=lambda item: -item[1].ns):
            yield (
                f"{100 * total.ns / whole:6.2f} {total.ns / 1e9:11.6f} "
                f"{total.ns / total.calls / 1e3:11.1f} {total.calls:9} {total.errors or '':>9} "
                f"{name}"
            )
        calls = sum(total.calls for total in self.totals.values())
        errors = sum(total.errors for total in self.totals.values())
        yield f"{100:6.2f} {whole / 1e9:11.6f} {'':11} {calls:9} {errors or '':>9} total"


def run(
    instance: Instance,
    command: Sequence[str],
    listen: Callable[[Line], None],
    *,
    calls: Sequence[str] = (),
    log_level: str = "off",
) -> int:
    """Run a program with this process's streams; ``listen`` gets each line of its trace.

    ``calls`` names those that are wanted, all if empty. Gives the exit status.
    """
    read_end, write_end = os.pipe()
    options = ["--trace-fd", str(write_end)]
    if calls:
        options += ["--trace-calls", ",".join(calls)]
    try:
        host = _spawn(instance, command, options, write_end, log_level)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    with _Relay(host), os.fdopen(read_end, "rb") as lines:
        for raw in lines:
            if line := parse(raw):
                listen(line)
        return _status(host)


def run_host(
    instance: Instance,
    command: Sequence[str],
    options: Sequence[str],
    descriptor: int,
    *,
    log_level: str = "off",
) -> int:
    """Run a program with options of the host program, which gets the descriptor too.

    Gives the exit status.
    """
    host = _spawn(instance, command, options, descriptor, log_level)
    with _Relay(host):
        return _status(host)


def _spawn(
    instance: Instance,
    command: Sequence[str],
    options: Sequence[str],
    descriptor: int,
    log_level: str,
) -> subprocess.Popen[bytes]:
    lock = instance.hold_lock()
    arguments = [str(toolchain.host()), "run", "--build-dir", str(instance.build.root)]
    arguments += ["--log-level", log_level, *options, "--", *command]
    try:
        return subprocess.Popen(arguments, cwd=instance.root, pass_fds=(lock, descriptor))
    finally:
        os.close(lock)


def _status(host: subprocess.Popen[bytes]) -> int:
    status = host.wait()
    return 128 - status if status < 0 else status


class _Relay:
    """Leaves the terminal's signals to the host program, and passes others on to it."""

    IGNORED = (signal.SIGINT, signal.SIGQUIT)
    PASSED = (signal.SIGTERM, signal.SIGHUP)

    def __init__(self, host: subprocess.Popen[bytes]) -> None:
        self._host = host

    def __enter__(self) -> None:
        self._saved = {number: signal.getsignal(number) for number in self.IGNORED + self.PASSED}
        for number in self.IGNORED:
            signal.signal(number, signal.SIG_IGN)
        for number in self.PASSED:
            signal.signal(number, lambda number, frame: self._host.send_signal(number))

    def __exit__(self, *_: object) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, handler)

"""``occlum exec``: a program in the started enclave, as if it ran here.

Its standard descriptors are this command's own, passed through the control socket; a terminal stays
the person's, with its window size. Signals to this command go to the program, so Ctrl-C ends it and
Ctrl-Z stops both. The exit status is the program's.

Only the standard library is imported: this is the path that counts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path

from occlum import client, instance, wire
from occlum.errors import Error, UsageError
from occlum.wire import Answer

USAGE = "occlum exec [--cwd DIR] PROG [ARGS]..."
NOT_STARTED = 127
GONE = 125
PATIENCE_S = 2.0
"""How long the enclave may take to start a program before a signal ends this command instead."""

FOREGROUND = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH}
BOTH = {signal.SIGHUP, signal.SIGCONT}
PROGRAM = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
TERMINAL_STOPS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


def main(arguments: list[str]) -> int:
    """Run the program named by the command line; gives the exit status."""
    directory, command = _parse(arguments)
    return execute(instance.find(Path.cwd()), command, directory)


def execute(here: instance.Instance, command: list[str], directory: str = "") -> int:
    """Run a program of the started instance with this process's descriptors and signals."""
    descriptors = {at: at for at in (0, 1, 2) if _is_open(at)}
    with client.connect(here) as stream, _Signals() as received, _Terminal() as terminal:
        client.request_start(stream, command, stdio=descriptors, directory=directory)
        ended = _attend(stream, received)
        if ended is None:
            terminal.restore()
            raise Error(
                "the enclave has ended",
                hint="occlum logs shows its last words",
                exit_status=GONE,
                code="enclave-ended",
            )
        if ended & 0x7F:
            terminal.restore()
        return client.exit_status(ended)


def _parse(arguments: list[str]) -> tuple[str, list[str]]:
    """The working directory and the command."""
    directory = ""
    while arguments and arguments[0].startswith("-"):
        option, *arguments = arguments
        if option == "--":
            break
        if option != "--cwd":
            raise UsageError(f"occlum exec has no option {option}", hint=USAGE)
        if not arguments:
            raise UsageError("occlum exec: --cwd needs a directory", hint=USAGE)
        directory, *arguments = arguments
    if not arguments:
        raise UsageError("occlum exec: no program is named", hint=USAGE)
    if not arguments[0].startswith("/"):
        raise Error(
            f"{arguments[0]} is not an absolute path in the image",
            hint=f"for example: occlum exec /bin/{os.path.basename(arguments[0])}",
            exit_status=NOT_STARTED,
            code="program-path",
        )
    return directory, arguments


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _attend(stream: socket.socket, received: _Signals) -> int | None:
    """Pass signals on until the program ends; gives its wait status, None if the enclave ends."""
    is_started = False
    waiting: list[int] = []
    while True:
        if is_started:
            # Only the server's end breaks the connection, and then the next frame is missing.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                _pass_on(stream, waiting)
            waiting = []
        is_asked_to_end = not is_started and not ENDING.isdisjoint(waiting)
        timeout = PATIENCE_S if is_asked_to_end else None
        watched: list[socket.socket | _Signals] = [stream, received]
        ready, _, _ = select.select(watched, [], [], timeout)
        if not ready:
            raise KeyboardInterrupt
        if received in ready:
            waiting += received.take()
        if stream not in ready:
            continue
        frame = wire.receive(stream)
        if frame is None:
            if is_started:
                return None
            wire.check(frame)
        elif frame.kind == Answer.STARTED:
            is_started = True
        elif frame.kind == Answer.ENDED:
            return frame.number(0)
        elif frame.kind == Answer.STOPPED:
            if frame.number(0) in TERMINAL_STOPS:
                # The shell sees a stopped job; when it continues this, SIGCONT is passed on.
                os.kill(os.getpid(), signal.SIGSTOP)
        elif frame.kind == Answer.REFUSED:
            wire.check(frame)


def _pass_on(stream: socket.socket, numbers: list[int]) -> None:
    for number in numbers:
        if number in FOREGROUND or number in BOTH:
            client.signal_program(stream, number, "foreground")
        if number in PROGRAM or number in BOTH:
            client.signal_program(stream, number, "program")


class _Signals:
    """Signals become bytes of a pipe. Those that were ignored at the start stay so."""

    def __enter__(self) -> _Signals:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in FOREGROUND | BOTH | PROGRAM:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)

    def fileno(self) -> int:
        return self._read

    def take(self) -> list[int]:
        return list(os.read(self._read, 4096))


class _Terminal:
    """The terminal's settings, to be put back when the program can't."""

    def __enter__(self) -> _Terminal:
        self._saved = None
        if sys.stdin is not None and os.isatty(0):
            import termios

            self._saved = termios.tcgetattr(0)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def restore(self) -> None:
        if self._saved is not None:
            import termios

            # In the background, changing the terminal would stop this process.
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)

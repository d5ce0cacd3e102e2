"""``occlum kill``."""

from __future__ import annotations

from pathlib import Path

import click

from occlum import client, instance
from occlum.errors import UsageError


@click.command()
@click.option("-s", "--signal", "name", default="TERM", show_default=True, metavar="SIGNAL")
@click.argument("pids", nargs=-1, required=True, type=click.IntRange(min=1), metavar="PID...")
def command(name: str, pids: tuple[int, ...]) -> None:
    """Send a signal to processes in the started enclave, by their ids in occlum ps."""
    number = signal_number(name)
    here = instance.find(Path.cwd())
    for pid in pids:
        client.send_signal(here, pid, number)


def signal_number(name: str) -> int:
    """The number of a signal given as ``9``, ``KILL`` or ``SIGKILL``."""
    import signal

    if name.isdecimal() and 0 <= int(name) <= 64:
        return int(name)
    known = signal.Signals.__members__.get(f"SIG{name.upper().removeprefix('SIG')}")
    if known is None:
        raise UsageError(f"{name} is no signal", hint="kill -l lists them")
    return int(known)

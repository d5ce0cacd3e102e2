"""``occlum start``."""

from __future__ import annotations

from pathlib import Path

import click

from occlum import instance


@click.command()
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that programs get to end when the host program is told to end.",
)
def command(grace: float) -> None:
    """Start the enclave of this instance; it stays up until occlum stop.

    The command returns when the enclave takes programs (occlum exec). What it prints is kept:
    occlum logs.
    """
    from occlum.cli.run import log_level, warn_if_stale
    from occlum.enclave import Enclave

    here = instance.find(Path.cwd())
    if here.build.is_complete():
        warn_if_stale(here)
    Enclave.start(here, log_level=log_level(), grace=grace)

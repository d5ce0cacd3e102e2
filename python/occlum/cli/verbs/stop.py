"""``occlum stop``."""

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
    help="Time that programs get to end after SIGTERM, before SIGKILL.",
)
def command(grace: float) -> None:
    """End all programs and the started enclave."""
    from occlum.enclave import Enclave

    Enclave(instance.find(Path.cwd())).stop(grace)

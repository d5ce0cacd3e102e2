"""``occlum status``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
def command() -> None:
    """Print the state of this instance: initialized, built or running."""
    from occlum import instance

    click.echo(instance.find(Path.cwd()).state())

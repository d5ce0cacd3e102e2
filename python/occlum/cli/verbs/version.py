"""``occlum version``."""

from __future__ import annotations

import click

import occlum


@click.command()
def command() -> None:
    """Print the version."""
    click.echo(f"occlum {occlum.__version__}")

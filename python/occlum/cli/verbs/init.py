"""``occlum init``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
def command() -> None:
    """Make the current directory an instance."""
    from occlum.image import skeleton

    skeleton.create(Path.cwd(), new=False)
    click.echo("this directory is ready: put programs into image (occlum add), then occlum build")

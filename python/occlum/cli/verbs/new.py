"""``occlum new``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def command(directory: Path) -> None:
    """Make a new instance in DIRECTORY, which must not exist yet."""
    from occlum.image import skeleton

    skeleton.create(directory, new=True)
    click.echo(
        f"{directory} is ready: put programs into {directory}/image (occlum add), then occlum build"
    )

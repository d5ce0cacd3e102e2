"""``occlum man``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def command(directory: Path) -> None:
    """Write the manual pages of all commands into DIRECTORY.

    For example ~/.local/share/man/man1, where man looks for them.
    """
    from occlum.cli.reference import write_manual

    click.echo(f"{write_manual(directory)} pages in {directory}")

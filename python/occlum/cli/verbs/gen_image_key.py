"""``occlum gen-image-key``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def command(file: Path) -> None:
    """Write a new random key of 256 bits to FILE, as xx-xx-...

    For occlum fs export, import and rekey.
    """
    from occlum.store import keys

    keys.generate(file)

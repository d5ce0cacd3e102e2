"""``occlum mount``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The store's key; a simulated CPU's enclave needs none.")  # fmt: skip
@click.option("--store", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="This store, without an image.")  # fmt: skip
@click.option("--pin", metavar="HEX", help="Refuse a store that is older than this.")
@click.option("--read-only", is_flag=True, help="Change nothing.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
def command(
    directory: Path, key: Path | None, store: Path | None, pin: str | None, read_only: bool
) -> None:
    """Show the files of this instance, image and store, at DIRECTORY until Ctrl-C.

    The instance must not be running. What is changed goes to the store, encrypted.
    """
    from occlum.store import fuse
    from occlum.store.place import Place
    from occlum.store.tree import Tree

    opened, image = Place(store=store, key=key, pin=pin).open(read_only=read_only)
    is_fixed = read_only or opened is None
    click.echo(f"mounted at {directory}{' for reading' if is_fixed else ''}; Ctrl-C ends it")
    try:
        fuse.mount(Tree(opened, image), directory, read_only=is_fixed)
    finally:
        if opened is not None and not is_fixed:
            opened.checkpoint()
            click.echo(f"pin {opened.pin()}")

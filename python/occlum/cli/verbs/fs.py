"""``occlum fs``: a look into image and store."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from occlum.errors import Error

if TYPE_CHECKING:
    from occlum.store.place import Place


@click.group()
def command() -> None:
    """Look into the image and the encrypted store, check them, copy them.

    Nothing said: what the programs of the instance here see. A store of an instance that was
    built for the simulated CPU needs no key.
    """


def _place(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where to look."""
    path = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--pin", metavar="HEX", help="Refuse a store that is older than this."),
        click.option("--key", type=path, metavar="FILE", help="The store's key."),
        click.option("--store", type=path, metavar="FILE", help="This store."),
        click.option("--image", type=path, metavar="FILE", help="This image."),
    ):
        function = option(function)
    return function


def _said(options: dict[str, Any]) -> Place:
    from occlum.store.place import Place

    return Place(options["image"], options["store"], options["key"], options["pin"])


def _found(path: str, options: dict[str, Any]) -> Any:
    tree = _said(options).tree()
    try:
        return tree, tree.find("/" + path.strip("/"))
    except OSError as error:
        raise Error(f"{path}: {os.strerror(error.errno or 0)}", hint="occlum fs ls") from None


@command.command()
@_place
@click.option("-l", "--long", is_flag=True, help="With mode, owner, size and time.")
@click.argument("path", default="/")
def ls(path: str, long: bool, **options: Any) -> None:
    """List a directory."""
    tree, node = _found(path, options)
    if not stat.S_ISDIR(tree.attributes(node).mode):
        click.echo(_line(tree, node, path) if long else path)
        return
    for name in tree.names(node):
        if long:
            below = tree.find(os.path.join("/", path, name))
            click.echo(_line(tree, below, name))
        else:
            click.echo(name)


def _line(tree: Any, node: Any, name: str) -> str:
    found = tree.attributes(node)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.mtime_ns / 1e9))
    link = f" -> {tree.read_link(node)}" if stat.S_ISLNK(found.mode) else ""
    owner = f"{found.nlink:>3} {found.uid:>5} {found.gid:>5}"
    return f"{stat.filemode(found.mode)} {owner} {found.size:>11} {when} {name}{link}"


@command.command()
@_place
@click.argument("path")
def cat(path: str, **options: Any) -> None:
    """Write a file to standard output."""
    tree, node = _found(path, options)
    if not stat.S_ISREG(tree.attributes(node).mode):
        raise Error(f"{path} is not a regular file")
    for piece in tree.pieces(node):
        sys.stdout.buffer.write(piece)


@command.command(name="stat")
@_place
@click.argument("path", required=False)
def stat_(path: str | None, **options: Any) -> None:
    """Show the attributes of PATH, or the state of the store."""
    if path is not None:
        tree, node = _found(path, options)
        click.echo(_line(tree, node, path))
        click.echo("in the store" if node.ino is not None else "in the image")
        return
    store = _said(options).only_store()
    size, blocks, free, inodes, file_blocks = store.statfs()
    click.echo(f"size of file  {file_blocks * size}")
    click.echo(f"size limit    {blocks * size}")
    click.echo(f"free          {free * size}")
    click.echo(f"inodes        {inodes}")
    click.echo(f"pin           {store.pin()}")


@command.command()
@_place
@click.argument("path")
@click.argument("dest", type=click.Path(path_type=Path))
def extract(path: str, dest: Path, **options: Any) -> None:
    """Copy PATH, with all below it, to DEST on this machine, which must not exist."""
    from occlum.cli.progress import Terminal

    tree, _ = _found(path, options)
    start = "/" + path.strip("/")
    if dest.exists():
        raise Error(f"{dest} exists", hint="name a new file or directory")
    skipped = 0
    with Terminal() as progress:
        files = list(tree.walk(start))
        for done, (each, node) in enumerate(files, 1):
            skipped += not _extract(tree, node, dest / os.path.relpath(each, start))
            progress("extracting", done, len(files))
    if skipped:
        click.echo(f"note: {skipped} devices, fifos and sockets were left out", err=True)


def _extract(tree: Any, node: Any, dest: Path) -> bool:
    found = tree.attributes(node)
    if stat.S_ISLNK(found.mode):
        dest.symlink_to(tree.read_link(node))
        return True
    if stat.S_ISDIR(found.mode):
        dest.mkdir()
    elif stat.S_ISREG(found.mode):
        with dest.open("xb") as file:
            file.writelines(tree.pieces(node))
        os.utime(dest, ns=(found.atime_ns, found.mtime_ns))
    else:
        return False
    # Never more than the file had, and the owner can go on.
    dest.chmod(found.mode & 0o777 | (0o700 if stat.S_ISDIR(found.mode) else 0))
    return True


@command.command()
@_place
def verify(**options: Any) -> None:
    """Read and check every block."""
    from occlum.cli.progress import Terminal

    store, image = _said(options).open()
    with Terminal() as progress:
        if image is not None:
            image.verify(lambda done, total: progress("image", done, total))
        if store is not None:
            store.verify(lambda done, total: progress("store", done, total))
    if image is not None:
        click.echo(f"the image is whole: root hash {image.root_hash.hex()}")
    if store is not None:
        click.echo(f"the store is whole: pin {store.pin()}")


@command.command()
@_place
@click.option(
    "--to-key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The key of the copy.",
)
@click.argument("dest", type=click.Path(path_type=Path, dir_okay=False))
def export(dest: Path, to_key: Path, **options: Any) -> None:
    """Copy the store to DEST under another key, to take it elsewhere."""
    from occlum.store import keys

    _copy(_said(options), dest, keys.read(to_key))


@command.command(name="import")
@_place
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False))
def import_(source: Path, **options: Any) -> None:
    """Make SOURCE, an exported store with its --key, the store of the instance here.

    There must be no store yet.
    """
    from occlum import instance
    from occlum.store import keys
    from occlum.store.place import Place, root_store

    if options["key"] is None:
        raise Error("the key of the exported store is missing", hint="--key FILE")
    here = instance.find(Path.cwd())
    dest = root_store(here)
    dest.parent.mkdir(parents=True, exist_ok=True)
    _copy(Place(store=source, key=options["key"], pin=options["pin"]), dest, keys.sealed(here))


@command.command()
@_place
@click.option(
    "--to-key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The new key.",
)
def rekey(to_key: Path, **options: Any) -> None:
    """Put --store under another key. The old file stays until the new one is whole."""
    from occlum.store import keys

    path: Path | None = options["store"]
    if path is None:
        raise Error("which store?", hint="--store FILE")
    fresh = path.with_name(path.name + ".rekeyed")
    _copy(_said(options), fresh, keys.read(to_key))
    fresh.replace(path)


def _copy(place: Place, dest: Path, key: bytes) -> None:
    from occlum.cli.progress import Terminal
    from occlum.store import copy_store

    with Terminal() as progress:
        copy_store(
            place.only_store(), dest, key, lambda done, total: progress("copying", done, total)
        )

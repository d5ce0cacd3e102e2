"""``copy_bom``: a command of its own, under the name that scripts know."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from occlum.cli.group import SETTINGS


@click.command(
    "copy_bom",
    context_settings=SETTINGS,
    epilog="Exit status: 255 a file is missing, 254 a file can't be copied, 253 the BOM is wrong, "
    "252 a directory can't be made, 251 a link can't be made, 250 a directory can't be copied, "
    "249 a hash differs, 248 a library is missing, 2 wrong use.",
)
@click.option("-f", "--file", "bom", required=True, type=click.Path(path_type=Path), metavar="BOM")
@click.option("--root", required=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")
@click.option(
    "-i",
    "--include-dir",
    "directories",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Look for included BOM files here too; may be repeated. The bundled ones come last.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say each thing that is done.")
def command(
    bom: Path, root: Path, dry_run: bool, directories: tuple[Path, ...], verbose: bool
) -> None:
    """Bring the tree DIR (usually image/) to what the file BOM says.

    Paths in a BOM are relative to the current directory. Shared libraries come along. Nothing is
    deleted; files that no BOM names are reported.
    """
    from occlum.bom import copying, document
    from occlum.cli.progress import Terminal
    from occlum.image.tree import Rehearsal, Tree

    tree = Rehearsal(root) if dry_run else Tree(root)
    if dry_run or verbose:
        tree.listen = lambda what, place, source: click.echo(f"{what} {source} -> {place}")
    boms = document.read(bom, directories)
    with Terminal() as progress:
        done = copying.copy(tree, boms, progress)
    for problem in done.problems:
        click.echo(f"note: {problem}", err=True)
    _tell_stale(done.stale)
    would = "would be " if dry_run else ""
    click.echo(f"{done.copied} files {would}copied, {done.unchanged} were there already")


def _tell_stale(stale: tuple[str, ...]) -> None:
    for path in stale[:20]:
        click.echo(f"note: {path} is in the tree but in no BOM", err=True)
    if len(stale) > 20:
        click.echo(f"note: so are {len(stale) - 20} others", err=True)


def main() -> NoReturn:
    """Entry of the ``copy_bom`` command."""
    from occlum.cli import guarded
    from occlum.cli.group import invoke_command

    sys.exit(guarded(lambda: invoke_command(command, sys.argv[1:], "copy_bom")))

"""``occlum package``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("name", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--debug", is_flag=True, help="Also if the build is simulated or debuggable.")
def command(name: Path | None, debug: bool) -> None:
    """Pack what running this instance needs into NAME, by default DIRECTORY.tar.gz.

    The archive runs wherever the occlum command is installed. Simulated and debuggable builds are
    no releases and need --debug.
    """
    from occlum import instance
    from occlum.cli.progress import Terminal
    from occlum.image.package import package

    here = instance.find(Path.cwd())
    target = name or Path(f"{here.root.name}.tar.gz")
    if not target.name.endswith(".tar.gz"):
        target = target.with_name(f"{target.name}.tar.gz")
    with Terminal() as progress:
        size = package(here, target, progress, debug=debug)
    click.echo(f"{target}, {size / (1 << 20):.1f} MiB")

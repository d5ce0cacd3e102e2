"""``occlum import``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--reference", metavar="NAME", help="Which image, where the archive has several.")
@click.option("--replace", is_flag=True, help="Even if image/ has been filled already.")
def command(source: Path, reference: str | None, replace: bool) -> None:
    """Turn SOURCE, a Docker or OCI image, into the image of this instance.

    SOURCE is an archive that docker save or skopeo wrote, or an OCI layout as directory or archive.
    Digests are verified. The environment and the entry point go into the configuration.
    """
    from occlum import instance
    from occlum.cli.progress import Terminal
    from occlum.oci.importing import import_image

    here = instance.find(Path.cwd())
    with Terminal() as progress:
        done = import_image(here, source, reference, progress, replace)
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{source} is in image/")
    if done.command:
        click.echo(f"after occlum build: occlum run {shlex.join(done.command)}")

"""``occlum print``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("what", type=click.Choice(["mrenclave", "mrsigner"]))
def command(what: str) -> None:
    """Print the measurement of the enclave, or of its signer's key."""
    from occlum import instance
    from occlum.image.build import read_identity

    identity = read_identity(instance.find(Path.cwd()).build)
    click.echo((identity.mrenclave if what == "mrenclave" else identity.mrsigner).hex())

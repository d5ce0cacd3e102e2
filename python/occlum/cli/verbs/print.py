"""``occlum print``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("what", type=click.Choice(["mrenclave", "mrsigner"]))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(what: str, as_json: bool) -> None:
    """Print the measurement of the enclave, or of its signer's key."""
    from occlum import instance
    from occlum.image.build import read_identity

    identity = read_identity(instance.find(Path.cwd()).build)
    value = (identity.mrenclave if what == "mrenclave" else identity.mrsigner).hex()
    click.echo(json.dumps({what: value}) if as_json else value)

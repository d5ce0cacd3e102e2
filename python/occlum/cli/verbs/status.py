"""``occlum status``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the path of the instance.")
def command(as_json: bool) -> None:
    """Print the state of this instance: initialized, built or running."""
    from occlum import instance

    here = instance.find(Path.cwd())
    state = here.state()
    click.echo(json.dumps({"state": state, "instance": str(here.root)}) if as_json else state)

"""``occlum version``."""

from __future__ import annotations

import json
import platform

import click

import occlum


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the version of Python.")
def command(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        about = {"occlum": occlum.__version__, "python": platform.python_version()}
        click.echo(json.dumps(about))
    else:
        click.echo(f"occlum {occlum.__version__}")

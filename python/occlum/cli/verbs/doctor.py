"""``occlum doctor``."""

from __future__ import annotations

import json
import sys

import click

_COLOURS = {"good": "green", "limited": "yellow", "missing": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Look at this machine, and say what the absence of something means.

    The exit status is 1 if enclaves can't run here at all.
    """
    from occlum.cli.colour import styled
    from occlum.doctor import State, examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([each.as_json() for each in findings], indent=2))
    else:
        for each in findings:
            state = styled(f"{each.state:<8}", _COLOURS[each.state])
            click.echo(f"{state} {each.name}: {each.found}")
            if each.means:
                click.echo(f"         {each.means}" + (f" ({each.remedy})" if each.remedy else ""))
    sys.exit(1 if any(each.state is State.MISSING for each in findings) else 0)

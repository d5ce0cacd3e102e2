"""``occlum explain``."""

from __future__ import annotations

import json

import click

from occlum.errors import UsageError


@click.command()
@click.argument("code", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(code: str | None, as_json: bool) -> None:
    """Explain the error CODE: cause and remedy; without CODE, list all codes."""
    import difflib

    from occlum.catalogue import ENTRIES

    if code is not None and code not in ENTRIES:
        near = difflib.get_close_matches(code, ENTRIES, n=1)
        hint = f"did you mean {near[0]}?" if near else "occlum explain lists all"
        raise UsageError(f"there is no error code {code}", hint=hint)
    chosen = ENTRIES if code is None else {code: ENTRIES[code]}
    if as_json:
        click.echo(json.dumps({name: each._asdict() for name, each in chosen.items()}, indent=2))
    elif code is None:
        width = max(map(len, ENTRIES))
        for name, each in ENTRIES.items():
            click.echo(f"{name:<{width}}  {each.cause}")
    else:
        click.echo(f"{code}\n\ncause:  {ENTRIES[code].cause}\nremedy: {ENTRIES[code].remedy}")

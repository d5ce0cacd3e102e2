"""``occlum config``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from occlum.errors import Error


@click.group()
def command() -> None:
    """Read, change, check and size the configuration of this instance."""


@command.command()
@click.argument("key", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON even for a single string.")
def get(key: str, as_json: bool) -> None:
    """Print the value of KEY, such as resource_limits.user_space_size; without KEY, of all.

    Where the file says nothing, the default is printed.
    """
    from occlum import instance
    from occlum.config import edit, effective

    path = instance.find(Path.cwd()).config
    parsed = edit.parse_key(key)
    try:
        value = edit.get(effective(path), parsed)
    except KeyError:
        raise Error(
            f"{path.name} has no value {key}",
            hint="occlum config get prints all",
            code="config-key",
        ) from None
    is_plain = isinstance(value, str) and not as_json
    click.echo(value if is_plain else json.dumps(value, indent=2))


@command.command(name="set")
@click.argument("key")
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Set KEY to VALUE: JSON, or a plain string. Comments and layout of the file stay.

    The file is checked before it is written; a value that would break it changes nothing.
    """
    from occlum import instance
    from occlum.config import edit, replace_checked

    path = instance.find(Path.cwd()).config
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    replace_checked(path, edit.set_value(path, edit.parse_key(key), parsed))
    click.echo(f"{key} is {json.dumps(parsed)}; occlum build makes it effective")


@command.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def check(file: Path | None, as_json: bool) -> None:
    """Check FILE, or the configuration of this instance."""
    from occlum import config, instance

    path = file or instance.find(Path.cwd()).config
    try:
        config.load(path)
    except config.ConfigError as problem:
        if not as_json:
            raise
        every = (problem, *problem.also)
        click.echo(json.dumps([{"problem": str(e), "hint": e.hint} for e in every], indent=2))
        sys.exit(problem.exit_status)
    click.echo("[]" if as_json else f"{path.name} is good")


@command.command()
def schema() -> None:
    """Print the JSON Schema of Occlum.json, for editors."""
    from occlum.config import schema_text

    click.echo(schema_text(), nl=False)


@command.command(context_settings={"ignore_unknown_options": True})
@click.option("--write", is_flag=True, help="Write the proposals into the configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the proposals as JSON.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def suggest(write: bool, as_json: bool, program: str, arguments: tuple[str, ...]) -> None:
    """Run PROGRAM once in the enclave and propose limits from what it used.

    The program's own output goes to standard error. Run it with the largest work it is to do: what
    it did not use in this run can't be known.
    """
    from dataclasses import asdict

    from occlum import config, instance
    from occlum.config import edit
    from occlum.config.suggest import measure, propose

    here = instance.find(Path.cwd())
    peaks, status = measure([program, *arguments])
    if status != 0:
        click.echo(f"note: {program} ended with status {status}", err=True)
    proposals = propose(peaks, config.load(here.config))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in proposals], indent=2))
    else:
        for each in proposals:
            click.echo(f"{each.key}: {each.proposed} (now {each.now}, used {each.used})")
    if write:
        text = here.config.read_text(encoding="utf-8")
        for each in proposals:
            value = int(each.proposed) if each.proposed.isdigit() else each.proposed
            text = edit.set_text(text, here.config.name, edit.parse_key(each.key), value)
        config.replace_checked(here.config, text)
        click.echo(f"{here.config.name} says so now; occlum build makes it effective")

"""``occlum run``, as far as help goes; `occlum.cli.run` does it."""

from __future__ import annotations

import click

from occlum.cli.run import USAGE
from occlum.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(program: str, arguments: tuple[str, ...]) -> None:
    """Run PROGRAM, an absolute path in the image, with ARGUMENTS to its end.

    The exit status is the program's; 128+N when signal N ended it, 127 when it is not there, 126
    when it can't be executed.
    """
    raise UsageError("occlum run comes first on the command line", hint=USAGE)

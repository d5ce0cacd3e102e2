"""``occlum exec``, as far as help goes; `occlum.cli.exec` does it."""

from __future__ import annotations

import click

from occlum.cli.exec import USAGE
from occlum.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--cwd", metavar="DIR", help="Where the program starts, inside; otherwise /.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(cwd: str | None, program: str, arguments: tuple[str, ...]) -> None:
    """Run PROGRAM, an absolute path in the image, in the started enclave.

    It has this command's standard input, output and error, and its signals. The exit status is the
    program's; 128+N when signal N ended it, 127 when it is not there or the enclave is not started,
    126 when it can't be executed.
    """
    raise UsageError("occlum exec comes first on the command line", hint=USAGE)

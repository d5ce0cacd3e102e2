"""The command line: the only part that prints or exits.

`main` is the ``occlum`` command. ``run`` goes a short way of its own (`occlum.cli.run`), because
its cost is paid with every program; the others are click commands in `occlum.cli.commands`, each of
which imports what it needs when it is called.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from occlum.errors import Error


def main() -> NoReturn:
    """Entry of the ``occlum`` command."""
    arguments = sys.argv[1:]
    try:
        status = _dispatch(arguments)
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        status = _explain(error)
    sys.exit(status)


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["run"] and arguments[1:2] != ["--help"]:
        from occlum.cli.run import run

        run(arguments[1:])
    from occlum.cli.commands import invoke

    return invoke(arguments)


def _explain(error: Exception) -> int:
    """Print the error as a person needs it; returns the exit status."""
    from occlum.errors import Error

    if not isinstance(error, Error):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
        print("error: this is a bug in occlum; the lines above say where", file=sys.stderr)
        return 70
    for problem in (error, *error.also):
        _print_error(problem)
    return error.exit_status


def _print_error(error: Error) -> None:
    print(f"error: {error}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)

"""The command line: the only part that prints or exits.

`main` is the ``occlum`` command. `occlum.cli.verbs` lists the verbs; each is a module of its own
that is imported when it is called, most as click commands (`occlum.cli.group`), some directly
because their cost is paid with every program.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from occlum.errors import Error


def main() -> NoReturn:
    """Entry of the ``occlum`` command."""
    sys.exit(guarded(lambda: _dispatch(sys.argv[1:])))


def guarded(work: Callable[[], int]) -> int:
    """The exit status of the work; its errors are printed as a person needs them."""
    try:
        return work()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; what is buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _explain(_as_ours(error))
    except Exception as error:
        return _explain(error)


def _dispatch(arguments: list[str]) -> int:
    from occlum.cli import verbs

    verb = arguments[0] if arguments else ""
    if verb in ("", "-h", "--help"):
        print(verbs.help_text())
        return 0 if verb else 2
    if verb == "--version":
        arguments = ["version"]
    if verb in verbs.DIRECT and arguments[1:2] not in (["--help"], ["-h"]):
        import importlib

        module, function = verbs.DIRECT[verb]
        status: int = getattr(importlib.import_module(module), function)(arguments[1:])
        return status
    from occlum.cli.group import invoke

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


def _as_ours(problem: OSError) -> Exception:
    """What the system refused, without a traceback unless somebody is looking for one."""
    from occlum.errors import Error

    if os.environ.get("OCCLUM_LOG_LEVEL") in ("debug", "trace"):
        return problem
    where = f"{problem.filename}: " if problem.filename else ""
    return Error(f"{where}{problem.strerror or problem}", code="system")


def _print_error(error: Error) -> None:
    from occlum.cli.colour import styled

    print(f"{styled('error', 'red', sys.stderr)}: {error}", file=sys.stderr)
    more = "" if error.code in ("general", "usage") else f"occlum explain {error.code}"
    hint = f"{error.hint} ({more})" if error.hint and more else error.hint or more
    if hint:
        print(f"{styled('hint', 'yellow', sys.stderr)}: {hint}", file=sys.stderr)

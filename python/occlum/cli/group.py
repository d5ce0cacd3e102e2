"""The click group over `occlum.cli.verbs`: loads the one verb that is called."""

from __future__ import annotations

import difflib
import importlib

import click

from occlum.cli import verbs
from occlum.errors import UsageError

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class LazyGroup(click.Group):
    """A group whose commands are modules."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(verbs.summaries())

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in verbs.summaries():
            return None
        command: click.Command = importlib.import_module(verbs.module_name(name)).command
        command.name = name
        return command


cli = LazyGroup(
    "occlum",
    context_settings=SETTINGS,
    help="Run unmodified Linux programs inside an Intel SGX enclave.",
)


def unknown(verb: str) -> UsageError:
    """There is no such verb."""
    kind = "option" if verb.startswith("-") else "command"
    near = difflib.get_close_matches(verb, verbs.summaries(), n=1)
    hint = f"did you mean {near[0]}? occlum --help lists all" if near else "occlum --help"
    return UsageError(f"occlum has no {kind} {verb}", hint=hint)


def invoke(arguments: list[str]) -> int:
    """Run a verb; returns the exit status. Errors of ours pass through."""
    return invoke_command(cli, arguments, "occlum")


def invoke_command(group: click.Command, arguments: list[str], name: str) -> int:
    """Run a command under its name; returns the exit status."""
    try:
        status = group.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else name
        if command == "occlum" and arguments[0] not in verbs.summaries():
            raise unknown(arguments[0]) from None
        raise UsageError(error.format_message().rstrip("."), hint=f"{command} --help") from None
    except click.exceptions.Abort:
        return 130
    return status if isinstance(status, int) else 0

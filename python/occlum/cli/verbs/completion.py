"""``occlum completion``."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script that completes occlum's commands and options in SHELL.

    For bash: occlum completion bash > ~/.local/share/bash-completion/completions/occlum. For zsh, a
    file _occlum in a directory of $fpath. For fish: ~/.config/fish/completions/occlum.fish.
    """
    from occlum.cli.reference import completion

    click.echo(completion(shell), nl=False)

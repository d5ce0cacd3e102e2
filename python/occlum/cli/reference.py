"""The commands as data, and what is made of it: manual pages, completion, the reference page.

Nothing here is written by hand twice: text comes from the click commands themselves.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

import occlum
from occlum.cli import verbs
from occlum.cli.group import cli


@dataclass(frozen=True)
class Entry:
    """One command. ``options`` are (names with metavar, help)."""

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    epilog: str


def entries() -> Iterator[Entry]:
    """Every command: `copy_bom` last, the subcommands of a verb after it."""
    root = click.Context(cli, info_name="occlum")
    for verb in verbs.summaries():
        command = cli.get_command(root, verb)
        assert command is not None, "the table of verbs and the modules agree"
        yield from _entries(command, click.Context(command, info_name=verb, parent=root))
    bill = importlib.import_module("occlum.cli.bill").command
    yield from _entries(bill, click.Context(bill, info_name="copy_bom"))


def _entries(command: click.Command, context: click.Context) -> Iterator[Entry]:
    yield Entry(
        context.command_path,
        " ".join(command.collect_usage_pieces(context)),
        tuple(_paragraphs(command.help or "")),
        tuple(_options(command, context)),
        command.epilog or "",
    )
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _entries(inner, click.Context(inner, info_name=name, parent=context))


def _paragraphs(text: str) -> Iterator[str]:
    for part in re.split(r"\n\s*\n", text.replace("\b", "").strip()):
        yield " ".join(part.split())


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield record


def manual_pages() -> dict[str, str]:
    """File name -> roff, for ``man``."""
    pages = {"occlum.1": _main_page()}
    for entry in entries():
        name = entry.name.replace(" ", "-")
        pages[f"{name}.1"] = _page(name, entry)
    return pages


def _main_page() -> str:
    lines = _heading("occlum", "run unmodified Linux programs inside an Intel SGX enclave")
    lines += [".SH SYNOPSIS", ".B occlum", "COMMAND [ARGS]...", ".SH COMMANDS"]
    for section, members in verbs.SECTIONS.items():
        lines.append(f".SS {_roff(section)}")
        for verb, summary in members.items():
            lines += [".TP", f".BR occlum\\-{_roff(verb)} (1)", _roff(summary)]
    lines += [".SH SEE ALSO", ".BR copy_bom (1)"]
    return "\n".join(lines) + "\n"


def _page(name: str, entry: Entry) -> str:
    lines = _heading(name, entry.paragraphs[0].rstrip(".") if entry.paragraphs else name)
    lines += [".SH SYNOPSIS", f".B {_roff(entry.name)}", _roff(entry.usage), ".SH DESCRIPTION"]
    for paragraph in entry.paragraphs:
        lines += [".PP", _roff(paragraph)]
    lines.append(".SH OPTIONS")
    for option, text in entry.options:
        lines += [".TP", f".B {_roff(option)}", _roff(text)]
    if entry.epilog:
        lines += [".SH NOTES", _roff(entry.epilog)]
    lines += [".SH SEE ALSO", ".BR occlum (1)"]
    return "\n".join(lines) + "\n"


def _heading(name: str, what: str) -> list[str]:
    title = f'.TH "{name.upper()}" 1 "" "Occlum {occlum.__version__}"'
    return [title, ".SH NAME", f"{_roff(name)} \\- {_roff(what)}"]


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def markdown() -> str:
    """The reference page of the documentation."""
    lines = ["# Commands", "", "Generated from the commands' own help by `tools/reference.py`.", ""]
    for entry in entries():
        lines += [f"## {entry.name}", "", f"`{entry.name} {entry.usage}`".replace(" `", "`"), ""]
        for paragraph in entry.paragraphs:
            lines += [_wrapped(paragraph), ""]
        shown = [option for option in entry.options if option[0] != "-h, --help"]
        if shown:
            lines += ["| option | |", "|---|---|"]
            lines += [f"| `{option}` | {text} |" for option, text in shown]
            lines.append("")
        if entry.epilog:
            lines += [_wrapped(entry.epilog), ""]
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    return text.replace("<", "&lt;")


def completion(shell: str) -> str:
    """A script that completes commands and options in a shell."""
    options = {entry.name: _names(entry) for entry in entries()}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](options)


def _names(entry: Entry) -> list[str]:
    return [name for option, _ in entry.options for name in re.findall(r"--?[\w-]+", option)
            if option.lstrip().startswith("-")]  # fmt: skip


def _subcommands(options: dict[str, list[str]], verb: str) -> list[str]:
    prefix = f"occlum {verb} "
    return [name.removeprefix(prefix) for name in options if name.startswith(prefix)]


def _bash(options: dict[str, list[str]]) -> str:
    cases = []
    for verb in verbs.summaries():
        words = options[f"occlum {verb}"] + _subcommands(options, verb)
        cases.append(f"        {verb}) words={_quoted(words)} ;;")
    return f"""# bash completion for occlum and copy_bom
_occlum() {{
    local words current=${{COMP_WORDS[COMP_CWORD]}}
    if [ "$COMP_CWORD" = 1 ]; then
        words={_quoted([*verbs.summaries(), "--help", "--version"])}
    else
        case ${{COMP_WORDS[1]}} in
{chr(10).join(cases)}
        *) words= ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
_copy_bom() {{
    COMPREPLY=($(compgen -W {_quoted(options["copy_bom"])} -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _occlum occlum
complete -o default -F _copy_bom copy_bom
"""


def _quoted(words: list[str]) -> str:
    return f'"{" ".join(words)}"'


def _zsh(options: dict[str, list[str]]) -> str:
    cases = []
    for verb in verbs.summaries():
        words = options[f"occlum {verb}"] + _subcommands(options, verb)
        cases.append(f"        {verb}) occlum_words=({' '.join(words)}) ;;")
    named = "\n".join(
        f"        '{verb}:{_plain(text)}'" for verb, text in verbs.summaries().items()
    )
    return f"""#compdef occlum copy_bom
_occlum() {{
    local -a commands occlum_words
    if [[ $service == copy_bom ]]; then
        compadd -- {" ".join(options["copy_bom"])}
        _files
        return
    fi
    commands=(
{named}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    case $words[2] in
{chr(10).join(cases)}
        *) occlum_words=() ;;
    esac
    compadd -- $occlum_words
    _files
}}
_occlum "$@"
"""


def _fish(options: dict[str, list[str]]) -> str:
    lines = ["# fish completion for occlum and copy_bom"]
    for verb, text in verbs.summaries().items():
        lines.append(
            f"complete -c occlum -n __fish_use_subcommand -f -a {verb} -d '{_plain(text)}'"
        )
        seen = f"__fish_seen_subcommand_from {verb}"
        for name in options[f"occlum {verb}"]:
            lines.append(f"complete -c occlum -n '{seen}' {_fish_option(name)}")
        inner = _subcommands(options, verb)
        if inner:
            lines.append(f"complete -c occlum -n '{seen}' -f -a '{' '.join(inner)}'")
    lines += [f"complete -c copy_bom {_fish_option(name)}" for name in options["copy_bom"]]
    return "\n".join(lines) + "\n"


def _fish_option(name: str) -> str:
    return f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"


def _plain(text: str) -> str:
    return text.rstrip(".").replace("'", "").replace(":", ",")


def write_manual(directory: Path) -> int:
    """Write every page; returns how many."""
    directory.mkdir(parents=True, exist_ok=True)
    pages = manual_pages()
    for name, text in pages.items():
        (directory / name).write_text(text, encoding="ascii")
    return len(pages)

"""The table of verbs says what the commands themselves say."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import pytest

from occlum.cli import verbs


@pytest.mark.parametrize("verb", verbs.summaries())
def test_the_summary_is_the_first_line_of_the_command(verb: str):
    command = importlib.import_module(verbs.module_name(verb)).command
    assert isinstance(command, click.Command)
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == verbs.summaries()[verb]


def test_every_module_is_a_verb():
    directory = Path(verbs.__file__).parent
    modules = {f"{verbs.__name__}.{path.stem}" for path in directory.glob("[!_]*.py")}
    assert modules == {verbs.module_name(verb) for verb in verbs.summaries()}


@pytest.mark.parametrize("verb", verbs.DIRECT)
def test_a_direct_verb_has_its_function(verb: str):
    module, function = verbs.DIRECT[verb]
    assert callable(getattr(importlib.import_module(module), function))

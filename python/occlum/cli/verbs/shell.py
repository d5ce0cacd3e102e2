"""``occlum shell``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from occlum import instance
from occlum.cli.exec import execute
from occlum.errors import Error

SHELLS = ("bin/bash", "usr/bin/bash", "bin/sh", "usr/bin/sh")


@click.command()
@click.argument("program", required=False)
def command(program: str | None) -> int:
    """Run a shell in the started enclave: bash or sh, or PROGRAM."""
    here = instance.find(Path.cwd())
    if program is None:
        there = [f"/{name}" for name in SHELLS if os.path.lexists(here.image / name)]
        if not there:
            raise Error(
                "the image has no shell",
                hint="occlum add /bin/bash, then occlum build",
                code="no-shell",
            )
        program = there[0]
    return execute(here, [program])

"""``occlum logs``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from occlum import instance
from occlum.errors import Error


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="Only the last N.")
def command(follow: bool, lines: int | None) -> None:
    """Show what the started enclave has printed, this time and before."""
    path = instance.find(Path.cwd()).log
    if not path.exists():
        raise Error(f"{path} is not there", hint="occlum start makes it", code="no-log")
    with open(path, "rb") as log:
        data = log.read()
        if lines is not None:
            data = b"".join(data.splitlines(keepends=True)[len(data.splitlines()) - lines :])
        out = sys.stdout.buffer
        out.write(data)
        out.flush()
        while follow:
            time.sleep(0.1)
            out.write(log.read())
            out.flush()

"""``occlum gdb``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from occlum import instance, toolchain
from occlum.errors import Error


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-b", "--batch", is_flag=True, help="Run the commands of -x or -ex, then end.")
@click.option("-ex", "commands", multiple=True, metavar="COMMAND", help="Run a command of GDB.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    batch: bool,
    commands: tuple[str, ...],
    program: str,
    arguments: tuple[str, ...],
) -> None:
    """Run PROGRAM in an enclave of the simulated CPU under GDB.

    Symbols of the kernel, the program and its libraries are there; a backtrace in the kernel goes
    on into the program; occlum-bt shows its frames whole; info occlum-threads lists the
    threads inside. The enclave must be debuggable.
    """
    here = instance.find(Path.cwd())
    if not here.build.is_complete():
        raise Error(f"{here.root} is not built", hint="occlum build", exit_status=127)
    gdb = shutil.which("gdb")
    if gdb is None:
        raise Error("gdb is not installed", hint="apt-get install gdb")
    host = toolchain.host()
    line = [gdb, "-q", "-nx", "-iex", "set auto-load off"]
    line += ["-batch"] if batch else []
    line += ["-ex", f"source {Path(__file__).parents[2] / 'gdb_extension.py'}"]
    for each in commands:
        line += ["-ex", each]
    run = ["run", "--build-dir", str(here.build.root), "--debug", "--", program]
    line += ["--args", str(host), *run, *arguments]
    os.environ["OCCLUM_GDB_IMAGE"] = str(here.image)
    os.environ["OCCLUM_GDB_KERNEL"] = str(toolchain.kernel())
    here.hold_lock()
    os.chdir(here.root)
    sys.stdout.flush()
    os.execv(gdb, line)

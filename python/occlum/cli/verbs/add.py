"""``occlum add``."""

from __future__ import annotations

from pathlib import Path

import click

from occlum.errors import UsageError


@click.command()
@click.argument("programs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--python-package",
    "packages",
    multiple=True,
    metavar="NAME",
    help="Also a package of the Python that is named, with what it requires.",
)
def command(programs: tuple[Path, ...], packages: tuple[str, ...]) -> None:
    """Copy PROGRAMS from this machine into the image, with all they need.

    That is: the ELF interpreter, shared libraries, the interpreter of a script, and for Python,
    Perl and Node their standard library. A directory is copied as it is, with the libraries its
    files need. A name without a slash is looked up in PATH.
    """
    from occlum import instance
    from occlum.image import programs as image_programs

    if not programs:
        raise UsageError("occlum add: no program is named", hint="occlum add /usr/bin/python3")
    here = instance.find(Path.cwd())
    added = image_programs.add(here.image, programs, python_packages=packages)
    click.echo(
        f"{added.copied} files copied, {added.unchanged} were there already; in the image: "
        + " ".join(str(path) for path in added.programs)
    )

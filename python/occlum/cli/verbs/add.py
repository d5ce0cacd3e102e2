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
    help="Also an installed package of the Python that is named, with what it requires.",
)
@click.option(
    "--python",
    "requirements",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also what pip installs for this requirements file; with the system's Python, unless "
    "another is among PROGRAMS.",
)
@click.option(
    "--deb",
    "debian",
    multiple=True,
    metavar="NAME",
    help="Also a Debian package with all it depends on; downloaded if it is not installed.",
)
def command(
    programs: tuple[Path, ...],
    packages: tuple[str, ...],
    requirements: tuple[Path, ...],
    debian: tuple[str, ...],
) -> None:
    """Copy PROGRAMS from this machine into the image, with all they need.

    That is: the ELF interpreter, shared libraries, the interpreter of a script, and for Python,
    Perl and Node their standard library. A directory is copied as it is, with the libraries its
    files need. A name without a slash is looked up in PATH.
    """
    from occlum import instance
    from occlum.cli.progress import Terminal
    from occlum.image import programs as image_programs

    wanted = image_programs.Wanted(programs, packages, requirements, debian)
    if wanted == image_programs.Wanted():
        raise UsageError("occlum add: nothing is named", hint="occlum add /usr/bin/python3")
    here = instance.find(Path.cwd())
    with Terminal() as progress:
        added = image_programs.add(here.image, wanted, progress)
    for problem in added.problems:
        click.echo(f"note: {problem}", err=True)
    click.echo(
        f"{added.copied} files copied, {added.unchanged} were there already; in the image: "
        + " ".join(str(path) for path in added.programs)
    )

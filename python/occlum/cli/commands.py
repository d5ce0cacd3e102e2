"""The click commands. Each one finds its instance, calls one function and prints what came out."""

from __future__ import annotations

from pathlib import Path

import click

import occlum
from occlum.cli.run import USAGE
from occlum.errors import UsageError

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def invoke(arguments: list[str]) -> int:
    """Run the command; returns the exit status. Errors of ours pass through."""
    try:
        status = cli.main(args=arguments, prog_name="occlum", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "occlum"
        raise UsageError(error.format_message().rstrip("."), hint=f"{command} --help") from None
    except click.exceptions.Abort:
        return 130
    return status if isinstance(status, int) else 0


@click.group(context_settings=SETTINGS)
def cli() -> None:
    """Run unmodified Linux programs inside an Intel SGX enclave."""


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
def new(directory: Path) -> None:
    """Make a new instance in DIRECTORY, which must not exist yet."""
    from occlum.image import skeleton

    skeleton.create(directory, new=True)
    click.echo(
        f"{directory} is ready: put programs into {directory}/image (occlum add), then occlum build"
    )


@cli.command()
def init() -> None:
    """Make the current directory an instance."""
    from occlum.image import skeleton

    skeleton.create(Path.cwd(), new=False)
    click.echo("this directory is ready: put programs into image (occlum add), then occlum build")


@cli.command()
@click.argument("programs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--python-package",
    "packages",
    multiple=True,
    metavar="NAME",
    help="Also a package of the Python that is named, with what it requires.",
)
def add(programs: tuple[Path, ...], packages: tuple[str, ...]) -> None:
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


@cli.command()
@click.option(
    "--sgx-mode",
    envvar="SGX_MODE",
    default="SIM",
    show_default=True,
    type=click.Choice(["SIM", "HW"], case_sensitive=False),
    show_envvar=True,
    help="The CPU to build for: simulated, or SGX hardware.",
)
@click.option(
    "--sign-key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PEM",
    help="RSA-3072 key with exponent 3; otherwise a generated debug key.",
)
@click.option("-f", "--force", is_flag=True, help="Build everything again.")
def build(sgx_mode: str, sign_key: Path | None, force: bool) -> None:
    """Build the enclave of this instance: file-system image, measurement, signature."""
    from occlum import instance
    from occlum.cli.progress import Terminal
    from occlum.config import CpuMode
    from occlum.image.build import Request, build

    here = instance.find(Path.cwd())
    request = Request(mode=CpuMode(sgx_mode.upper()), sign_key=sign_key, from_scratch=force)
    with Terminal() as progress:
        outcome = build(here, request, progress)
    for line in outcome.notes:
        click.echo(f"note: {line}", err=True)
    click.echo("nothing changed" if outcome.is_unchanged else "built")
    click.echo(f"mrenclave {outcome.mrenclave.hex()}")


@cli.command(add_help_option=True, context_settings={"ignore_unknown_options": True})
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(program: str, arguments: tuple[str, ...]) -> None:
    """Run PROGRAM, an absolute path in the image, with ARGUMENTS to its end.

    The exit status is the program's; 128+N when signal N ended it, 127 when it is not there, 126
    when it can't be executed.
    """
    raise UsageError("occlum run comes first on the command line", hint=USAGE)


@cli.command(name="print")
@click.argument("what", type=click.Choice(["mrenclave", "mrsigner"]))
def print_(what: str) -> None:
    """Print the measurement of the enclave, or of its signer's key."""
    from occlum import instance
    from occlum.image.build import read_identity

    identity = read_identity(instance.find(Path.cwd()).build)
    click.echo((identity.mrenclave if what == "mrenclave" else identity.mrsigner).hex())


@cli.command()
def status() -> None:
    """Print the state of this instance: initialized, built or running."""
    from occlum import instance

    click.echo(instance.find(Path.cwd()).state())


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"occlum {occlum.__version__}")

"""``occlum build``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
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
@click.option(
    "--enable-edmm",
    envvar="ENABLE_EDMM",
    default="Y",
    show_default=True,
    type=click.Choice(["Y", "N"], case_sensitive=False),
    show_envvar=True,
    help="N: for CPUs that can't change page permissions (SGX1); fork copies all memory at once.",
)
@click.option(
    "--sign-tool",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PROGRAM",
    help="Signs standard input to standard output; --sign-key is its public key then.",
)
@click.option("-f", "--force", is_flag=True, help="Build everything again.")
def command(
    sgx_mode: str, sign_key: Path | None, sign_tool: Path | None, enable_edmm: str, force: bool
) -> None:
    """Build the enclave of this instance: file-system image, measurement, signature."""
    from occlum import instance
    from occlum.cli.progress import Terminal
    from occlum.config import CpuMode, ForkCopies
    from occlum.image.build import Request, build

    here = instance.find(Path.cwd())
    request = Request(
        mode=CpuMode(sgx_mode.upper()),
        sign_key=sign_key,
        sign_tool=sign_tool,
        from_scratch=force,
        fork_copies=ForkCopies.ON_WRITE if enable_edmm.upper() == "Y" else ForkCopies.AT_ONCE,
    )
    with Terminal() as progress:
        outcome = build(here, request, progress)
    for line in outcome.notes:
        click.echo(f"note: {line}", err=True)
    click.echo("nothing changed" if outcome.is_unchanged else "built")
    click.echo(f"mrenclave {outcome.mrenclave.hex()}")

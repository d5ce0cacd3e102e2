"""``occlum profile``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from occlum import instance
from occlum.errors import Error

SHOWN = 25


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Write a flame graph; otherwise print the functions that took most time.",
)
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(output: Path | None, program: str, arguments: tuple[str, ...]) -> int:
    """Run PROGRAM as occlum run does and tell where time goes in the enclave.

    By program, and by function of it, of its libraries and of the kernel; a thousand samples a
    second. Time outside the enclave, waiting included, is not seen. The enclave must be
    debuggable. The exit status is the program's.
    """
    from occlum import profiling, toolchain, tracing
    from occlum.cli.run import log_level

    here = instance.find(Path.cwd())
    if not here.build.is_complete():
        raise Error(f"{here.root} is not built", hint="occlum build", exit_status=127)
    with tempfile.NamedTemporaryFile("w+", prefix="occlum-profile-") as samples:
        options = ["--profile-fd", str(samples.fileno())]
        status = tracing.run_host(
            here, [program, *arguments], options, samples.fileno(), log_level=log_level()
        )
        samples.seek(0)
        profile = profiling.read(samples, here.image, toolchain.kernel())
    if output is not None:
        output.write_text(profiling.flame_graph(profile, " ".join([program, *arguments])))
        return status
    print(f"{profile.total} samples of the time in the enclave", file=sys.stderr)
    for count, (owner, place, function) in profile.functions()[:SHOWN]:
        share = 100 * count / profile.total
        print(f"{share:6.2f}%  {owner:15} {place:20} {function}", file=sys.stderr)
    return status

"""``occlum trace``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from occlum import instance
from occlum.errors import Error


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "-c", "--count", "summary", is_flag=True, help="Print time, calls and errors by call."
)
@click.option("-e", "--calls", metavar="CALL,...", help="Only these calls.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE; otherwise to standard error.",
)
@click.option("-T", "--duration", is_flag=True, help="With the time that each call took.")
@click.option("-r", "--relative", is_flag=True, help="With seconds since the first call.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    summary: bool,
    calls: str | None,
    output: Path | None,
    duration: bool,
    relative: bool,
    program: str,
    arguments: tuple[str, ...],
) -> int:
    """Run PROGRAM as occlum run does and print its system calls.

    A call is printed when it has returned. Lines of threads other than the first begin with their
    id. The enclave must be debuggable. The exit status is the program's.
    """
    from occlum import tracing
    from occlum.cli.run import log_level

    here = instance.find(Path.cwd())
    if not here.build.is_complete():
        raise Error(f"{here.root} is not built", hint="occlum build", exit_status=127)
    totals = tracing.Summary()
    first: list[tracing.Line] = []
    out = sys.stderr if output is None else open(output, "w", encoding="utf-8")  # noqa: SIM115

    def listen(line: tracing.Line) -> None:
        totals.add(line)
        if not first:
            first.append(line)
        if summary:
            return
        since = f"{(line.start_ns - first[0].start_ns) / 1e9:10.6f} " if relative else ""
        who = "" if line.tid == first[0].tid else f"[{line.tid}] "
        took = f" <{line.duration_ns / 1e9:.6f}>" if duration and line.call else ""
        print(f"{since}{who}{line.text}{took}", file=out)

    wanted = [name for name in (calls or "").split(",") if name]
    try:
        status = tracing.run(
            here, [program, *arguments], listen, calls=wanted, log_level=log_level()
        )
        if summary:
            print(*totals.table(), sep="\n", file=out)
    finally:
        if out is not sys.stderr:
            out.close()
    return status

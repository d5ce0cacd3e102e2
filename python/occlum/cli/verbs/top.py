"""``occlum top``."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from occlum import client, instance
from occlum.cli.verbs.ps import size


@dataclass(frozen=True)
class Sample:
    """What the enclave reported at one moment, in seconds of the monotonic clock."""

    at: float
    metrics: dict[str, int]
    processes: list[client.ProcessInfo]


@click.command()
@click.option(
    "-d",
    "--delay",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    help="Seconds.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="End after N times.")
@click.option("--json", "as_json", is_flag=True, help="Print one object in each line.")
def command(delay: float, count: int | None, as_json: bool) -> None:
    """Show live what the started enclave does: processes, CPU, memory, exits."""
    here = instance.find(Path.cwd())
    is_live = sys.stdout.isatty() and not as_json
    last = _take(here)
    done = 0
    while count is None or done < count:
        time.sleep(delay)
        now = _take(here)
        if as_json:
            click.echo(json.dumps(_object(last, now)))
        else:
            lines = _page(last, now)
            if is_live:
                lines = lines[: shutil.get_terminal_size().lines - 1]
                click.echo("\033[H\033[J", nl=False)
            click.echo("\n".join(lines))
        last = now
        done += 1


def _take(here: instance.Instance) -> Sample:
    return Sample(time.monotonic(), client.metrics(here), client.processes(here))


def _rate(last: Sample, now: Sample, name: str) -> float:
    return (now.metrics[name] - last.metrics[name]) / (now.at - last.at)


def _load(last: Sample, now: Sample) -> dict[int, float]:
    """Percent of a processor by process id."""
    before = {each.pid: each.cpu_ns for each in last.processes}
    return {
        each.pid: (each.cpu_ns - before.get(each.pid, 0)) / 1e7 / (now.at - last.at)
        for each in now.processes
    }


def _object(last: Sample, now: Sample) -> dict[str, object]:
    load = _load(last, now)
    rows = [
        {**vars(each), "command": list(each.command), "cpu_percent": round(load[each.pid], 1)}
        for each in now.processes
    ]
    rates = {f"{name}_per_second": round(_rate(last, now, name), 1) for name in ("ocalls", "aexs")}
    return {"metrics": now.metrics, **rates, "processes": rows}


def _page(last: Sample, now: Sample) -> list[str]:
    m = now.metrics
    load = _load(last, now)
    lines = [
        f"up {m['uptime_ns'] / 1e9:.0f} s, {m['processes']} processes, {m['threads']} of "
        f"{m['threads_max']} threads, {sum(load.values()):.0f}% CPU",
        f"memory {size(m['user_memory_bytes'])} of {size(m['user_memory_limit_bytes'])}, "
        f"page cache {size(m['page_cache_bytes'])}, kernel heap {size(m['kernel_heap_bytes'])} of "
        f"{size(m['kernel_heap_limit_bytes'])}",
        f"{_rate(last, now, 'ocalls'):.0f} ocalls/s, {_rate(last, now, 'aexs'):.0f} AEXs/s",
        "",
        f"{'PID':>7} STATE {'THR':>4} {'RSS':>8} {'CPU%':>6} {'TIME':>9} COMMAND",
    ]
    for each in sorted(now.processes, key=lambda each: -load[each.pid]):
        lines.append(
            f"{each.pid:7} {each.state:5} {each.threads:4} {size(each.resident_bytes):>8} "
            f"{load[each.pid]:6.1f} {each.cpu_ns / 1e9:9.2f} {' '.join(each.command)}"
        )
    return lines

"""``occlum ps``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from occlum import client, instance


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def command(as_json: bool) -> None:
    """List the processes in the started enclave."""
    found = client.processes(instance.find(Path.cwd()))
    if as_json:
        rows = [{**vars(process), "command": list(process.command)} for process in found]
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(f"{'PID':>7} {'PPID':>7} STATE {'THR':>4} {'RSS':>8} {'TIME':>9} COMMAND")
    for each in found:
        seconds = each.cpu_ns / 1e9
        click.echo(
            f"{each.pid:7} {each.ppid:7} {each.state:5} {each.threads:4} "
            f"{size(each.resident_bytes):>8} {seconds:9.2f} {' '.join(each.command)}"
        )


def size(value: int) -> str:
    """Bytes as a person reads them."""
    amount = float(value)
    for unit in ("B", "K", "M", "G"):
        if amount < 1024:
            return f"{amount:.0f}{unit}" if unit == "B" or amount >= 100 else f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.1f}T"

"""Ctrl-C while a command works: status 130, nothing half done, no traceback."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import OCCLUM, Instance

PATIENCE_S = 60


def interrupted(instance: Instance, sign: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command and interrupt it when ``sign`` shows that it is at work."""
    process = subprocess.Popen(
        [OCCLUM, *arguments], cwd=instance.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    end = time.monotonic() + PATIENCE_S
    while not list(sign.parent.glob(sign.name)) and process.poll() is None:
        assert time.monotonic() < end, f"{sign} never appears"
    process.send_signal(signal.SIGINT)
    return process


@pytest.mark.parametrize(
    ("sign", "arguments"),
    [
        ("build.next", ["build", "--force"]),
        ("image/usr/lib/python3.11/a*.py", ["add", "/usr/bin/python3"]),
    ],
)
def test_an_interrupted_command_leaves_nothing_half_done(instance: Instance, sign, arguments):
    if arguments[0] == "add" and not Path("/usr/lib/python3.11").is_dir():
        pytest.skip("there is no Python 3.11 of Debian's")
    process = interrupted(instance, instance.root / sign, *arguments)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert b"Traceback" not in errors
    assert process.returncode in (130, 0), "0 if it was faster than the signal"
    assert not (instance.root / "build.next").exists()
    assert not list(instance.image.rglob(".*.occlum-add"))
    done = instance.occlum(*arguments, timeout=300)
    assert done.returncode == 0, done.stderr.decode()

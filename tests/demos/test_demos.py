"""Each demo runs to its end. Quick ones here; `make demos` runs all, which takes minutes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from conftest import OCCLUM

DEMOS = Path(__file__).resolve().parents[2] / "demos"
QUICK = ("bash", "c", "sqlite")
SKIPPED = 77
TIMEOUT_S = 290

EVERY = sorted(
    path.name for path in DEMOS.iterdir()
    if os.access(path, os.X_OK) and path.is_file() and path.name not in ("all", "run")
)  # fmt: skip


@pytest.mark.enclave
@pytest.mark.parametrize("name", EVERY)
def test_a_demo_runs(name: str):
    if name not in QUICK and os.environ.get("OCCLUM_DEMOS") != "all":
        pytest.skip("make demos runs it")
    done = subprocess.run(
        [DEMOS / name],
        env={**os.environ, "PATH": f"{OCCLUM.parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode == SKIPPED:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_list_of_all_demos_is_complete():
    text = (DEMOS / "all").read_text()
    listed = text.split("set --", 1)[1].split("\nfailed", 1)[0].replace("\\", " ").split()
    assert sorted(listed) == EVERY

"""Random system calls with random arguments, many processes at once: the enclave goes on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from conftest import OCCLUM, TIMEOUT_S

RUN = Path(__file__).parents[2] / "fuzz/syscalls/run"
SECONDS = 8


@pytest.mark.enclave
@pytest.mark.parametrize("seed", [1])
def test_the_enclave_survives_random_system_calls(seed: int) -> None:
    done = subprocess.run(
        [RUN, str(SECONDS), str(seed)],
        env={**os.environ, "OCCLUM_BIN": str(OCCLUM.parent)},
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout.endswith(b"the system lives\n"), done.stdout + done.stderr
    assert done.returncode == 0, done.stderr

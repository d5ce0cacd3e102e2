"""A program's registers are its own, whenever the kernel takes the processor from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance

HERE = Path(__file__).parent
PROGRAM = "/usr/local/bin/registers"
DURATION_MS = "3000"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registers") / "registers"
    command = ["gcc", "-O1", "-Wall", "-pthread", "-o", path, HERE / "registers.c"]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def instance(make_instance: MakeInstance, program: Path) -> Instance:
    return make_instance("registers-instance", program)


def test_linux_keeps_them(program: Path) -> None:
    subprocess.run([program, "300"], check=True)


@pytest.mark.enclave
def test_preemption_never_mixes_them(instance: Instance) -> None:
    done = instance.run(PROGRAM, DURATION_MS)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.endswith(b": not mixed\n")

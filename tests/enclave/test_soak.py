"""Starting programs over and over takes nothing that is not given back."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance
from occlum import toolchain

HERE = Path(__file__).parent
VARIANTS = {"static-pie": ["-static-pie"], "dynamic": [], "fixed": ["-no-pie"]}
ROUNDS = 400


@pytest.fixture(scope="module")
def instance(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    directory = tmp_path_factory.mktemp("soak")
    for name, flags in VARIANTS.items():
        command = ["gcc", "-O1", "-Wall", *flags, "-o", directory / f"soak-{name}", HERE / "soak.c"]
        subprocess.run(command, check=True)
    return make_instance("soak-instance", *(directory / f"soak-{name}" for name in VARIANTS))


@dataclass(frozen=True)
class Taken:
    """What the instance has taken from the host so far."""

    kernel_heap_kib: int
    mappings: int
    resident_kib: int


class Soak:
    """The program that starts the others, told to go on line by line."""

    def __init__(self, instance: Instance) -> None:
        programs = [f"/usr/local/bin/soak-{name}" for name in VARIANTS]
        command = [toolchain.host(), "run", "--build-dir", "build", "--", programs[0], str(ROUNDS)]
        self.process = subprocess.Popen(
            [*command, *programs],
            cwd=instance.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go_on(self) -> Taken:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("on\n")
        self.process.stdin.flush()
        heap = int(self.process.stdout.readline())
        host = Path(f"/proc/{self.process.pid}")
        pages = int((host / "statm").read_text().split()[1])
        return Taken(heap, (host / "maps").read_text().count("\n"), 4 * pages)


@pytest.mark.enclave
def test_memory_stays_flat_while_programs_come_and_go(instance: Instance) -> None:
    soak = Soak(instance)
    try:
        first = soak.go_on()
        last = [soak.go_on() for _ in range(3)][-1]
    finally:
        assert soak.process.stdin is not None
        soak.process.stdin.close()
        status = soak.process.wait(timeout=30)
    assert status == 0
    assert first.kernel_heap_kib > 0
    # One growth step of the heap: pieces of it may be left over at any time.
    assert last.kernel_heap_kib - first.kernel_heap_kib <= 2048
    assert last.mappings - first.mappings <= 40
    assert last.resident_kib - first.resident_kib <= 4096

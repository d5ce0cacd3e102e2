"""The style page holds, and the kernel ELF is one that an enclave can hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from occlum import toolchain
from occlum.elf.file import PT_LOAD, ElfFile

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_sources_are_tidy():
    run(sys.executable, ROOT / "tools" / "tidy.py")


def test_python_is_formatted_and_typed():
    run(Path(sys.executable).with_name("ruff"), "check", "python", "tests", "tools")
    run(Path(sys.executable).with_name("mypy"))


@pytest.fixture(scope="module")
def kernel() -> Path:
    return toolchain.kernel()


@pytest.mark.parametrize("forbidden", ["cpuid", "syscall", "sysenter", "int"])
def test_the_kernel_has_no_instruction_that_faults_in_an_enclave(kernel, forbidden):
    listing = run("objdump", "-d", "--no-show-raw-insn", kernel)
    mnemonics = (line.split("\t")[1].split()[0] for line in listing.splitlines() if "\t" in line)
    assert forbidden not in mnemonics


def test_the_kernel_needs_nothing_from_outside(kernel):
    dynamic = run("readelf", "-dW", kernel)
    relocations = run("readelf", "-rW", kernel)
    assert "NEEDED" not in dynamic
    kinds = {line.split()[2] for line in relocations.splitlines() if "R_X86_64" in line}
    assert kinds <= {"R_X86_64_RELATIVE"}


def test_no_measured_page_names_a_directory_of_the_builder(kernel):
    with ElfFile(kernel) as elf:
        loaded = b"".join(
            elf.read(segment.offset, segment.file_size)
            for segment in elf.segments
            if segment.kind == PT_LOAD
        )
    for directory in (Path.home() / ".cargo", ROOT):
        assert str(directory).encode() not in loaded

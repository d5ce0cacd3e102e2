"""What was built and signed is what runs: any other byte in `build/` is refused with a sentence."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance

PROGRAM = "/usr/local/bin/greeting"
GREETING = b"hello\n"
REFUSED = 125

SOURCE = """
#include <unistd.h>
int main(void) { return write(1, "%s\\n", 6) != 6; }
"""

# In occlum.sigstruct (SDM 3D, table "Layout of Enclave Signature Structure").
DATE, MODULUS, SIGNATURE, MRENCLAVE, ATTRIBUTES = 20, 128, 516, 960, 928


def compile_greeting(directory: Path, word: str) -> Path:
    (directory / "greeting.c").write_text(SOURCE % word)
    program = directory / "greeting"
    subprocess.run(["gcc", "-static", "-o", program, directory / "greeting.c"], check=True)
    return program


@pytest.fixture(scope="session")
def built(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    program = compile_greeting(tmp_path_factory.mktemp("greeting"), "hello")
    return make_instance("built", program)


@pytest.fixture(scope="session")
def other(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    """The same program with another word in it, and another configuration."""
    program = compile_greeting(tmp_path_factory.mktemp("greeting"), "howdy")

    def prepare(instance: Instance) -> None:
        config = instance.root / "Occlum.json"
        config.write_text(config.read_text().replace('"4GB"', '"2GB"'))

    return make_instance("other", program, prepare=prepare)


@pytest.fixture
def copy(built: Instance, tmp_path: Path) -> Instance:
    shutil.copytree(built.root, tmp_path / "instance", symlinks=True)
    return Instance(tmp_path / "instance")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def assert_refused(instance: Instance, *reasons: str) -> None:
    done = instance.run(PROGRAM)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (REFUSED, b""), said
    assert any(reason in said for reason in reasons), said
    assert "error: " in said.lower() or "[ERROR]" in said


@pytest.mark.enclave
def test_the_copy_itself_runs(copy: Instance) -> None:
    done = copy.run(PROGRAM)
    assert (done.returncode, done.stdout) == (0, GREETING), done.stderr


@pytest.mark.parametrize("part", [0.001, 0.1, 0.3, 0.5, 0.9, 1])
def test_a_changed_byte_of_the_enclave_is_refused(part: float, copy: Instance) -> None:
    stream = copy.root / "build" / "occlum.sgxs"
    size = stream.stat().st_size
    flip(stream, min(int(size * part), size - 1))
    assert_refused(copy, "MRENCLAVE", "occlum.sgxs", "EADD", "ECREATE", "EEXTEND", "TCS")


def test_an_enclave_that_is_cut_short_is_refused(copy: Instance) -> None:
    stream = copy.root / "build" / "occlum.sgxs"
    stream.write_bytes(stream.read_bytes()[: stream.stat().st_size // 2])
    assert_refused(copy, "MRENCLAVE", "occlum.sgxs")


@pytest.mark.parametrize("at", [DATE, MODULUS, SIGNATURE, MRENCLAVE, ATTRIBUTES])
def test_a_changed_byte_of_the_signature_is_refused(at: int, copy: Instance) -> None:
    flip(copy.root / "build" / "occlum.sigstruct", at)
    assert_refused(copy, "EINIT", "ECREATE", "occlum.sigstruct")


@pytest.mark.parametrize("name", ["occlum.sgxs", "occlum.sigstruct"])
def test_a_part_of_another_enclave_is_refused(name: str, copy: Instance, other: Instance) -> None:
    shutil.copy(other.root / "build" / name, copy.root / "build" / name)
    assert_refused(copy, "MRENCLAVE")


def test_another_configuration_is_another_enclave(built: Instance, other: Instance) -> None:
    printed = [each.occlum("print", "mrenclave").stdout for each in (built, other)]
    assert printed[0] != printed[1]


@pytest.mark.enclave
def test_an_image_of_another_instance_is_refused(copy: Instance, other: Instance) -> None:
    shutil.copy(other.root / "build" / "image.occ", copy.root / "build" / "image.occ")
    assert_refused(copy, "the file-system image can't be used")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.enclave
@pytest.mark.parametrize("change", [cut, lengthen])
def test_an_image_of_another_size_is_refused(
    change: Callable[[Path], None], copy: Instance
) -> None:
    change(copy.root / "build" / "image.occ")
    assert_refused(copy, "the image file has")


@pytest.mark.enclave
def test_a_changed_program_in_the_image_never_runs(copy: Instance) -> None:
    image = copy.root / "build" / "image.occ"
    at = image.read_bytes().index(GREETING)
    flip(image, at)
    assert_refused(copy, "a changed block of the image")

"""Commands on a disk that is full or read-only: an error, no traceback, nothing half done."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import OCCLUM, Instance, occlum


def mounted(path: Path, options: str) -> bool:
    path.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    path = tmp_path / "small"
    if shutil.which("mount") is None or not mounted(path, "size=2m"):
        pytest.skip("a file system can't be mounted here")
    yield path
    subprocess.run(["umount", path], check=True)


def explained(done: subprocess.CompletedProcess[bytes], status: int = 1) -> str:
    text = done.stderr.decode()
    assert done.returncode == status, text
    assert "Traceback" not in text
    assert text.startswith("error: ")
    return text


def leftovers(root: Path) -> list[str]:
    return [p.name for p in root.rglob("*") if p.name.startswith((".occlum", ".import", ".image"))]


def test_a_full_disk_is_told_by_each_command_that_fills_it(small: Path):
    assert occlum("new", "instance", cwd=small).returncode == 0
    instance = Instance(small / "instance")
    assert "No space left" in explained(instance.occlum("add", "/usr/bin/python3"))
    assert leftovers(small) == []
    assert "No space left" in explained(instance.occlum("build"))
    assert not (instance.root / "build.next").exists()
    assert instance.occlum("status").stdout == b"initialized\n"
    bom = small / "bom.yaml"
    bom.write_text("targets: [{target: /, copy: [{files: [/usr/bin/python3]}]}]")
    done = subprocess.run(
        [OCCLUM.with_name("copy_bom"), "-f", bom, "--root", instance.image],
        capture_output=True, check=False,
    )  # fmt: skip
    assert "No space left" in explained(done, 254)


def test_an_instance_that_may_not_be_written_is_told(small: Path):
    assert occlum("new", "instance", cwd=small).returncode == 0
    instance = Instance(small / "instance")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    explained(occlum("new", "other", cwd=small))
    explained(instance.occlum("add", "/bin/ls"))
    explained(instance.occlum("build"))
    explained(instance.occlum("config", "set", "metadata.product_id", "1"))
    assert instance.occlum("status").stdout == b"initialized\n"

"""`occlum import` as a person types it: an image of Debian's busybox, built by umoci, runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Instance, occlum

BUSYBOX = Path("/bin/busybox")
needs_tools = pytest.mark.skipif(
    not (shutil.which("umoci") and shutil.which("skopeo") and BUSYBOX.exists()),
    reason="umoci, skopeo or busybox-static is missing",
)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What docker save writes, of an image with one program under many names."""
    base = tmp_path_factory.mktemp("image")
    layout, bundle = base / "oci", base / "bundle"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:box")
    rootless = ["--rootless"] if os.geteuid() else []
    run("umoci", "unpack", *rootless, "--image", f"{layout}:box", bundle)
    binaries = bundle / "rootfs/bin"
    binaries.mkdir()
    shutil.copy(BUSYBOX, binaries / "busybox")
    for name in ("sh", "echo", "env", "cat"):
        (binaries / name).symlink_to("busybox")
    (bundle / "rootfs/etc").mkdir()
    (bundle / "rootfs/etc/motd").write_text("from the image\n")
    run("umoci", "repack", "--image", f"{layout}:box", bundle)
    settings = ["--config.entrypoint", "sh", "--config.cmd", "-c", "--config.cmd",
                "echo $GREETING; cat /etc/motd", "--config.env", "GREETING=hello",
                "--config.env", "PATH=/bin"]  # fmt: skip
    run("umoci", "config", "--image", f"{layout}:box", *settings)
    target = base / "box.tar"
    run("skopeo", "--insecure-policy", "copy", f"oci:{layout}:box",
        f"docker-archive:{target}:example/box:1")  # fmt: skip
    return target


@needs_tools
@pytest.mark.enclave
def test_an_image_of_a_container_runs_with_its_own_settings(instance: Instance, archive: Path):
    done = instance.occlum("import", archive)
    assert done.returncode == 0, done.stderr.decode()
    assert b"occlum run /bin/sh -c 'echo $GREETING; cat /etc/motd'" in done.stdout
    instance.build()
    ran = instance.run("/bin/sh", "-c", "echo $GREETING; cat /etc/motd")
    assert (ran.stdout, ran.returncode) == (b"hello\nfrom the image\n", 0), ran.stderr.decode()
    again = instance.occlum("import", archive)
    assert again.returncode == 1
    assert "--replace" in again.stderr.decode()
    assert instance.occlum("import", "--replace", archive).returncode == 0


@needs_tools
def test_a_reference_that_is_not_there_is_told_with_those_that_are(instance, archive: Path):
    done = instance.occlum("import", "--reference", "other", archive)
    assert done.returncode == 1
    assert "example/box:1" in done.stderr.decode()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.tar", None, "is not there"),
        ("text.tar", b"no archive", "is no tar archive"),
        ("empty.tar", b"\0" * 10240, "is no container image"),
        ("directory", b"", "is no container image"),
    ],
)
def test_what_is_no_image_is_told(instance: Instance, name: str, content: bytes | None, says: str):
    path = instance.root / name
    if name == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    done = instance.occlum("import", path)
    assert done.returncode == 1
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_outside_an_instance_there_is_nothing_to_import_into(tmp_path: Path):
    done = occlum("import", "x.tar", cwd=tmp_path)
    assert "not in an Occlum instance" in done.stderr.decode()

"""``occlum fs``, ``occlum mount`` and keys: over a store of their own, no enclave."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from ctypes.util import find_library
from pathlib import Path

import pytest

from conftest import OCCLUM
from occlum.store import copy_store, format_store, keys, open_store
from occlum.store.tree import Tree


def occlum(*words: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        [str(OCCLUM), *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture
def store(tmp_path: Path) -> list[str]:
    """A small store; the options that name it."""
    key, path = tmp_path / "key", tmp_path / "store.occ"
    occlum("gen-image-key", key)
    inner = format_store(path, keys.read(key))
    tree = Tree(inner, None)
    tree.make("/dir", 0o040755, uid=0, gid=0)
    inner.write_at(tree.make("/dir/file", 0o100644, uid=0, gid=0), 0, b"content" * 1000)
    tree.make("/link", 0o120777, uid=0, gid=0, target="dir/file")
    tree.link("/dir/file", "/second")
    inner.checkpoint()
    return ["--store", str(path), "--key", str(key)]


def test_a_key_is_32_bytes_and_never_overwritten(tmp_path: Path) -> None:
    key = tmp_path / "key"
    occlum("gen-image-key", key)
    assert len(bytes.fromhex(key.read_text().replace("-", ""))) == 32
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_text()
    assert "exists" in occlum("gen-image-key", key, status=1)
    assert key.read_text() == before


def test_fs_shows_what_is_there(store: list[str], tmp_path: Path) -> None:
    assert occlum("fs", "ls", *store) == "dir\nlink\nsecond\n"
    assert occlum("fs", "ls", *store, "/dir") == "file\n"
    assert "link -> dir/file" in occlum("fs", "ls", "-l", *store)
    assert occlum("fs", "cat", *store, "/dir/file") == "content" * 1000
    assert "inodes        4" in occlum("fs", "stat", *store)
    assert "the store is whole" in occlum("fs", "verify", *store)
    occlum("fs", "extract", *store, "/", tmp_path / "out")
    assert (tmp_path / "out/link").readlink() == Path("dir/file")
    assert (tmp_path / "out/second").read_text() == "content" * 1000
    assert "No such file" in occlum("fs", "cat", *store, "/nothing", status=1)


def test_a_wrong_key_and_a_changed_store_are_refused(store: list[str], tmp_path: Path) -> None:
    other, path = tmp_path / "other", Path(store[1])
    occlum("gen-image-key", other)
    words = ["fs", "ls", "--store", str(path), "--key", str(other)]
    assert "not the store's key" in occlum(*words, status=1)
    data = bytearray(path.read_bytes())
    for block in range(2 * 4096, len(data), 4096):
        data[block + 100] ^= 1
    path.write_bytes(data)
    assert "changed" in occlum("fs", "verify", *store, status=1)
    assert path.read_bytes() == data


def test_a_pin_refuses_an_older_copy(store: list[str]) -> None:
    path, key = Path(store[1]), keys.read(Path(store[3]))
    older = path.read_bytes()
    inner = open_store(path, key, read_only=False)
    Tree(inner, None).make("/new", 0o100644, uid=0, gid=0)
    inner.sync()
    pin = inner.pin()
    del inner
    assert "new" in occlum("fs", "ls", *store, "--pin", pin)
    path.write_bytes(older)
    assert "rolled back" in occlum("fs", "ls", *store, "--pin", pin, status=1)


def test_export_and_rekey_keep_everything(store: list[str], tmp_path: Path) -> None:
    fresh, copy = tmp_path / "fresh", tmp_path / "copy.occ"
    occlum("gen-image-key", fresh)
    occlum("fs", "export", *store, "--to-key", fresh, copy)
    there = ["--store", copy, "--key", fresh]
    assert occlum("fs", "ls", "-l", *there) == occlum("fs", "ls", "-l", *store)
    assert occlum("fs", "cat", *there, "/second") == "content" * 1000
    assert "is whole" in occlum("fs", "verify", *there)
    occlum("fs", "rekey", *store, "--to-key", fresh)
    assert "not the store's key" in occlum("fs", "ls", *store, status=1)
    assert occlum("fs", "ls", *store[:2], "--key", fresh) == "dir\nlink\nsecond\n"


def test_what_is_copied_has_hard_links_holes_and_attributes(tmp_path: Path) -> None:
    key = bytes(32)
    inner = format_store(tmp_path / "one", key)
    tree = Tree(inner, None)
    ino = tree.make("/sparse", 0o100600, uid=5, gid=6)
    inner.write_at(ino, 5 << 30, b"end")
    inner.set_xattr(ino, b"user.note", b"kept")
    inner.set_attr(ino, mtime_ns=1_234_567_890)
    tree.link("/sparse", "/again")
    copy_store(inner, tmp_path / "two", key, lambda done, total: None)
    copied = open_store(tmp_path / "two", key)
    found = Tree(copied, None).find("/again").ino
    assert found is not None
    state = copied.stat(found)
    assert (state.size, state.blocks, state.nlink) == ((5 << 30) + 3, 1, 2)
    assert (state.uid, state.gid, state.mtime_ns) == (5, 6, 1_234_567_890)
    assert copied.xattr(found, b"user.note") == b"kept"


@pytest.mark.skipif(
    not Path("/dev/fuse").exists() or find_library("fuse3") is None or os.geteuid() != 0,
    reason="mounting needs /dev/fuse, libfuse3 and root",
)
def test_a_mounted_store_is_a_file_system(store: list[str], tmp_path: Path) -> None:
    target = tmp_path / "mnt"
    target.mkdir()
    mounted = subprocess.Popen(
        [str(OCCLUM), "mount", *store, str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(target):
            if mounted.poll() is not None:
                assert mounted.stderr is not None
                problem = mounted.stderr.read()
                if "can't be mounted" in problem:
                    pytest.skip(f"this machine does not let fuse mount: {problem}")
                pytest.fail(problem)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (target / "link").read_text() == "content" * 1000
        shutil.copytree(Path(__file__).parent, target / "copy")
        (target / "dir/file").rename(target / "moved")
        with (target / "moved").open("r+") as file:
            file.truncate(5)
        (target / "second").chmod(0o640)
        with pytest.raises(OSError):
            (target / "copy").rmdir()
        os.sync()
    finally:
        mounted.send_signal(signal.SIGINT)
        mounted.wait(20)
    assert occlum("fs", "cat", *store, "/moved") == "conte"
    here = Path(__file__)
    assert occlum("fs", "cat", *store, f"/copy/{here.name}") == here.read_text()
    assert occlum("fs", "ls", "-l", *store).count("-rw-r-----") == 2
    assert "is whole" in occlum("fs", "verify", *store)

"""``occlum mount``: a `Tree` as a file system of the host, by libfuse3.

All operations name files by path. libfuse keeps a file that is removed while it is open under
another name until it is closed, so nothing here must know what is open.
"""

from __future__ import annotations

import errno
import os
import time
from ctypes.util import find_library
from pathlib import Path
from typing import Any

from occlum.errors import Error
from occlum.store.tree import REDIRECT, Tree

_OWN_XATTRS = os.fsdecode(REDIRECT).rsplit(".", 1)[0] + "."


def mount(tree: Tree, target: Path, *, read_only: bool) -> None:
    """Show ``tree`` at ``target`` until it is unmounted or interrupted."""
    fusepy = _library()
    operations = type("Mounted", (TreeOperations, fusepy.Operations), {})(tree)
    try:
        fusepy.FUSE(
            operations,
            os.fspath(target),
            foreground=True,
            nothreads=True,
            ro=read_only,
            fsname="occlum",
            default_permissions=True,
        )
    except RuntimeError as error:
        raise Error(
            f"{target} can't be mounted: fuse says {error}",
            hint="is /dev/fuse there, and is the directory empty and yours?",
        ) from None


def _library() -> Any:
    if not Path("/dev/fuse").exists():
        raise Error("/dev/fuse is not there", hint="load the kernel's fuse module")
    library = find_library("fuse3")
    if library is None:
        raise Error("libfuse3 is not installed", hint="apt-get install fuse3")
    os.environ["FUSE_LIBRARY_PATH"] = library
    try:
        import mfusepy
    except ImportError:
        raise Error("mfusepy is not installed", hint="pip install mfusepy") from None
    return mfusepy


class TreeOperations:
    """The operations of libfuse that a tree has; mfusepy's base class has the rest."""

    use_ns = True

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = self._tree.attributes(self._tree.find(path))
        return {
            "st_mode": found.mode,
            "st_nlink": found.nlink,
            "st_uid": found.uid,
            "st_gid": found.gid,
            "st_size": found.size,
            "st_blocks": (found.size + 511) // 512,
            "st_rdev": found.rdev,
            "st_atime": found.atime_ns,
            "st_mtime": found.mtime_ns,
            "st_ctime": found.ctime_ns,
        }

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *self._tree.names(self._tree.find(path))]

    def readlink(self, path: str) -> str:
        return self._tree.read_link(self._tree.find(path))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return self._tree.read(self._tree.find(path), offset, size)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._tree.store.write_at(self._tree.raise_to_store(path), offset, data)
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._tree.store.set_size(self._tree.raise_to_store(path), length)
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._make(path, mode & 0o7777 | 0o100000)
        return 0

    def mknod(self, path: str, mode: int, dev: int) -> int:
        self._make(path, mode, rdev=dev)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._make(path, mode & 0o7777 | 0o040000)
        return 0

    def symlink(self, target: str, source: str) -> int:
        self._make(target, 0o120777, target=source)
        return 0

    def link(self, target: str, source: str) -> int:
        self._tree.link(source, target)
        return 0

    def unlink(self, path: str) -> int:
        self._tree.remove(path, is_dir=False)
        return 0

    def rmdir(self, path: str) -> int:
        self._tree.remove(path, is_dir=True)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._tree.rename(old, new)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._tree.store.set_attr(self._tree.raise_to_store(path), mode=mode & 0o7777)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        ino = self._tree.raise_to_store(path)
        same = 0xFFFF_FFFF
        self._tree.store.set_attr(
            ino,
            uid=None if uid in (-1, same) else uid,
            gid=None if gid in (-1, same) else gid,
        )
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        now = time.time_ns()
        atime, mtime = times or (now, now)
        ino = self._tree.raise_to_store(path)
        self._tree.store.set_attr(ino, atime_ns=atime, mtime_ns=mtime)
        return 0

    def listxattr(self, path: str) -> list[str]:
        ino = self._tree.find(path).ino
        names = [] if ino is None else self._tree.store.xattr_names(ino)
        return [name for name in names if not name.startswith(_OWN_XATTRS)]

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        ino = self._tree.find(path).ino
        if ino is None or name.startswith(_OWN_XATTRS):
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return self._tree.store.xattr(ino, os.fsencode(name))

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:
        ino = self._tree.raise_to_store(path)
        self._tree.store.set_xattr(ino, os.fsencode(name), value)
        return 0

    def removexattr(self, path: str, name: str) -> int:
        self._tree.store.remove_xattr(self._tree.raise_to_store(path), os.fsencode(name))
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        size, blocks, free, inodes, _ = self._tree.store.statfs()
        return {
            "f_bsize": size,
            "f_frsize": size,
            "f_blocks": blocks,
            "f_bfree": free,
            "f_bavail": free,
            "f_files": inodes + free,
            "f_ffree": free,
            "f_namemax": 255,
        }

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._tree.store.sync()
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._tree.store.sync()
        return 0

    def _make(self, path: str, mode: int, *, rdev: int = 0, target: str = "") -> None:
        self._tree.make(path, mode, uid=os.getuid(), gid=os.getgid(), rdev=rdev, target=target)

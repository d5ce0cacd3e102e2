"""Image and store as the programs see them: one tree of paths.

What a name means is the kernel's rule (``crates/kernel/src/fs/store``): a name of the store, else
the one below; a whiteout hides what is below; a directory that is not opaque shows the directory
below through. A file of the image is copied into the store, whole, before it is changed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from occlum._core import Image, ImageInode, Store
from occlum.store import ROOT, WHITEOUT

REDIRECT = b"trusted.occlum.redirect"
"""Attribute of a directory that shows another directory below than the one of its name."""

_PIECE = 1 << 20


@dataclass(frozen=True)
class Node:
    """A file: its inode in the store, what is below it in the image, or both."""

    ino: int | None
    lower: ImageInode | None


@dataclass(frozen=True)
class Attributes:
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


def split(path: str) -> tuple[str, bytes]:
    """The directory and the name of a path."""
    parent, name = os.path.split(path)
    return parent, os.fsencode(name)


class Tree:
    """Reads and changes files by absolute path. Errors are `OSError` with Linux' numbers."""

    def __init__(self, store: Store | None, image: Image | None) -> None:
        self._store = store
        self._image = image

    @property
    def store(self) -> Store:
        """The store; what is changed must have one."""
        if self._store is None:
            raise OSError(errno.EROFS, "an image is read-only")
        return self._store

    def find(self, path: str) -> Node:
        """The file called ``path``; symbolic links are not followed."""
        node = self._root()
        for name in path.split("/"):
            if name:
                node = self._child(node, os.fsencode(name))
        return node

    def attributes(self, node: Node) -> Attributes:
        if node.ino is not None:
            above = self.store.stat(node.ino)
            size = 0 if stat.S_ISDIR(above.mode) else above.size
            return Attributes(
                above.mode, above.nlink, above.uid, above.gid, size, above.rdev,
                above.atime_ns, above.mtime_ns, above.ctime_ns,
            )  # fmt: skip
        below = _there(node.lower)
        time = below.mtime_ns
        size = 0 if stat.S_ISDIR(below.mode) else below.size
        return Attributes(
            below.mode, below.nlink, below.uid, below.gid, size, below.rdev, time, time, time
        )

    def names(self, node: Node) -> list[str]:
        """The names in a directory, sorted."""
        if not stat.S_ISDIR(self.attributes(node).mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        names: set[str] = set()
        if node.lower is not None:
            names.update(name for name, _ in self._lower().read_dir(node.lower))
        if node.ino is not None:
            for name, _, kind in self.store.read_dir(node.ino):
                names.discard(name) if kind == WHITEOUT else names.add(name)
        return sorted(names)

    def walk(self, path: str = "/") -> Iterator[tuple[str, Node]]:
        """``path`` and everything below it; directories before what is in them."""
        node = self.find(path)
        yield path, node
        if stat.S_ISDIR(self.attributes(node).mode):
            for name in self.names(node):
                yield from self.walk(os.path.join(path, name))

    def read(self, node: Node, offset: int, size: int) -> bytes:
        if node.ino is not None:
            return self.store.read_at(node.ino, offset, size)
        return self._lower().read_at(_there(node.lower), offset, size)

    def pieces(self, node: Node) -> Iterator[bytes]:
        """The data of a file, piece by piece."""
        offset = 0
        while piece := self.read(node, offset, _PIECE):
            yield piece
            offset += len(piece)

    def read_link(self, node: Node) -> str:
        if node.ino is not None:
            return self.store.read_link(node.ino)
        return self._lower().read_link(_there(node.lower))

    def make(
        self, path: str, mode: int, *, uid: int, gid: int, rdev: int = 0, target: str = ""
    ) -> int:
        """Make a file of any type; its inode in the store."""
        parent, name = split(path)
        above = self.find(parent)
        directory = self.raise_to_store(parent)
        hides = self._has_below(above, name)
        link = os.fsencode(target) or None
        if self._exists(above, name):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        ino = self.store.create(directory, name, mode, uid=uid, gid=gid, rdev=rdev, target=link)
        if hides and stat.S_ISDIR(mode):
            self.store.set_opaque(ino, True)
        return ino

    def link(self, existing: str, path: str) -> None:
        parent, name = split(path)
        ino = self.raise_to_store(existing)
        if self._exists(self.find(parent), name):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self.store.link(self.raise_to_store(parent), name, ino)

    def remove(self, path: str, *, is_dir: bool) -> None:
        parent, name = split(path)
        above, node = self.find(parent), self.find(path)
        if is_dir and self.names(node):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        directory = self.raise_to_store(parent)
        if node.ino is None:
            self.store.set_whiteout(directory, name)
        else:
            self.store.remove(directory, name, is_dir, self._has_below(above, name))

    def rename(self, old: str, new: str) -> None:
        """Move a file. A directory of the image is EXDEV: copy it."""
        node = self.find(old)
        is_dir = stat.S_ISDIR(self.attributes(node).mode)
        if is_dir and node.lower is not None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        (from_parent, from_name), (to_parent, to_name) = split(old), split(new)
        if self._exists(self.find(to_parent), to_name):
            self._check_replace(new, is_dir)
        ino = self.raise_to_store(old)
        from_above, to_above = self.find(from_parent), self.find(to_parent)
        if is_dir and self._has_below(to_above, to_name):
            self.store.set_opaque(ino, True)
        self.store.rename(
            self.raise_to_store(from_parent),
            from_name,
            self.raise_to_store(to_parent),
            to_name,
            self._has_below(from_above, from_name),
        )

    def raise_to_store(self, path: str) -> int:
        """The inode of ``path`` in the store: it is copied there, if it is not there yet."""
        node = self.find(path)
        if node.ino is not None:
            return node.ino
        parent, name = split(path)
        directory = self.raise_to_store(parent)
        below = _there(node.lower)
        target = os.fsencode(self.read_link(node)) if stat.S_ISLNK(below.mode) else None
        ino = self.store.create(
            directory,
            name,
            below.mode,
            uid=below.uid,
            gid=below.gid,
            rdev=below.rdev,
            target=target,
        )
        if stat.S_ISREG(below.mode):
            offset = 0
            for piece in self.pieces(node):
                self.store.write_at(ino, offset, piece)
                offset += len(piece)
        self.store.set_attr(ino, atime_ns=below.mtime_ns, mtime_ns=below.mtime_ns)
        return ino

    def _check_replace(self, path: str, is_dir: bool) -> None:
        node = self.find(path)
        target_is_dir = stat.S_ISDIR(self.attributes(node).mode)
        if target_is_dir and not is_dir:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if is_dir and not target_is_dir:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if is_dir and self.names(node):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    def _root(self) -> Node:
        lower = None if self._image is None else self._image.inode(1)
        return Node(None if self._store is None else ROOT, lower)

    def _lower(self) -> Image:
        if self._image is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._image

    def _child(self, node: Node, name: bytes) -> Node:
        if not stat.S_ISDIR(self.attributes(node).mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        found = None if node.ino is None else self.store.lookup(node.ino, name)
        below = self._child_below(node, name)
        if found is None:
            if below is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return Node(None, below)
        ino, kind = found
        if kind == WHITEOUT:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return Node(ino, self._shown_through(ino, below))

    def _shown_through(self, ino: int, below: ImageInode | None) -> ImageInode | None:
        """What is below a file of the store: only directories show through."""
        above = self.store.stat(ino)
        if self._image is None or not stat.S_ISDIR(above.mode) or above.is_opaque:
            return None
        if os.fsdecode(REDIRECT) in self.store.xattr_names(ino):
            below = self._image.inode(1)
            for name in self.store.xattr(ino, REDIRECT).split(b"/"):
                number = self._image.lookup(below, name) if name else below.ino
                if number is None:
                    return None
                below = self._image.inode(number)
        return below if below is not None and stat.S_ISDIR(below.mode) else None

    def _child_below(self, node: Node, name: bytes) -> ImageInode | None:
        if node.lower is None or not stat.S_ISDIR(node.lower.mode):
            return None
        number = self._lower().lookup(node.lower, name)
        return None if number is None else self._lower().inode(number)

    def _has_below(self, node: Node, name: bytes) -> bool:
        return self._child_below(node, name) is not None

    def _exists(self, node: Node, name: bytes) -> bool:
        try:
            self._child(node, name)
        except FileNotFoundError:
            return False
        return True


def _there(inode: ImageInode | None) -> ImageInode:
    if inode is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return inode

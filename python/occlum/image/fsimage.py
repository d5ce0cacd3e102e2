"""``image/`` as one hashed file: making it, and looking inside.

``scan`` lists a tree; ``Scan.write`` makes the image of it, ``Scan.up_to_date`` says whether
that is needed; ``build_image`` is all of it in one call. ``ImageReader`` reads an image by paths.
The bytes are ``crates/storage``'s business, described in ``docs/format/image.md``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from occlum import _core
from occlum.errors import Error

ByteProgress = Callable[[int, int], None]
"""Called with bytes done and bytes in all; what it raises cancels the work and is raised on."""

SiteTables = Callable[[list["ElfFile"]], Mapping[str, bytes]]
"""From the ELF files of a tree to their site tables by path; files without one are left out."""

_READ_SIZE = 1 << 20
# Linux's limit of symbolic links in one path (path_resolution(7)).
_MAX_LINKS = 40


@dataclass(frozen=True)
class ElfFile:
    """A file with the ELF magic; path (relative to the tree), size and mtime can key a cache."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class ImageInfo:
    """What an image was made of. Sizes in bytes; ``root_hash`` (32 bytes) vouches for all of it."""

    root_hash: bytes
    image_size: int
    files: int
    directories: int
    symlinks: int
    content_size: int


@dataclass(frozen=True)
class Entry:
    """A file in an image. ``path`` is absolute inside; ``target`` is a symbolic link's."""

    path: str
    mode: int
    nlink: int
    size: int
    mtime_ns: int
    target: str | None

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


def build_image(
    source: Path,
    dest: Path,
    sites: SiteTables,
    progress: ByteProgress,
    *,
    tag: bytes = b"",
) -> ImageInfo:
    """Make ``dest`` the image of the tree ``source``, unless it is that already.

    ``sites`` is called only if the image has to be made. ``tag`` stands for the version of what
    ``sites`` does: with another tag an image is made again.
    """
    tree = scan(source)
    known = tree.up_to_date(dest, tag)
    if known is not None:
        return known
    return tree.write(dest, sites=sites(tree.elf_files()), tag=tag, progress=progress)


def scan(source: Path) -> Scan:
    """List the tree under the directory ``source``. No file is opened."""
    return Scan(_core.ImageScan(os.fspath(source)))


class Scan:
    """A tree as it was when it was scanned."""

    def __init__(self, inner: _core.ImageScan) -> None:
        self._inner = inner

    def elf_files(self) -> list[ElfFile]:
        """The files that begin with the ELF magic: four bytes of each file are read."""
        return [ElfFile(*parts) for parts in self._inner.elf_files()]

    def up_to_date(self, dest: Path, tag: bytes) -> ImageInfo | None:
        """What ``dest`` was made of, if it is the image of this tree with this tag."""
        known = self._inner.up_to_date(os.fspath(dest), tag)
        return None if known is None else _info(known)

    def write(
        self,
        dest: Path,
        *,
        sites: Mapping[str, bytes],
        tag: bytes,
        progress: ByteProgress,
    ) -> ImageInfo:
        """Make the image and its manifest.

        ``dest`` is replaced in one step at the end; if anything fails it is as it was. A file that
        changed since the scan is an error.
        """
        return _info(self._inner.write(os.fspath(dest), dict(sites), tag, progress))


class ImageReader:
    """An image opened for reading; what is read was checked, or VerificationError is raised.

    ``root_hash`` is the one the image must have. Without it the image is believed to be the one it
    claims to be: enough to look around, not to prove anything.
    """

    def __init__(self, path: Path, root_hash: bytes | None = None) -> None:
        self._image = _core.Image(os.fspath(path), root_hash)

    @property
    def root_hash(self) -> bytes:
        return self._image.root_hash

    def entry(self, path: str) -> Entry:
        """The file at ``path``; a symbolic link at its end is not followed."""
        return self._entry(path, self._find(path, follow=False))

    def list(self, path: str = "/") -> list[Entry]:
        """The entries of a directory, by name; of another file, itself."""
        found = self._find(path, follow=True)
        if not stat.S_ISDIR(found.mode):
            return [self._entry(path, found)]
        children = sorted(self._image.read_dir(found))
        base = path.rstrip("/")
        return [self._entry(f"{base}/{name}", self._image.inode(ino)) for name, ino in children]

    def walk(self, path: str = "/") -> Iterator[Entry]:
        """Everything below a directory, each directory before what is in it."""
        for entry in self.list(path):
            yield entry
            if entry.is_directory:
                yield from self.walk(entry.path)

    def cat(self, path: str) -> Iterator[bytes]:
        """The content of a regular file, in pieces."""
        found = self._find(path, follow=True)
        if not stat.S_ISREG(found.mode):
            raise Error(f"{path} in the image is not a regular file", code="image")
        for offset in range(0, found.size, _READ_SIZE):
            yield self._image.read_at(found, offset, _READ_SIZE)

    def sites(self, path: str) -> bytes:
        """The site table of a file; empty if it has none."""
        return self._image.sites(self._find(path, follow=True))

    def verify(self, progress: Callable[[int, int], None]) -> None:
        """Check every block. ``progress`` is called with blocks done and in all."""
        self._image.verify(progress)

    def _entry(self, path: str, inode: _core.ImageInode) -> Entry:
        target = self._image.read_link(inode) if stat.S_ISLNK(inode.mode) else None
        return Entry(path, inode.mode, inode.nlink, inode.size, inode.mtime_ns, target)

    def _find(self, path: str, *, follow: bool) -> _core.ImageInode:
        """Resolve a path as Linux does, the image's root being the root."""
        trail = [self._image.inode(1)]
        names = _names(path)
        links = 0
        while names:
            name = names.pop()
            if name == "..":
                # The root's parent is the root.
                trail = trail[:-1] or trail
                continue
            inode = self._child(trail[-1], name, path)
            if not stat.S_ISLNK(inode.mode) or not (names or follow):
                trail.append(inode)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise Error(
                    f"{path} in the image has too many levels of symbolic links", code="image"
                )
            target = self._image.read_link(inode)
            names += _names(target)
            if target.startswith("/"):
                del trail[1:]
        return trail[-1]

    def _child(self, directory: _core.ImageInode, name: str, path: str) -> _core.ImageInode:
        if not stat.S_ISDIR(directory.mode):
            raise Error(f"{path} in the image: what holds {name} is not a directory", code="image")
        ino = self._image.lookup(directory, os.fsencode(name))
        if ino is None:
            raise Error(f"{path} is not in the image: there is no {name}", code="image")
        return self._image.inode(ino)


def _names(path: str) -> list[str]:
    """The names of a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _info(info: _core.ImageInfo) -> ImageInfo:
    return ImageInfo(
        root_hash=info.root_hash,
        image_size=info.image_size,
        files=info.files,
        directories=info.directories,
        symlinks=info.symlinks,
        content_size=info.content_size,
    )

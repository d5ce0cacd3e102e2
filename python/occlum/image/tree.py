"""The tree ``image/``, written to as if it were a root directory.

A file keeps the path it has on this machine. Symbolic links inside the image are followed within
the image and never out of it, so ``image/bin -> /usr/bin`` writes to ``image/usr/bin``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from occlum.errors import Error

_MAX_LINKS = 40


_HINTS = {
    errno.ENOSPC: "make room on the disk; what is there already is whole",
    errno.EACCES: "the file or the image belongs to somebody else",
}


class ImageError(Error):
    """Something can't be put into the image."""

    code = "image"


def _hear_nothing(action: str, place: Path, source: str) -> None:
    """The listener of a tree that nobody watches."""


@dataclass
class Tree:
    """``image/``. ``copied`` and ``unchanged`` count files and links; ``places`` are all of them.

    ``listen`` hears each change: what (``copy``, ``link``), where, and from where or to what.
    """

    root: Path
    copied: int = 0
    unchanged: int = 0
    places: set[str] = field(default_factory=set)
    listen: Callable[[str, Path, str], None] = _hear_nothing

    def add(self, path: Path) -> Path:
        """Copy a file of this machine, with the chain of links that leads to it.

        Returns the path on this machine at the end of the chain.
        """
        path = Path(os.path.abspath(path))
        for _ in range(_MAX_LINKS):
            parent = path.parent.resolve()
            self._mirror_directory_links(path.parent)
            canonical = parent / path.name
            if not canonical.is_symlink():
                self._copy(canonical)
                self._alias(path, canonical)
                return canonical
            target = os.readlink(canonical)
            self.link(canonical, target)
            self._alias(path, canonical)
            path = Path(os.path.normpath(parent / target))
        raise ImageError(f"{path} is behind more than {_MAX_LINKS} symbolic links")

    def add_tree(
        self, source: Path, is_wanted: Callable[[Path], bool], to: Path | None = None
    ) -> Iterator[Path]:
        """Copy a directory, under ``to`` if given; yields each regular file of this machine.

        ``is_wanted`` decides on every entry; an unwanted directory is not entered.
        """
        target = to or source.resolve()
        if to is None:
            self._mirror_directory_links(source)
        self.make_directory(target)
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            path = Path(entry.path)
            if not is_wanted(path):
                continue
            if entry.is_symlink():
                self.link(target / entry.name, os.readlink(path))
                yield from self._follow_out_of(source, path)
            elif entry.is_dir():
                yield from self.add_tree(path, is_wanted, target / entry.name)
            elif entry.is_file():
                self._copy(path, target / entry.name)
                yield path

    def _follow_out_of(self, source: Path, link: Path) -> Iterator[Path]:
        """What a link inside a copied directory leads to, when that is a file elsewhere."""
        real = link.resolve()
        if real.is_file() and not real.is_relative_to(source.resolve()):
            yield self.add(real)

    def copy_to(self, source: Path, target: Path) -> None:
        """Copy one file to a place of its own in the image."""
        self._copy(source, target)

    def make_directory(self, path: Path) -> None:
        """A directory and its parents; one that is there stays as it is."""
        self._make_directories(self._place(path))

    def link(self, path: Path, target: str) -> bool:
        """A symbolic link; anything that is there is replaced, but a directory: returns False."""
        place = self._place(path.parent) / path.name
        if place.is_symlink() and os.readlink(place) == target:
            self._count(place, changed=False)
            return True
        if place.is_dir() and not place.is_symlink():
            return False  # A real directory takes the files one by one; see `_alias`.
        self._replace_by_link(place, target)
        self.listen("link", place, target)
        self._count(place, changed=True)
        return True

    def has(self, path: Path) -> bool:
        """Whether the path leads to something in the image."""
        return self._place(path).exists()

    def _copy(self, source: Path, target: Path | None = None) -> None:
        place = self._place(target or source)
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{source} is not a regular file")
        if place.is_file() and not place.is_symlink():
            there = place.stat()
            if (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
                self._count(place, changed=False)
                return
        self._replace_by_copy(source, place)
        self.listen("copy", place, str(source))
        self._count(place, changed=True)

    def _make_directories(self, place: Path) -> None:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ImageError(
                f"the directory {place} can't be made: {problem.strerror}", code="image-write"
            ) from None

    def _replace_by_link(self, place: Path, target: str) -> None:
        self._make_directories(place.parent)
        try:
            place.unlink(missing_ok=True)
            place.symlink_to(target)
        except OSError as problem:
            raise ImageError(
                f"the link {place} can't be made: {problem.strerror}", code="image-write"
            ) from None

    def _replace_by_copy(self, source: Path, place: Path) -> None:
        self._make_directories(place.parent)
        staging = place.with_name(f".{place.name}.occlum-add")
        try:
            shutil.copy2(source, staging, follow_symlinks=True)
            staging.replace(place)
        except OSError as problem:
            raise ImageError(
                f"{source} can't be copied to {place}: {problem.strerror}",
                hint=_HINTS.get(problem.errno or 0),
                code="image-write",
            ) from None
        finally:
            # Gone after success; after an error or an interrupt it is a half file.
            with contextlib.suppress(OSError):
                staging.unlink(missing_ok=True)

    def _count(self, place: Path, *, changed: bool) -> None:
        if str(place) in self.places:
            return
        self.places.add(str(place))
        if changed:
            self.copied += 1
        else:
            self.unchanged += 1

    def _mirror_directory_links(self, directory: Path) -> None:
        """Repeat the links among a path's directories, such as ``/lib -> usr/lib``."""
        at = Path("/")
        for part in directory.parts[1:]:
            at /= part
            if at.is_symlink() and not os.path.lexists(self._place(at.parent) / part):
                self.link(at, os.readlink(at))

    def _alias(self, path: Path, canonical: Path) -> None:
        """Make the file reachable by the path it was asked for, if directories don't do that."""
        if path != canonical and not os.path.lexists(self._place(path.parent) / path.name):
            self.link(path, str(canonical))

    def _place(self, path: Path) -> Path:
        """Where an absolute path of the image is on this machine; links are followed inside."""
        waiting = list(PurePosixPath(path).parts[1:])[::-1]
        at: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                at = at[:-1]
                continue
            here = self.root.joinpath(*at, part)
            if not here.is_symlink():
                at.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise ImageError(f"image{path} is behind a loop of symbolic links")
            target = PurePosixPath(os.readlink(here))
            if target.is_absolute():
                at = []
            waiting += [p for p in target.parts if p not in ("/", ".")][::-1]
        return self.root.joinpath(*at)


class Rehearsal(Tree):
    """A tree that tells its listener what it would do and leaves everything as it is."""

    def _make_directories(self, place: Path) -> None:
        pass

    def _replace_by_link(self, place: Path, target: str) -> None:
        pass

    def _replace_by_copy(self, source: Path, place: Path) -> None:
        pass

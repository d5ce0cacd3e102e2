"""A tree brought to what BOM files say: `copy_bom`.

Directories first, then links, then files with the libraries they need, target by target in the
order of the files. Nothing is deleted: what the tree holds beyond the BOM is reported as stale.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from occlum.bom import BomError, Exit
from occlum.bom.document import Bom, Copy, File, Target, targets
from occlum.elf.closure import LibraryError
from occlum.elf.file import ElfError, is_elf
from occlum.errors import Error
from occlum.image.programs import Adder
from occlum.image.tree import ImageError, Tree


@dataclass(frozen=True)
class Copied:
    """What was done. ``stale`` are files of the tree, relative to it, that no BOM names."""

    copied: int
    unchanged: int
    stale: tuple[str, ...]
    problems: tuple[str, ...]


def copy(tree: Tree, boms: list[Bom], progress: Callable[[str, int, int], None]) -> Copied:
    """Do what the files say; raises `BomError` with the exit status that tells the kind."""
    excludes = tuple(pattern for bom in boms for pattern in bom.content.excludes)
    work = _Work(Adder(tree), excludes)
    every = list(targets(boms))
    for done, (bom, number, target) in enumerate(every):
        progress(f"copying to {target.target}", done, len(every))
        work.target(bom, number, target)
    adder = work.adder
    stale = tuple(_stale(tree))
    return Copied(tree.copied, tree.unchanged, stale, tuple(adder.problems))


class _Work:
    def __init__(self, adder: Adder, excludes: tuple[str, ...]) -> None:
        self.adder = adder
        self.tree = adder.tree
        self._excludes = excludes

    def target(self, bom: Bom, number: int, target: Target) -> None:
        place = Path(target.target)
        key = ("targets", number)
        with _told(bom.at(*key), Exit.MAKE_DIRECTORY):
            self.tree.make_directory(place)
        for index, name in enumerate(target.mkdirs):
            with _told(bom.at(*key, "mkdirs", index), Exit.MAKE_DIRECTORY):
                self.tree.make_directory(place / name)
        for index, link in enumerate(target.createlinks):
            with _told(bom.at(*key, "createlinks", index), Exit.LINK):
                self._link(place / link.linkname, link.src)
        for index, each in enumerate(target.copies):
            self._copy(bom, (*key, "copy", index), each, place)

    def _link(self, path: Path, target: str) -> None:
        if not self.tree.link(path, target):
            raise ImageError(
                f"{path} is a directory in the image, so it can't become a link to {target}",
                hint="remove the directory, or the link from the BOM",
            )

    def _copy(self, bom: Bom, key: tuple[str | int, ...], copy: Copy, place: Path) -> None:
        if not copy.dirs and not copy.files:
            self._directory(bom.at(*key), Path(copy.source), place)
        for index, name in enumerate(copy.dirs):
            where = bom.at(*key, "dirs", index)
            for found in self._matching(where, copy.source, name, "directory"):
                only_contents = name.endswith("/")
                self._directory(where, found, place if only_contents else place / found.name)
        for index, file in enumerate(copy.files):
            where = bom.at(*key, "files", index)
            for found in self._matching(where, copy.source, file.name, "file"):
                self._file(where, found, file, place)

    def _matching(self, where: str, source: str, name: str, kind: str) -> list[Path]:
        """The paths that a name means: itself, or what a pattern matches."""
        path = os.path.join(source, name)
        found = [path] if os.path.lexists(path) else sorted(glob.glob(path))
        if not found:
            raise BomError(
                f"{where}: the {kind} {path} is not there",
                hint=f"paths are relative to {Path.cwd()}" if not path.startswith("/") else None,
                exit_status=Exit.MISSING_FILE,
                code="bom-missing",
            )
        return [Path(os.path.normpath(each)) for each in found]

    def _directory(self, where: str, source: Path, place: Path) -> None:
        if not source.is_dir():
            raise BomError(
                f"{where}: {source} is not a directory",
                hint="single files stand under files:",
                exit_status=Exit.MISSING_FILE,
                code="bom-missing",
            )
        with _told(where, Exit.COPY_DIRECTORY):
            self.adder.directory(source.absolute(), place, self._is_wanted)

    def _is_wanted(self, path: Path) -> bool:
        return not any(
            fnmatch.fnmatch(path.name, pattern) or fnmatch.fnmatch(str(path), f"*/{pattern}")
            for pattern in self._excludes
        )

    def _file(self, where: str, source: Path, file: File, place: Path) -> None:
        if not source.is_file():
            raise BomError(
                f"{where}: {source} is not a file",
                hint="directories stand under dirs:",
                exit_status=Exit.MISSING_FILE,
                code="bom-missing",
            )
        if file.hash is not None:
            _check_hash(where, source, file.hash)
        with _told(where, Exit.COPY_FILE):
            real = self.adder.file(source, place / (file.rename or source.name))
        if file.autodep and is_elf(real):
            with _told(where, Exit.LIBRARY):
                self.adder.libraries(real)


@contextmanager
def _told(where: str, status: Exit) -> Iterator[None]:
    """Errors inside are told as those of a line of the BOM, with their own exit status."""
    try:
        yield
    except BomError:
        raise
    except (Error, OSError) as error:
        if isinstance(error, (LibraryError, ElfError)):
            status = Exit.LIBRARY
        raise BomError(
            f"{where}: {error}",
            hint=error.hint if isinstance(error, Error) else None,
            exit_status=status,
            code=f"bom-{status.name.lower().replace('_', '-')}",
        ) from None


def _check_hash(where: str, path: Path, expected: str) -> None:
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        raise BomError(
            f"{where}: {path} has the SHA-256 {got}; expected {expected}",
            hint="take the file that was meant, or correct the hash",
            exit_status=Exit.HASH,
            code="bom-hash",
        )


def _stale(tree: Tree) -> Iterator[str]:
    """Files and links of the tree that nobody named."""
    for base, names, files in os.walk(tree.root):
        links = [name for name in names if os.path.islink(os.path.join(base, name))]
        for name in sorted(files + links):
            path = os.path.join(base, name)
            if path not in tree.places:
                yield os.path.relpath(path, tree.root)

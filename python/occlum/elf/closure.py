"""Which shared libraries a program needs, and where they are on this machine.

The search is the dynamic loader's (ld.so(8)): DT_RPATH of the object and of those that loaded it,
DT_RUNPATH of the object, the directories of ``/etc/ld.so.conf``, the default directories. musl's
loader has directories of its own. LD_LIBRARY_PATH is left out: it would make an image depend on the
shell it was made in.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from occlum.elf.file import Dynamic, ElfError, ElfFile
from occlum.errors import Error

DEFAULT_DIRECTORIES = (
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
)
_MUSL_DIRECTORIES = ("/lib", "/usr/local/lib", "/usr/lib")
_MUSL_LOADER = "ld-musl-"
# musl is one file: the loader answers to all of these names.
_MUSL_LIBC = ("libc.so", "libc.musl-x86_64.so.1")


class LibraryError(Error):
    """A library that something needs is not there."""

    code = "library-missing"


@dataclass(frozen=True)
class Library:
    """A library as the loader finds it. ``path`` may be a symbolic link."""

    name: str
    path: Path
    needed_by: Path


@dataclass(frozen=True)
class _Object:
    """An ELF file in the search, with those that led to it."""

    path: Path
    dynamic: Dynamic
    loaders: tuple[_Object, ...]


def interpreter(path: Path) -> Path | None:
    """The ELF interpreter of a program; None if it is static or a library."""
    with ElfFile(path) as elf:
        named = elf.interpreter
    return Path(named) if named else None


def libraries(
    path: Path, loader: Path | None = None, beside: Mapping[str, Path] | None = None
) -> list[Library]:
    """Every library that ``path`` needs, directly or not; raises `LibraryError`.

    ``loader`` is the ELF interpreter that will load them, where ``path`` itself names none.
    ``beside`` are libraries by name that are taken when the loader's own ways lead nowhere: a
    program that comes as a directory may load them itself, as Java does with libjvm.so.
    """
    loader = interpreter(path) or loader
    is_musl = loader is not None and loader.name.startswith(_MUSL_LOADER)
    search = _Search(is_musl=is_musl, beside=beside or {})
    found: dict[str, Library] = {}
    waiting = deque([_open(path, ())])
    while waiting:
        current = waiting.popleft()
        for name in current.dynamic.needed:
            if name in found or search.is_loader(name):
                continue
            library = search.find(name, current)
            found[name] = library
            waiting.append(_open(library.path, (current, *current.loaders)))
    return list(found.values())


def _open(path: Path, loaders: tuple[_Object, ...]) -> _Object:
    with ElfFile(path) as elf:
        return _Object(path, elf.dynamic, loaders)


class _Search:
    def __init__(self, *, is_musl: bool, beside: Mapping[str, Path]) -> None:
        self._is_musl = is_musl
        self._beside = beside

    def is_loader(self, name: str) -> bool:
        """Whether the name means the loader itself, which is copied as the interpreter."""
        return self._is_musl and name in _MUSL_LIBC

    def find(self, name: str, needed_by: _Object) -> Library:
        if "/" in name:
            candidates = iter([name])
        else:
            candidates = (f"{directory}/{name}" for directory in self._directories(needed_by))
        for candidate in candidates:
            path = Path(os.path.normpath(candidate))
            if _is_library(path):
                return Library(name, path, needed_by.path)
        if name in self._beside:
            return Library(name, self._beside[name], needed_by.path)
        raise LibraryError(
            f"{needed_by.path} needs {name}, which is not on this machine",
            hint=f"install the package that has {name}, or put it into image/usr/lib by hand",
        )

    def _directories(self, needed_by: _Object) -> Iterator[str]:
        if not needed_by.dynamic.runpath:
            for each in (needed_by, *needed_by.loaders):
                if not each.dynamic.runpath:
                    yield from _expand(each, each.dynamic.rpath)
        yield from _expand(needed_by, needed_by.dynamic.runpath)
        if self._is_musl:
            yield from _MUSL_DIRECTORIES
            return
        yield from configured_directories()
        yield from DEFAULT_DIRECTORIES


def _expand(each: _Object, paths: tuple[str, ...]) -> Iterator[str]:
    """The paths with the loader's variables replaced."""
    origin = str(each.path.resolve().parent)
    for path in paths:
        for name, value in (
            ("ORIGIN", origin),
            ("LIB", "lib/x86_64-linux-gnu"),
            ("PLATFORM", "x86_64"),
        ):
            path = path.replace(f"${name}", value).replace(f"${{{name}}}", value)
        yield path


def _is_library(path: Path) -> bool:
    """Whether the loader would take this file: others of the same name are for other machines."""
    if not path.is_file():
        return False
    try:
        with ElfFile(path):
            return True
    except (ElfError, OSError):
        return False


@cache
def configured_directories() -> tuple[str, ...]:
    """Directories in ``/etc/ld.so.conf`` and the files it includes, in their order."""
    return tuple(_read_configuration(Path("/etc/ld.so.conf"), depth=0))


def _read_configuration(path: Path, depth: int) -> Iterator[str]:
    if depth > 8 or not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.partition("#")[0].replace(",", " ").split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                base = Path("/") if pattern.startswith("/") else path.parent
                for included in sorted(base.glob(pattern.lstrip("/"))):
                    yield from _read_configuration(included, depth + 1)
        else:
            yield from (word for word in words if word.startswith("/"))

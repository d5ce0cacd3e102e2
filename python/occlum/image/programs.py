"""``occlum add``: programs of this machine into the image, with everything they need.

For each program: the links that lead to it, its ELF interpreter and shared libraries, what those
open at run time without naming it (`COMPANIONS`), the interpreter of a script, and the standard
library of a language (`occlum.image.runtimes`). Doing it twice copies only what changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from occlum.elf import closure
from occlum.elf.file import ElfFile, is_elf
from occlum.errors import Error
from occlum.image import runtimes
from occlum.image.tree import ImageError, Tree

# Programs from elsewhere are people's own: they go where entry points are.
SYSTEM_DIRECTORIES = ("/bin", "/sbin", "/usr", "/lib", "/lib64", "/opt", "/etc")
OWN_PROGRAMS = Path("/usr/local/bin")

# What a library opens at run time, by the beginning of its name: patterns of files and directories.
COMPANIONS = {
    "libc.so.6": (
        "usr/lib/x86_64-linux-gnu/libnss_files.so.2",
        "usr/lib/x86_64-linux-gnu/libnss_dns.so.2",
        "usr/lib/x86_64-linux-gnu/libgcc_s.so.1",  # pthread_cancel, pthread_exit
        "usr/lib/locale/C.utf8",
    ),
    "libtinfo.so": ("lib/terminfo", "etc/terminfo"),
    "libncurses": ("lib/terminfo",),
    "libssl.so": ("etc/ssl/openssl.cnf", "usr/lib/ssl", "etc/ssl/certs/ca-certificates.crt"),
    "libcrypto.so": ("etc/ssl/openssl.cnf", "usr/lib/x86_64-linux-gnu/ossl-modules"),
}
_MAX_SCRIPT_DEPTH = 4


Progress = Callable[[str, int, int], None]


def _silent(step: str, done: int, total: int) -> None:
    """The progress of work that nobody watches."""


@dataclass(frozen=True)
class Added:
    """What `add` did; ``programs`` are paths in the image, ``problems`` did not stop it."""

    programs: tuple[Path, ...]
    copied: int
    unchanged: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What to bring.

    A program without a slash is looked up in PATH; a directory is copied with the libraries its
    files need. ``python_packages`` are distributions of the current Python environment,
    ``requirements`` files for pip, ``debian`` names of packages.
    """

    programs: tuple[Path, ...] = ()
    python_packages: tuple[str, ...] = ()
    requirements: tuple[Path, ...] = ()
    debian: tuple[str, ...] = ()


def add(image: Path, wanted: Wanted, progress: Progress = _silent) -> Added:
    """Bring what is wanted into ``image``; raises `LibraryError` for a missing library."""
    from occlum.image import debian

    adder = Adder(Tree(image), progress)
    paths = [_find(name) for name in wanted.programs]
    places = [adder.directory(p) if p.is_dir() else adder.program(p) for p in paths]
    if wanted.debian:
        places += map(Path, debian.add(adder, wanted.debian, progress))
    if wanted.python_packages:
        adder.python_packages(wanted.python_packages)
    if wanted.requirements:
        places.append(adder.python_requirements(wanted.requirements))
    tree = adder.tree
    return Added(tuple(places), tree.copied, tree.unchanged, tuple(adder.problems))


@dataclass(frozen=True)
class Completed:
    """What `complete` brought, as paths of this machine, and what it could not find."""

    brought: tuple[Path, ...]
    problems: tuple[str, ...]


def complete(image: Path, files: Iterable[Path]) -> Completed:
    """Bring the loader and libraries of programs that were put into ``image`` by hand.

    ``files`` are ELF files in the image. What the image has already, in any default directory, is
    left as it is. A library that is nowhere is a problem to tell, not an error: the program may
    have its own way to find it.
    """
    adder = Adder(Tree(image))
    brought: list[Path] = []
    problems: list[str] = []
    for file in files:
        try:
            brought += adder.missing_libraries(file)
        except Error as problem:
            problems.append(str(problem).replace(str(image), "image"))
    return Completed(tuple(brought), tuple(problems))


def _find(name: Path) -> Path:
    if len(name.parts) == 1 and not name.exists():
        found = shutil.which(str(name))
        if found is None:
            raise Error(
                f"{name} is not in PATH",
                hint="name the program by its path",
                code="program-missing",
            )
        return Path(found)
    if not name.exists():
        raise Error(
            f"{name} is not there",
            hint="occlum add takes programs of this machine",
            code="program-missing",
        )
    return Path(os.path.abspath(name))


class Adder:
    """Adds to one tree; each file's libraries are looked at once.

    ``problems`` gathers what a directory's files need and nothing has: a directory may hold parts
    that nobody uses, so that is worth telling but stops nothing.
    """

    def __init__(self, tree: Tree, progress: Progress = _silent) -> None:
        self.tree = tree
        self._progress = progress
        self.problems: list[str] = []
        self._seen: set[Path] = set()
        self._loader: Path | None = None
        self._pythons: list[tuple[Path, runtimes.Python]] = []

    def program(self, path: Path, depth: int = 0) -> Path:
        """A program with all it needs; returns its path in the image."""
        if (actual := runtimes.behind_shim(path)) is not None:
            path = actual
        place, real = self._place(path)
        if real in self._seen:
            return place
        self._seen.add(real)
        if is_elf(real):
            self.libraries(real)
        elif (interpreter := _script_interpreter(real)) is not None:
            if depth == _MAX_SCRIPT_DEPTH:
                raise ImageError(f"{path} is a script whose interpreter is a script, and so on")
            for needed in interpreter:
                self.program(needed, depth + 1)
            return place
        self._runtime(path, real)
        return place

    def directory(
        self,
        path: Path,
        to: Path | None = None,
        is_wanted: Callable[[Path], bool] = lambda _: True,
    ) -> Path:
        """A directory as it is, with the libraries that its files need; under ``to`` if given."""
        files = list(self.tree.add_tree(path, is_wanted, to))
        beside = {file.name: file for file in reversed(files)}
        for done, file in enumerate(files):
            self._progress(f"adding {path}", done, len(files))
            if is_elf(file):
                self.optional(file, path.resolve(), beside)
        return to or path

    def optional(
        self, file: Path, root: Path | None = None, beside: dict[str, Path] | None = None
    ) -> None:
        """The libraries of a file that nobody asked for by name; a missing one is a problem."""
        if file in self._seen or not _is_loadable(file):
            return
        self._seen.add(file)
        try:
            self.libraries(file, root, beside)
        except closure.LibraryError as problem:
            self.problems.append(str(problem))

    def file(self, source: Path, target: Path) -> Path:
        """One file to a place of its own, without what it needs; returns where its links end."""
        real = source.resolve()
        self.tree.copy_to(real, target)
        return real

    def _place(self, path: Path) -> tuple[Path, Path]:
        """Copy the program itself: (path in the image, path here at the end of its links)."""
        real = path.resolve()
        if _is_in_system(path) or runtimes.is_interpreter(path, real) or _finds_by_origin(real):
            return path, self.tree.add(path)
        place = OWN_PROGRAMS / path.name
        self.tree.copy_to(real, place)
        return place, real

    def python_packages(self, names: tuple[str, ...]) -> None:
        if not self._pythons:
            raise Error(
                "--python-package needs the Python it is for",
                hint=f"occlum add /usr/bin/python3 --python-package {names[0]}",
                code="usage",
            )
        target = self._pythons[0][1]
        for source, place in runtimes.package_files(target, names):
            self.tree.copy_to(source, place)
            self._file(source)

    def python_requirements(self, files: tuple[Path, ...]) -> Path:
        """What pip installs for these files, for the Python named before or the system's."""
        from occlum.image import requirements

        if not self._pythons:
            self.program(_find(Path("/usr/bin/python3")))
        interpreter, python = self._pythons[0]
        requirements.add(self, interpreter, python, files, self._progress)
        return python.site

    def _file(self, path: Path) -> None:
        """A file that is in the tree already: its libraries, if it is for this machine."""
        if path not in self._seen and is_elf(path) and _is_loadable(path):
            self._seen.add(path)
            self.libraries(path)

    def missing_libraries(self, program: Path) -> list[Path]:
        """Add what a program in the image needs and the image lacks; static ones need nothing."""
        loader = closure.interpreter(program)
        if loader is None:
            return []
        brought = []
        if not self.tree.has(loader) and loader.is_file():
            self.tree.add(loader)
            brought.append(loader)
        for library in closure.libraries(program):
            if self._has_library(library):
                continue
            self.tree.add(library.path)
            self._make_findable(library)
            self._companions(library.name)
            brought.append(library.path)
        return brought

    def _has_library(self, library: closure.Library) -> bool:
        places = (Path(directory) / library.name for directory in closure.DEFAULT_DIRECTORIES)
        is_own = library.path.is_relative_to(self.tree.root)
        return is_own or self.tree.has(library.path) or any(map(self.tree.has, places))

    def libraries(
        self, path: Path, root: Path | None = None, beside: dict[str, Path] | None = None
    ) -> None:
        """The loader and libraries of a file; those under ``root`` are in the image already."""
        loader = closure.interpreter(path)
        if loader is not None:
            self._loader = self._loader or loader
            self.tree.add(loader)
        for library in closure.libraries(path, self._loader, beside):
            if root is not None and library.path.resolve().is_relative_to(root):
                continue
            real = self.tree.add(library.path)
            if real in self._seen:
                continue
            self._seen.add(real)
            self._make_findable(library)
            self._companions(library.name)

    def _make_findable(self, library: closure.Library) -> None:
        """The image has no ld.so.cache: a library of a configured directory gets a link in a
        default one."""
        directory = str(library.path.parent)
        if directory in closure.configured_directories() and (
            directory not in closure.DEFAULT_DIRECTORIES
        ):
            default = Path(closure.DEFAULT_DIRECTORIES[1])
            self.tree.link(default / library.name, str(library.path))

    def _companions(self, name: str) -> None:
        for prefix, patterns in COMPANIONS.items():
            if not name.startswith(prefix):
                continue
            for pattern in patterns:
                self._companion(Path("/") / pattern)

    def _companion(self, path: Path) -> None:
        if path.is_dir():
            self.directory(path)
        elif path.is_file():
            real = self.tree.add(path)
            self._file(real)

    def _runtime(self, path: Path, real: Path) -> None:
        """The standard library of the language that this program runs."""
        runtime = runtimes.of(path, real)
        if runtime is None:
            return
        if isinstance(runtime, runtimes.Python):
            self._pythons.append((path, runtime))
        for directory in runtime.directories:
            for file in self.tree.add_tree(directory, runtime.wants):
                self._file(file)
        for file in runtime.files:
            self.tree.add(file)


def _is_in_system(path: Path) -> bool:
    return any(path.is_relative_to(directory) for directory in SYSTEM_DIRECTORIES)


def _finds_by_origin(path: Path) -> bool:
    """Whether a program finds its libraries by where it stands itself."""
    if not is_elf(path):
        return False
    with ElfFile(path) as elf:
        return any("ORIGIN" in each for each in (*elf.dynamic.rpath, *elf.dynamic.runpath))


def _is_loadable(path: Path) -> bool:
    """Whether an ELF file found in a directory is one for this machine's loader."""
    try:
        with ElfFile(path) as elf:
            return bool(elf.dynamic.needed)
    except Error:
        return False


def _script_interpreter(path: Path) -> list[Path] | None:
    """The programs that a ``#!`` line names; with env(1), also the one it starts."""
    with path.open("rb") as file:
        line = file.read(256).partition(b"\n")[0]
    if not line.startswith(b"#!"):
        return None
    words = line[2:].decode("utf-8", "surrogateescape").split()
    if not words or not Path(words[0]).is_file():
        raise ImageError(
            f"{path} is a script for {words[0] if words else 'no interpreter'}, which is not on "
            "this machine",
            hint="install it, or correct the first line of the script",
            code="interpreter-missing",
        )
    programs = [Path(words[0])]
    if programs[0].name == "env":
        name = next((word for word in words[1:] if not word.startswith("-")), None)
        started = shutil.which(name) if name else None
        if started is None:
            raise ImageError(
                f"{path} is a script for {name}, which is not in PATH", code="interpreter-missing"
            )
        programs.append(Path(started))
    return programs

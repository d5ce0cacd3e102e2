"""Site tables of all ELF files of an image, with a cache from build to build.

The cache is a JSON file in ``build/``: for each path the file's size and mtime at analysis, the
counts, and the table in base64. A cache of another version, or one that can't be read, is ignored:
it only saves time.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from occlum.elf import sites
from occlum.elf.file import ElfError

Progress = Callable[[str, int, int], None]

# Raise when `occlum.elf.sites` would give another table for the same file.
ANALYSIS_VERSION = 3
STEP = "analysing programs"

# Below this many bytes to analyse, starting processes takes longer than they save.
_WORTH_PROCESSES = 4 << 20


@dataclass(frozen=True)
class SiteTable:
    """The table of one file, empty if it has nothing to patch, and its counts."""

    table: bytes
    found: int
    patched: int


@dataclass(frozen=True)
class _Cached:
    size: int
    mtime_ns: int
    table: SiteTable


def tables(
    image: Path, elf_files: Iterable[str], cache: Path, old_cache: Path, progress: Progress
) -> dict[str, SiteTable]:
    """The table of each ELF file, by its path relative to ``image``.

    Unchanged files are taken from ``old_cache``; ``cache`` is written for the next build.
    """
    known = _load(old_cache)
    current: dict[str, _Cached] = {}
    stale: dict[str, os.stat_result] = {}
    for name in elf_files:
        status = (image / name).stat()
        entry = known.get(name)
        if entry and (entry.size, entry.mtime_ns) == (status.st_size, status.st_mtime_ns):
            current[name] = entry
        else:
            stale[name] = status
    for done, (name, table) in enumerate(_analyse_all(image, stale), 1):
        current[name] = _Cached(stale[name].st_size, stale[name].st_mtime_ns, table)
        progress(STEP, done, len(stale))
    _save(cache, current)
    return {name: entry.table for name, entry in sorted(current.items())}


def _analyse_all(image: Path, stale: dict[str, os.stat_result]) -> Iterable[tuple[str, SiteTable]]:
    if sum(status.st_size for status in stale.values()) < _WORTH_PROCESSES or len(stale) < 2:
        for name in stale:
            yield name, _analyse(image / name)
        return
    largest_first = sorted(stale, key=lambda name: -stale[name].st_size)
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        running = {pool.submit(_analyse, image / name): name for name in largest_first}
        for finished in as_completed(running):
            yield running[finished], finished.result()


def _analyse(path: Path) -> SiteTable:
    try:
        analysis = sites.analyse(path)
    except ElfError:
        # Not for this machine, or broken: the kernel will not run it either.
        return SiteTable(b"", 0, 0)
    table = sites.encode(analysis.sites) if analysis.sites else b""
    return SiteTable(table, analysis.found, analysis.patched)


def _load(path: Path) -> dict[str, _Cached]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != ANALYSIS_VERSION:
            return {}
        return {
            name: _Cached(size, mtime, SiteTable(base64.b64decode(table), found, patched))
            for name, (size, mtime, found, patched, table) in stored["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _save(path: Path, entries: dict[str, _Cached]) -> None:
    files = {
        name: [
            entry.size,
            entry.mtime_ns,
            entry.table.found,
            entry.table.patched,
            base64.b64encode(entry.table.table).decode("ascii"),
        ]
        for name, entry in sorted(entries.items())
    }
    path.write_text(json.dumps({"version": ANALYSIS_VERSION, "files": files}), encoding="utf-8")

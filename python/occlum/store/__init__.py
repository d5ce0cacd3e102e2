"""The encrypted store, from outside: for the owner of its key.

`keys` finds keys, `tree` shows image and store as one tree of paths, `fuse` mounts it. The bytes
are ``crates/storage``'s business, described in ``docs/format/store.md``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from occlum._core import Store
from occlum.errors import Error

STORE_FILE = "store.occ"
"""The store's file in the directory that a mount of ``Occlum.json`` names."""

WHITEOUT = 255
"""The type of an entry that hides a name of the layer below."""

ROOT = 1


def open_store(path: Path, key: bytes, *, read_only: bool = True, pin: str | None = None) -> Store:
    """Open the store in the file ``path``. It is never made or changed by opening it."""
    try:
        return Store(os.fspath(path), key, os.urandom(64), read_only=read_only, pin=pin)
    except OSError as error:
        raise _explained(path, error) from None


def format_store(path: Path, key: bytes) -> Store:
    """Make an empty store in the file ``path``, which must not exist."""
    try:
        return Store.format(os.fspath(path), key, os.urandom(64))
    except OSError as error:
        raise _explained(path, error) from None


def copy_store(source: Store, dest: Path, key: bytes, progress: Callable[[int, int], None]) -> None:
    """Make ``dest`` a store with all that ``source`` holds, under ``key``.

    The file appears when it is complete.
    """
    if dest.exists():
        raise Error(f"{dest} exists", hint="name a new file")
    part = dest.with_name(dest.name + ".part")
    part.unlink(missing_ok=True)
    try:
        source.copy_into(format_store(part, key), progress)
        os.link(part, dest)
    finally:
        part.unlink(missing_ok=True)


def _explained(path: Path, error: OSError) -> Error:
    if isinstance(error, FileNotFoundError):
        return Error(f"there is no store {path}")
    if error.errno == 16 or "busy" in str(error):
        return Error(f"the store {path} is in use", hint="occlum stop, or end the program")
    return Error(f"the store {path} can't be opened: {error}")

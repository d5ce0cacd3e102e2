"""An instance: the directory that `occlum new` makes, and what state it is in.

::

    Occlum.json   what the person configures
    image/        the file tree the programs see
    initfs/       the tree of the boot step
    build/        what `occlum build` makes; replaced as a whole
    run/          what belongs to running programs; never deleted by a build

Only the standard library is imported here: `occlum run` starts through this module.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from occlum.errors import Error


class InstanceError(Error):
    """The directory is no instance, or not in the state the command needs."""


class State(StrEnum):
    INITIALIZED = "initialized"
    BUILT = "built"
    RUNNING = "running"


@dataclass(frozen=True)
class Instance:
    """Paths of one instance. The files inside ``build/`` are named by `BuildFiles`."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "Occlum.json"

    @property
    def image(self) -> Path:
        return self.root / "image"

    @property
    def initfs(self) -> Path:
        return self.root / "initfs"

    @property
    def build(self) -> BuildFiles:
        return BuildFiles(self.root / "build")

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def lock(self) -> Path:
        """Held shared by each running program; the kernel drops it when the process is gone."""
        return self.run / "lock"

    def state(self) -> State:
        if self._is_running():
            return State.RUNNING
        return State.BUILT if self.build.is_complete() else State.INITIALIZED

    def hold_lock(self) -> None:
        """Mark the instance as running until this process, or what it becomes by exec, ends."""
        self.run.mkdir(exist_ok=True)
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.set_inheritable(descriptor, True)

    def _is_running(self) -> bool:
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


@dataclass(frozen=True)
class BuildFiles:
    """The files in ``build/``."""

    root: Path

    @property
    def enclave(self) -> Path:
        """The enclave image: a canonical SGXS stream."""
        return self.root / "occlum.sgxs"

    @property
    def sigstruct(self) -> Path:
        return self.root / "occlum.sigstruct"

    @property
    def image(self) -> Path:
        """The hashed file-system image."""
        return self.root / "image.occ"

    @property
    def sites(self) -> Path:
        """Site tables of the image's ELF files, kept for the next build."""
        return self.root / "sites.cache"

    @property
    def record(self) -> Path:
        """What the build was made from; written last."""
        return self.root / "build.json"

    def is_complete(self) -> bool:
        return self.record.is_file() and self.enclave.is_file()


def find(start: Path) -> Instance:
    """The instance that ``start`` is in: the nearest directory upwards with an Occlum.json."""
    for directory in (start, *start.parents):
        if (directory / "Occlum.json").is_file():
            return Instance(directory)
    raise InstanceError(
        f"{start} is not in an Occlum instance (no Occlum.json here or above)",
        hint="occlum new DIR makes one, occlum init makes this directory one",
    )

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
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from occlum.errors import Error

if TYPE_CHECKING:
    from occlum.image.build import BuiltIdentity
CONFIG_NAMES = ("Occlum.json", "Occlum.yaml")


class InstanceError(Error):
    """The directory is no instance, or not in the state the command needs."""

    code = "instance"


class State(StrEnum):
    INITIALIZED = "initialized"
    BUILT = "built"
    RUNNING = "running"


@dataclass(frozen=True)
class Instance:
    """Paths of one instance, and what can be done with it in Python.

    The files inside ``build/`` are named by `BuildFiles`. `occlum.Enclave` starts it.
    """

    root: Path

    @classmethod
    def create(cls, directory: str | Path) -> Instance:
        """Make a new instance in a directory that must not exist yet."""
        from occlum.image import skeleton

        skeleton.create(Path(directory), new=True)
        return cls(Path(directory).absolute())

    @classmethod
    def open(cls, directory: str | Path = ".") -> Instance:
        """The instance that the directory is in; raises `InstanceError` if it is in none."""
        return find(Path(directory).absolute())

    def add(
        self,
        *programs: str | Path,
        python_packages: Sequence[str] = (),
        requirements: Sequence[str | Path] = (),
        debian: Sequence[str] = (),
    ) -> None:
        """Copy programs of this machine into the image, with all they need (``occlum add``).

        ``requirements`` are files for pip, ``debian`` names of packages.
        """
        from occlum.image import programs as image_programs

        wanted = image_programs.Wanted(
            tuple(map(Path, programs)),
            tuple(python_packages),
            tuple(map(Path, requirements)),
            tuple(debian),
        )
        image_programs.add(self.image, wanted)

    def make(
        self, *, sign_key: str | Path | None = None, from_scratch: bool = False
    ) -> BuiltIdentity:
        """Build the enclave (``occlum build``); gives its measurements."""
        from occlum.config import CpuMode
        from occlum.image.build import Request, build

        key = None if sign_key is None else Path(sign_key)
        request = Request(mode=CpuMode.SIMULATION, sign_key=key, from_scratch=from_scratch)
        build(self, request, lambda step, done, total: None)
        return self.identity()

    def identity(self) -> BuiltIdentity:
        """MRENCLAVE and MRSIGNER of the last build."""
        from occlum.image.build import read_identity

        return read_identity(self.build)

    @property
    def config(self) -> Path:
        """``Occlum.json``, or ``Occlum.yaml`` where there is one instead."""
        return next((p for p in self._configs() if p.is_file()), self.root / "Occlum.json")

    def _configs(self) -> list[Path]:
        return [self.root / name for name in CONFIG_NAMES]

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

    @property
    def control(self) -> Path:
        """Directory of the control socket, for the owner only."""
        return self.run / "control"

    @property
    def log(self) -> Path:
        """What the started enclave and programs without a client of their own print."""
        return self.run / "log"

    def state(self) -> State:
        if self._is_running():
            return State.RUNNING
        return State.BUILT if self.build.is_complete() else State.INITIALIZED

    def hold_lock(self) -> int:
        """Mark the instance as running until this process, or what it becomes by exec, ends.

        Gives the descriptor, which children may inherit to hold it too.
        """
        self.run.mkdir(exist_ok=True)
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.set_inheritable(descriptor, True)
        return descriptor

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
        found = [name for name in CONFIG_NAMES if (directory / name).is_file()]
        if len(found) > 1:
            raise InstanceError(
                f"{directory} has both {' and '.join(found)}",
                hint="keep one of them",
                code="instance-two-configs",
            )
        if found:
            return Instance(directory)
    raise InstanceError(
        f"{start} is not in an Occlum instance (no Occlum.json here or above)",
        hint="occlum new DIR makes one, occlum init makes this directory one",
    )

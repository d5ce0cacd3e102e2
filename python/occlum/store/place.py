"""Where the image and the store are that a person means, opened as one `Tree`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from occlum import instance
from occlum._core import Image, Store
from occlum.errors import Error, VerificationError
from occlum.store import STORE_FILE, keys, open_store
from occlum.store.tree import Tree


@dataclass(frozen=True)
class Place:
    """What was said on the command line. Nothing said: image and store of the instance here."""

    image: Path | None = None
    store: Path | None = None
    key: Path | None = None
    pin: str | None = None

    def open(self, *, read_only: bool = True) -> tuple[Store | None, Image | None]:
        """The store and the image, as far as they are there."""
        if self.image is None and self.store is None:
            return self._of_instance(read_only)
        store = None if self.store is None else self._open_store(self.store, read_only)
        return store, None if self.image is None else Image(str(self.image))

    def tree(self, *, read_only: bool = True) -> Tree:
        return Tree(*self.open(read_only=read_only))

    def only_store(self) -> Store:
        """The store, which must be there, for reading."""
        store, _ = self.open()
        if store is None:
            raise Error("there is no store yet", hint="occlum run makes it")
        return store

    def _of_instance(self, read_only: bool) -> tuple[Store | None, Image | None]:
        here = instance.find(Path.cwd())
        if not here.build.is_complete():
            raise Error(f"{here.root} is not built", hint="occlum build, or --image, --store")
        path = root_store(here)
        store = self._open_store(path, read_only) if path.exists() else None
        return store, Image(str(here.build.image))

    def _open_store(self, path: Path, read_only: bool) -> Store:
        if self.key is not None:
            return open_store(path, keys.read(self.key), read_only=read_only, pin=self.pin)
        here = instance.find(Path.cwd())
        try:
            return open_store(path, keys.sealed(here), read_only=read_only, pin=self.pin)
        except VerificationError as error:
            # The other policy of the sealing key.
            try:
                key = keys.sealed(here, mrenclave=True)
                return open_store(path, key, read_only=read_only, pin=self.pin)
            except VerificationError:
                raise error from None


def root_store(here: instance.Instance) -> Path:
    """The store of the root file system."""
    return here.run / "mount" / "__ROOT" / STORE_FILE

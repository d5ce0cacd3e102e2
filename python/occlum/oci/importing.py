"""``occlum import``: a container image becomes ``image/``, and its settings the configuration.

Everything is unpacked beside ``image/`` and takes its place at the end, when every digest has been
verified; a failure leaves the instance as it was.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from occlum import config
from occlum.config import edit
from occlum.config.document import Json, Key
from occlum.image import skeleton
from occlum.instance import Instance
from occlum.oci import OciError
from occlum.oci.archive import Image, Layer, Settings, find
from occlum.oci.blobs import Blobs, check_digest, open_blobs
from occlum.oci.layers import Root

Progress = Callable[[str, int, int], None]
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Imported:
    """``command`` is what the image starts; ``notes`` are worth a person's attention."""

    command: tuple[str, ...]
    notes: tuple[str, ...]


def import_image(
    instance: Instance, source: Path, reference: str | None, progress: Progress, replace: bool
) -> Imported:
    """Make ``image/`` what the container image holds."""
    if not replace and not skeleton.is_untouched(instance.image):
        raise OciError(
            f"{instance.image} holds files that occlum new did not put there",
            hint="--replace puts the container image in their place",
            code="oci-replace",
        )
    blobs = open_blobs(source)
    image = find(blobs, reference)
    staging = Path(tempfile.mkdtemp(prefix=".import-", dir=instance.root))
    try:
        left_out = _unpack(blobs, image, staging, progress)
        skeleton.add_mount_points(staging)
        _take_the_place(staging, instance.image)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    command = _write_settings(instance, image.settings)
    return Imported(command, (*left_out, *_notes(instance, image.settings)))


def _unpack(blobs: Blobs, image: Image, staging: Path, progress: Progress) -> tuple[str, ...]:
    staging.chmod(0o755)
    root = Root(staging)
    for number, layer in enumerate(image.layers):
        progress("unpacking layers", number, len(image.layers))
        _apply(blobs, layer, root)
    root.finish()
    progress("unpacking layers", len(image.layers), len(image.layers))
    return tuple(f"left out: {count} files of kind {k}" for k, count in root.left_out.items())


def _apply(blobs: Blobs, layer: Layer, root: Root) -> None:
    with blobs.open(layer.blob) as raw:
        stored = _Hashing(raw)
        with _decompressed(stored) as plain:
            content = _Hashing(plain)
            try:
                root.apply(content)
                content.drain()
            except (OSError, EOFError, zlib.error) as problem:
                raise OciError(f"the layer {layer.blob} can't be read: {problem}") from None
        stored.drain()
    if layer.digest is not None:
        check_digest(f"the layer {layer.blob}", stored.hexdigest(), layer.digest)
    check_digest(f"the content of the layer {layer.blob}", content.hexdigest(), layer.diff_id)


class _Hashing:
    """A readable stream that hashes what is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._ahead = b""

    def read(self, size: int = -1) -> bytes:
        if self._ahead:
            size = len(self._ahead) if size < 0 else size
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        data = self._stream.read(size)
        self._hash.update(data)
        return data

    def peek(self, size: int) -> bytes:
        self._ahead = self.read(size)
        return self._ahead

    def drain(self) -> None:
        while self.read(1 << 20):
            pass

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def _decompressed(stream: _Hashing) -> Iterator[Any]:
    head = stream.peek(4)
    if head.startswith(_GZIP):
        with gzip.GzipFile(fileobj=stream, mode="rb") as plain:  # type: ignore[call-overload]
            yield plain
    elif head == _ZSTD:
        with _zstd(stream) as plain:
            yield plain
    else:
        yield stream


@contextmanager
def _zstd(stream: _Hashing) -> Iterator[IO[bytes]]:
    program = shutil.which("zstd")
    if program is None:
        raise OciError(
            "a layer is compressed with zstd, which is not installed",
            hint="apt install zstd",
            code="oci-zstd",
        )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([program, "-dcq"], **pipes) as process:  # type: ignore[call-overload]
        feeder = threading.Thread(target=_feed, args=(stream, process.stdin), daemon=True)
        feeder.start()
        try:
            yield process.stdout
        finally:
            process.stdout.close()
            if process.poll() is None and feeder.is_alive():
                process.kill()
            feeder.join()
        if process.wait() != 0:
            raise OciError("a layer is compressed with zstd and damaged")


def _feed(stream: _Hashing, pipe: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        while data := stream.read(1 << 18):
            pipe.write(data)


def _take_the_place(staging: Path, image: Path) -> None:
    old = image.with_name(".image.old")
    shutil.rmtree(old, ignore_errors=True)
    if image.exists():
        image.rename(old)
    staging.rename(image)
    shutil.rmtree(old, ignore_errors=True)


def _write_settings(instance: Instance, settings: Settings) -> tuple[str, ...]:
    """Environment and entry point into the configuration; returns the command to run."""
    root = Root(instance.image)
    command = settings.entrypoint + settings.command
    path = _search_path(settings)
    if command and not command[0].startswith("/"):
        found = _which(root, command[0], path)
        command = (found or command[0], *command[1:])
    document = config.effective(instance.config)
    changes: dict[Key, Json] = {}
    environment = _merged(edit.get(document, ("env", "default")), settings.environment)
    changes["env", "default"] = environment
    allowed = edit.get(document, ("entry_points",))
    assert isinstance(allowed, list), "the configuration was checked"
    if command and not any(_is_below(command[0], str(each)) for each in allowed):
        changes["entry_points",] = [*allowed, command[0]]
    text = instance.config.read_text(encoding="utf-8")
    for key, value in changes.items():
        text = edit.set_text(text, instance.config.name, key, value)
    config.replace_checked(instance.config, text)
    return command


def _merged(there: Json, new: tuple[str, ...]) -> Json:
    """The image's variables over those that are there."""
    assert isinstance(there, list), "the configuration was checked"
    variables = {str(each).partition("=")[0]: each for each in there}
    for each in new:
        name = each.partition("=")[0]
        if name and "=" in each:
            variables[name] = each
    return list(variables.values())


def _search_path(settings: Settings) -> list[str]:
    for each in settings.environment:
        if each.startswith("PATH="):
            return [part for part in each[5:].split(":") if part.startswith("/")]
    return ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]


def _which(root: Root, name: str, path: list[str]) -> str | None:
    for directory in path:
        place = root.place([*(p for p in directory.split("/") if p not in ("", ".")), name])
        if os.path.isfile(place):
            return f"{directory.rstrip('/')}/{name}"
    return None


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


def _notes(instance: Instance, settings: Settings) -> Iterator[str]:
    if settings.directory not in ("", "/"):
        yield (
            f"the image wants to start in {settings.directory}; programs start in / "
            f"(env -C {settings.directory} PROG, if the image has env)"
        )
    if settings.user not in ("", "0", "root"):
        yield f"the image wants to run as {settings.user}; programs start as root of the enclave"
    if not settings.entrypoint and not settings.command:
        yield "the image names no program to start"

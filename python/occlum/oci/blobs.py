"""Where an image's blobs are: a directory, or a tar archive of the same layout."""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import stat
import tarfile
from pathlib import Path
from typing import IO, Any, Protocol

from occlum.oci import OciError

MAX_DOCUMENT = 16 << 20
"""Bytes; manifests and configurations are small, a larger one is an attack."""
_MAX_LINKS = 8


class Blobs(Protocol):
    """Named byte streams."""

    def has(self, name: str) -> bool: ...

    def open(self, name: str) -> IO[bytes]: ...


def open_blobs(path: Path) -> Blobs:
    """The blobs of a layout directory or an archive file."""
    if path.is_dir():
        return Directory(path)
    try:
        return Archive(tarfile.open(path))
    except FileNotFoundError:
        raise OciError(f"{path} is not there", code="oci-missing") from None
    except (OSError, tarfile.TarError, EOFError) as problem:
        raise OciError(
            f"{path} is no tar archive: {problem}",
            hint="occlum import takes what docker save, skopeo and umoci write",
        ) from None


class Directory:
    """An OCI layout as a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, name: str) -> bool:
        return (self._root / _checked(name)).is_file()

    def open(self, name: str) -> IO[bytes]:
        try:
            descriptor = os.open(self._root / _checked(name), os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as problem:
            raise OciError(f"{name} can't be read: {problem.strerror}") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OciError(f"{name} is not a regular file")
        return os.fdopen(descriptor, "rb")


class Archive:
    """The same in a tar archive; a member may be a link to another one, as docker writes them."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        try:
            self._members = {posixpath.normpath(each.name): each for each in tar}
        except (OSError, tarfile.TarError, EOFError, ValueError) as problem:
            raise OciError(f"the archive is broken: {problem}") from None

    def has(self, name: str) -> bool:
        return self._member(name) is not None

    def open(self, name: str) -> IO[bytes]:
        member = self._member(name)
        stream = self._tar.extractfile(member) if member is not None else None
        if stream is None:
            raise OciError(f"the archive has no file {name}")
        return stream

    def _member(self, name: str) -> tarfile.TarInfo | None:
        for _ in range(_MAX_LINKS):
            member = self._members.get(_checked(name))
            if member is None or member.isfile():
                return member
            if member.issym():
                name = posixpath.join(posixpath.dirname(name), member.linkname)
            elif member.islnk():
                name = member.linkname
            else:
                return None
        return None


def _checked(name: str) -> str:
    clean = posixpath.normpath(name)
    if not name or "\0" in name or clean.startswith(("/", "..")):
        raise OciError(f"the image names a blob outside of itself: {name!r}")
    return clean


def read_json(blobs: Blobs, name: str, digest: str | None = None) -> Any:
    """A JSON document, with its digest verified if one is given."""
    with blobs.open(name) as stream:
        data = stream.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise OciError(f"{name} is larger than {MAX_DOCUMENT} bytes")
    if digest is not None:
        check_digest(name, hashlib.sha256(data).hexdigest(), digest)
    try:
        return json.load(io.BytesIO(data))
    except (ValueError, RecursionError) as problem:
        raise OciError(f"{name} is no JSON: {problem}") from None


def check_digest(name: str, got: str, expected: str) -> None:
    """Raises `OciError` where content is not what its digest promises."""
    if f"sha256:{got}" != expected:
        raise OciError(
            f"{name} has the digest sha256:{got}; expected {expected}",
            hint="the image was changed or damaged on its way; get it again",
            code="oci-digest",
        )

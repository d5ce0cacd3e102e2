"""A layer, which is a tar archive of changes, unpacked over what the layers below it left.

Names in a layer are its author's: each is resolved part by part inside the root, links included, so
nothing is written, linked or removed outside of it. ``.wh.NAME`` removes NAME, ``.wh..wh..opq``
empties a directory of what lower layers put there. Owners are not kept (the image has none),
devices are left out, and hard links become real ones.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import IO, Any

from occlum.oci import OciError

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MAX_LINKS = 40
_MAX_ENTRIES = 5_000_000
_MAX_NAME = 4096


class Root:
    """The directory that layers are unpacked into."""

    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root.resolve())
        self.left_out: dict[str, int] = {}
        self._modes: dict[str, tuple[int, float]] = {}
        self._entries = 0

    def apply(self, stream: Any) -> None:
        """Unpack one layer; the stream is read to the end of the archive."""
        fresh: set[str] = set()
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    self._entries += 1
                    if self._entries > _MAX_ENTRIES:
                        raise OciError(f"the image has more than {_MAX_ENTRIES} files")
                    self._member(tar, member, fresh)
                    # Else all of them stay in memory.
                    tar.members = []  # type: ignore[attr-defined]
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as problem:
            raise OciError(f"a layer is a broken archive: {problem}") from None
        except OSError as problem:
            raise OciError(
                f"a layer can't be unpacked: {problem.strerror or problem}: {problem.filename}",
                code="oci-write",
            ) from None

    def finish(self) -> None:
        """Give directories their modes and times, when nothing is written any more."""
        for path in sorted(self._modes, reverse=True):
            if _is_directory(path):
                mode, when = self._modes[path]
                os.chmod(path, mode)
                os.utime(path, (when, when))

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo, fresh: set[str]) -> None:
        parts = _parts(member.name)
        if not parts:
            return  # The root itself.
        name = parts[-1]
        if name.startswith(_WHITEOUT):
            self._whiteout(parts[:-1], name, fresh)
            return
        parent = self.place(parts[:-1])
        self._make_parents(parent, fresh)
        path = os.path.join(parent, name)
        self._put(tar, member, path, fresh)
        while path != self.root and path not in fresh:
            fresh.add(path)
            path = os.path.dirname(path)

    def _put(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, fresh: set[str]
    ) -> None:
        if member.isdir():
            self._directory(path, member)
        elif member.isfile():
            _clear(path)
            source = tar.extractfile(member)
            assert source is not None, "a regular member has content"
            self._file(path, source, member)
        elif member.issym():
            _clear(path)
            os.symlink(_target(member), path)
        elif member.islnk():
            self._hard_link(path, member)
        else:
            kind = "device" if member.isdev() else "unknown"
            self.left_out[kind] = self.left_out.get(kind, 0) + 1

    def _directory(self, path: str, member: tarfile.TarInfo) -> None:
        if not _is_directory(path):
            _clear(path)
            os.mkdir(path, 0o700)
        self._modes[path] = (member.mode & 0o7777, _time(member))

    def _file(self, path: str, source: IO[bytes], member: tarfile.TarInfo) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            os.fchmod(target.fileno(), member.mode & 0o7777)
        os.utime(path, (_time(member), _time(member)))

    def _hard_link(self, path: str, member: tarfile.TarInfo) -> None:
        parts = _parts(member.linkname)
        if not parts:
            raise OciError(f"the layer links {member.name!r} to the root")
        source = os.path.join(self.place(parts[:-1]), parts[-1])
        if source == path:
            return
        if not os.path.lexists(source) or _is_directory(source):
            raise OciError(f"the layer links {member.name!r} to {member.linkname!r}, not a file")
        _clear(path)
        os.link(source, path, follow_symlinks=False)

    def _whiteout(self, parents: list[str], name: str, fresh: set[str]) -> None:
        directory = self.place(parents)
        if not os.path.isdir(directory):
            return
        if name == _OPAQUE:
            for entry in os.listdir(directory):
                _hide(os.path.join(directory, entry), fresh)
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise OciError(f"the layer has a whiteout of {hidden!r}")
        if not hidden.startswith(_WHITEOUT):
            _hide(os.path.join(directory, hidden), fresh)

    def _make_parents(self, path: str, fresh: set[str]) -> None:
        """Directories that the layer took for granted; a file in their way gives way."""
        below = path[len(self.root) :].split("/")[1:]
        at = self.root
        for part in below:
            at = os.path.join(at, part)
            if not os.path.isdir(at):
                _clear(at)
                os.mkdir(at, 0o755)
                fresh.add(at)

    def place(self, parts: list[str]) -> str:
        """Where a directory is, with links followed as if the root were the real one."""
        waiting = parts[::-1]
        at: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                at = at[:-1]
                continue
            here = os.path.join(self.root, *at, part)
            if not os.path.islink(here):
                at.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OciError(f"the layer goes through a loop of links at {'/'.join(parts)!r}")
            target = os.readlink(here)
            if target.startswith("/"):
                at = []
            waiting += [each for each in target.split("/") if each not in ("", ".")][::-1]
        return os.path.join(self.root, *at)


def _hide(path: str, fresh: set[str]) -> None:
    """Remove what lower layers put there and keep what this one did."""
    if path not in fresh:
        _clear(path)
    elif _is_directory(path):
        for entry in os.listdir(path):
            _hide(os.path.join(path, entry), fresh)


def _parts(name: str) -> list[str]:
    """The parts of a name; one that climbs is refused rather than guessed at."""
    parts = [each for each in name.split("/") if each not in ("", ".")]
    if ".." in parts or "\0" in name or len(name) > _MAX_NAME:
        raise OciError(
            f"the layer has a file with the name {name[:100]!r}, which leads out of the image",
            code="oci-hostile",
        )
    return parts


def _target(member: tarfile.TarInfo) -> str:
    if not member.linkname or "\0" in member.linkname or len(member.linkname) > _MAX_NAME:
        raise OciError(f"the layer has a link {member.name!r} without a usable target")
    return member.linkname


def _time(member: tarfile.TarInfo) -> float:
    return min(max(float(member.mtime), 0.0), float(1 << 33))


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _clear(path: str) -> None:
    """Remove what is there, without following a link."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

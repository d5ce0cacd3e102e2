"""``occlum package``: what running needs, in one archive.

The archive holds the instance without its sources: configuration, ``build/`` without caches, a
``run/`` with a place for each store but no data. Where our runtime is installed, ``tar xf
NAME.tar.gz``, ``cd NAME`` and ``occlum run`` is all. The same build gives the same archive.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from occlum import config
from occlum._core import ATTRIBUTE_DEBUG, SigStruct
from occlum.errors import Error
from occlum.instance import Instance

# Of use for the next build only.
_CACHES = ("sites.cache", ".manifest")


class PackageError(Error):
    """The instance can't be packaged as asked."""

    code = "package"


def package(
    instance: Instance, target: Path, progress: Callable[[str, int, int], None], *, debug: bool
) -> int:
    """Write the archive, whole or not at all; returns its size."""
    if not instance.build.is_complete():
        raise PackageError(f"{instance.root} is not built", hint="occlum build", code="not-built")
    if not debug and (why := _why_no_release(instance)):
        raise PackageError(
            f"this build is no release: {why}",
            hint="--debug packages it all the same",
            code="package-debug",
        )
    name = target.name.removesuffix(".tar.gz")
    files = list(_files(instance))
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _write(staging, instance, name, files, progress)
        staging.replace(target)
    except OSError as problem:
        raise PackageError(
            f"{target} can't be written: {problem.strerror}", code="package-write"
        ) from None
    finally:
        staging.unlink(missing_ok=True)
    return target.stat().st_size


def _why_no_release(instance: Instance) -> str | None:
    try:
        mode = json.loads(instance.build.record.read_text(encoding="ascii")).get("mode")
    except ValueError:
        mode = None
    if mode != "HW":
        return "it is for the simulated CPU, which keeps no secret from the host"
    sigstruct = SigStruct.parse(instance.build.sigstruct.read_bytes())
    if sigstruct.attributes & ATTRIBUTE_DEBUG:
        return "metadata.debuggable is true, so a debugger can look inside"
    return None


def _files(instance: Instance) -> Iterator[Path]:
    yield instance.config
    for path in sorted(instance.build.root.rglob("*")):
        if path.is_file() and not path.name.endswith(_CACHES):
            yield path


def _write(
    staging: Path,
    instance: Instance,
    name: str,
    files: list[Path],
    progress: Callable[[str, int, int], None],
) -> None:
    with (
        staging.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for number, path in enumerate(files):
            progress("packaging", number, len(files))
            info = archive.gettarinfo(path, f"{name}/{path.relative_to(instance.root)}")
            with path.open("rb") as file:
                archive.addfile(_plain(info), file)
        for directory in _empty_directories(instance):
            run = tarfile.TarInfo(f"{name}/{directory}")
            run.type, run.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(run)
        _readme(archive, name)


def _empty_directories(instance: Instance) -> list[str]:
    """``run`` and the places of stores inside the instance."""
    sources = (store.source or "" for store in config.stores(config.load(instance.config)))
    inside = (os.path.normpath(source) for source in sources if not os.path.isabs(source))
    return ["run", *sorted(path for path in inside if not path.startswith(".."))]


def _readme(archive: tarfile.TarFile, name: str) -> None:
    text = "An Occlum instance, built and signed. To run a program: cd %s; occlum run /bin/PROG\n"
    data = (text % name).encode()
    info = tarfile.TarInfo(f"{name}/README")
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and clock, so that the archive depends on nothing but the build."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    info.mode = 0o644
    return info

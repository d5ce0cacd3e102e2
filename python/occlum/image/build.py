"""``occlum build``: from an instance's configuration and image to what `occlum run` loads.

::

    Occlum.json --> Config ------------------------------+
    image/ --> site tables --> image.occ --> root hash --+--> boot configuration
                                                             + kernel ELF --> occlum.sgxs, MRENCLAVE
                                                             + key --------> occlum.sigstruct

Everything is made in ``build.next/`` and takes the place of ``build/`` in one step at the end, so
that a failure changes nothing and a running program keeps what it has open. What did not change is
taken over from the last build; ``run/`` is never touched.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from occlum import config, toolchain
from occlum._core import SigStruct, encode_boot_config
from occlum.config import Config, CpuMode, ForkCopies
from occlum.errors import Error
from occlum.image import fsimage, programs, sites
from occlum.image.enclave import build_enclave
from occlum.image.sites import Progress
from occlum.instance import BuildFiles, Instance
from occlum.sign import Feature, Identity, Signer, mrsigner, sign_enclave, signer

RECORD_VERSION = 1
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True)
class Request:
    """What the person asked for."""

    mode: CpuMode = CpuMode.SIMULATION
    sign_key: Path | None = None
    sign_tool: Path | None = None
    from_scratch: bool = False
    fork_copies: ForkCopies = ForkCopies.ON_WRITE


@dataclass(frozen=True)
class Outcome:
    """What was built. ``notes`` are worth a person's attention."""

    mrenclave: bytes
    is_unchanged: bool
    notes: tuple[str, ...] = ()


def build(instance: Instance, request: Request, progress: Progress) -> Outcome:
    """Build the instance."""
    if request.mode is CpuMode.HARDWARE:
        raise Error(
            "this version runs enclaves on the simulated CPU only, not on SGX hardware",
            hint="occlum build --sgx-mode SIM",
            code="mode-unsupported",
        )
    settings = config.load(instance.config)
    if not instance.image.is_dir():
        raise Error(
            f"{instance.image} is not there",
            hint="occlum new makes a fresh instance",
            code="instance",
        )
    key = _signer(request, settings)
    for store in config.stores(settings):
        (instance.root / (store.source or "")).mkdir(parents=True, exist_ok=True)
    with _staging(instance, request) as staging:
        image_root, brought = _build_image(instance, staging, request, progress)
        boot_config = config.to_boot_json(
            settings, request.mode, image_root, request.fork_copies
        )
        record = _record(boot_config, settings, key)
        mrenclave = _unchanged(instance.build, record)
        if mrenclave is not None and not request.from_scratch:
            return Outcome(mrenclave, is_unchanged=True)
        mrenclave = _build_enclave(staging, settings, boot_config, key)
        record["mrenclave"] = mrenclave.hex()
        record["mode"] = request.mode.value
        staging.record.write_text(json.dumps(record, indent=1) + "\n", encoding="ascii")
        _switch(staging.root, instance.build.root)
    return Outcome(
        mrenclave, is_unchanged=False, notes=(*((key.note,) if key.note else ()), *brought)
    )


@dataclass(frozen=True)
class BuiltIdentity:
    mrenclave: bytes
    mrsigner: bytes


def read_identity(files: BuildFiles) -> BuiltIdentity:
    """The identity that the SIGSTRUCT of a build states; its signature is verified."""
    if not files.is_complete():
        raise Error(f"{files.root.parent} is not built", hint="occlum build", code="not-built")
    sigstruct = SigStruct.parse(files.sigstruct.read_bytes())
    sigstruct.verify()
    return BuiltIdentity(sigstruct.mrenclave, sigstruct.mrsigner)


@contextmanager
def _staging(instance: Instance, request: Request) -> Iterator[BuildFiles]:
    """The directory the build is made in, alone; it is gone afterwards."""
    instance.run.mkdir(exist_ok=True)
    staging = BuildFiles(instance.root / "build.next")
    with (instance.run / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Error(
                f"another build of {instance.root} is under way", code="build-busy"
            ) from None
        shutil.rmtree(staging.root, ignore_errors=True)
        try:
            staging.root.mkdir()
            yield staging
        finally:
            shutil.rmtree(staging.root, ignore_errors=True)


def _build_image(
    instance: Instance, staging: BuildFiles, request: Request, progress: Progress
) -> tuple[bytes, tuple[str, ...]]:
    """The file-system image; returns its root hash, and what is worth telling."""
    old = instance.build
    tag = b"sites %d" % sites.ANALYSIS_VERSION
    scan = fsimage.scan(instance.image)
    if not request.from_scratch:
        for name in (old.image.name, f"{old.image.name}.manifest", old.sites.name):
            if (old.root / name).is_file():
                os.link(old.root / name, staging.root / name)
        if (info := scan.up_to_date(staging.image, tag)) is not None:
            return info.root_hash, ()
    notes = _complete(instance, scan)
    if notes:
        scan = fsimage.scan(instance.image)
    previous = Path(os.devnull) if request.from_scratch else old.sites
    staging.sites.unlink(missing_ok=True)
    names = [file.path for file in scan.elf_files()]
    tables = sites.tables(instance.image, names, staging.sites, previous, progress)
    info = scan.write(
        staging.image,
        sites={name: table.table for name, table in tables.items() if table.table},
        tag=tag,
        progress=lambda done, total: progress("building the image", done, total),
    )
    return info.root_hash, notes


def _complete(instance: Instance, scan: fsimage.Scan) -> tuple[str, ...]:
    """Bring the libraries of programs that were copied into the image without them."""
    files = [instance.image / file.path for file in scan.elf_files()]
    completed = programs.complete(instance.image, files)
    notes = list(completed.problems)
    if completed.brought:
        names = ", ".join(path.name for path in completed.brought)
        notes.insert(0, f"copied into image/ because programs there need it: {names}")
    return tuple(notes)


def _build_enclave(staging: BuildFiles, settings: Config, boot_config: str, key: Signer) -> bytes:
    """The enclave image and its SIGSTRUCT; returns MRENCLAVE."""
    enclave = build_enclave(
        toolchain.kernel(), encode_boot_config(boot_config), config.vcpus(settings)
    )
    staging.enclave.write_bytes(enclave.stream)
    sigstruct = sign_enclave(enclave.mrenclave, _identity(settings), key)
    staging.sigstruct.write_bytes(sigstruct)
    return enclave.mrenclave


def _identity(settings: Config) -> Identity:
    metadata, feature = settings.metadata, settings.feature
    pkru = metadata.pkru if metadata.pkru is not None else feature.pkru
    return Identity(
        product_id=metadata.product_id,
        version_number=metadata.version_number,
        debuggable=metadata.debuggable,
        enable_kss=metadata.enable_kss,
        family_id=metadata.family_id.value,
        ext_prod_id=metadata.ext_prod_id.value,
        pkru=Feature(pkru),
        amx=Feature(feature.amx),
    )


def _record(boot_config: str, settings: Config, key: Signer) -> dict[str, str | int]:
    """What a build was made from; equal records make equal builds."""

    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    return {
        "version": RECORD_VERSION,
        "boot_config": digest(boot_config.encode()),
        "identity": digest(repr(_identity(settings)).encode()),
        "kernel": digest(toolchain.kernel().read_bytes()),
        "mrsigner": mrsigner(key.public_key).hex(),
    }


def _unchanged(files: BuildFiles, record: dict[str, str | int]) -> bytes | None:
    """MRENCLAVE of the last build, if it was made from the same."""
    if not files.is_complete() or not files.sigstruct.is_file() or not files.image.is_file():
        return None
    try:
        last = json.loads(files.record.read_text(encoding="ascii"))
        mrenclave = bytes.fromhex(last.pop("mrenclave"))
        last.pop("mode")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return mrenclave if last == record else None


def _signer(request: Request, settings: Config) -> Signer:
    """Who signs; a release is never signed with a debug key."""
    chosen = signer(request.sign_key, request.sign_tool)
    if chosen.is_debug and not settings.metadata.debuggable:
        raise Error(
            "metadata.debuggable is false, and a release is not signed with a debug key",
            hint="--sign-key KEY.pem; openssl genrsa -3 -out KEY.pem 3072 makes one",
            code="release-debug-key",
        )
    return chosen


def _switch(new: Path, current: Path) -> None:
    """Put ``new`` in the place of ``current``; afterwards ``new`` holds what was there."""
    current.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(
        _AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(current), _RENAME_EXCHANGE
    )
    if done != 0:
        # A file system without the exchange (NFS, some FUSE): two steps, the second at once.
        aside = new.with_name("build.old")
        shutil.rmtree(aside, ignore_errors=True)
        current.rename(aside)
        new.rename(current)
        shutil.rmtree(aside, ignore_errors=True)

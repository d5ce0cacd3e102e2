"""The configuration as the kernel gets it: JSON of ``occlum_abi::boot::BootConfig``.

The field names and variants are those of ``crates/abi/src/boot.rs``; ``occlum._core`` turns the
JSON into the measured bytes and refuses what the kernel would not understand.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TypedDict

from occlum import _core
from occlum.config.model import AutokeyPolicy, Config, Loopback, Mount, MountType


class CpuMode(StrEnum):
    """Which CPU an enclave image is for; the value is what ``SGX_MODE`` says."""

    SIMULATION = "SIM"
    HARDWARE = "HW"


class ForkCopies(StrEnum):
    """When a forked child gets memory of its own; the value is the kernel's name for it."""

    ON_WRITE = "OnWrite"
    AT_ONCE = "AtOnce"


class BootStore(TypedDict):
    """``occlum_abi::boot::StoreMount``."""

    source: str
    policy: str
    size_limit: int
    is_read_only: bool
    pin: str


class BootMount(TypedDict):
    target: str
    kind: (
        str
        | dict[str, dict[str, int]]
        | dict[str, dict[str, str]]
        | dict[str, dict[str, BootStore]]
    )


def vcpus(config: Config) -> int:
    """Virtual CPUs the image has room for: ``init_num_of_threads``, which used to count TCSs."""
    return min(config.resource_limits.init_num_of_threads, _core.MAX_VCPUS)


def to_boot_json(
    config: Config,
    mode: CpuMode,
    image_root: bytes,
    fork_copies: ForkCopies = ForkCopies.ON_WRITE,
) -> str:
    """``BootConfig`` as JSON; ``image_root`` is the 32-byte root hash of the image."""
    limits = config.resource_limits
    return json.dumps(
        {
            "version": _core.BOOT_CONFIG_VERSION,
            "cpu_mode": "Simulation" if mode is CpuMode.SIMULATION else "Hardware",
            "vcpus": vcpus(config),
            "resource_limits": {
                "user_space_size": limits.user_space_limit,
                "kernel_heap_size": limits.kernel_heap_limit,
                "kernel_stack_size": limits.kernel_space_stack_size,
                "max_threads": limits.max_num_of_threads,
            },
            "process": {
                "stack_size": config.process.default_stack_size,
                "heap_size": config.process.default_heap_size,
            },
            "entry_points": list(config.entry_points),
            "env": {
                "default": list(config.env.default),
                "untrusted": list(config.env.untrusted),
            },
            "debuggable": config.metadata.debuggable,
            "disable_log": config.metadata.disable_log,
            "mounts": _mounts(config.mount),
            "image_root": list(image_root),
            "fork_copies": fork_copies.value,
            "network": _network(config),
            "page_cache_size": _page_cache_size(config.mount),
        }
    )


def _network(config: Config) -> dict[str, object]:
    network = config.network
    return {
        "outside": network.outside,
        "host_loopback": network.loopback is Loopback.HOST,
        "publish": "All" if network.publish == "all" else {"These": list(network.publish)},
        "io_uring": config.feature.io_uring,
    }


def _mounts(mounts: tuple[Mount, ...]) -> list[BootMount]:
    """Parents before children; /dev and /proc are always there."""
    converted = {mount.target: _mount(mount) for mount in mounts}
    converted.setdefault("/proc", {"target": "/proc", "kind": "Procfs"})
    converted.setdefault("/dev", {"target": "/dev", "kind": "Devfs"})
    return [converted[target] for target in sorted(converted)]


def _mount(mount: Mount) -> BootMount:
    match mount.type:
        case MountType.HOSTFS:
            return {"target": mount.target, "kind": {"Hostfs": {"source": mount.source or "."}}}
        case MountType.RAMFS:
            limit = mount.options.disk_size or 0
            return {"target": mount.target, "kind": {"Ramfs": {"size_limit": limit}}}
        case MountType.PROCFS:
            return {"target": mount.target, "kind": "Procfs"}
        case MountType.DEVFS:
            return {"target": mount.target, "kind": "Devfs"}
        case MountType.UNIONFS:
            store = writable_layer(mount)
            kind: str | dict[str, dict[str, BootStore]] = "Root"
            if store is not None:
                kind = {"Union": {"store": _store(store)}}
            return {"target": mount.target, "kind": kind}
        case MountType.SEFS if mount.target == "/":
            return {"target": "/", "kind": "Root"}
        case MountType.SEFS if mount.options.temporary:
            limit = mount.options.disk_size or 0
            return {"target": mount.target, "kind": {"Ramfs": {"size_limit": limit}}}
        case MountType.SEFS | MountType.EXT2:
            # `occlum.config.rules` refuses ext2.
            return {"target": mount.target, "kind": {"Store": {"store": _store(mount)}}}


def writable_layer(mount: Mount) -> Mount | None:
    """The layer of a unionfs that is an encrypted store; None if changes are kept in memory."""
    layers = mount.options.layers or ()
    if mount.options.temporary or len(layers) < 2 or layers[-1].options.temporary:
        return None
    return layers[-1]


def stores(config: Config) -> list[Mount]:
    """Everything that is an encrypted store on the host, with its source."""
    found = [
        writable_layer(mount) if mount.type is MountType.UNIONFS else mount
        for mount in config.mount
        if mount.type is MountType.UNIONFS
        or (mount.type is MountType.SEFS and mount.target != "/" and not mount.options.temporary)
    ]
    return [mount for mount in found if mount is not None]


def _store(mount: Mount) -> BootStore:
    policy = mount.options.autokey_policy or AutokeyPolicy.MRSIGNER
    return {
        "source": mount.source or "",
        "policy": "Mrenclave" if policy is AutokeyPolicy.MRENCLAVE else "Mrsigner",
        "size_limit": mount.options.disk_size or 0,
        "is_read_only": False,
        "pin": mount.options.mac or "",
    }


def _page_cache_size(mounts: tuple[Mount, ...]) -> int:
    """There is one cache for all: the sizes of all mounts and layers together."""
    layers = [layer for mount in mounts for layer in (mount, *(mount.options.layers or ()))]
    return sum(layer.options.cache_size or 0 for layer in layers)

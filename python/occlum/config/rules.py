"""What several values of ``Occlum.json`` must agree on, and what this version can do.

`problems` gives every broken rule at once as (key, what, hint). A combination that is legal but not
built yet is refused here rather than ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from occlum.config.document import Key
from occlum.config.model import Config, Loopback, Mount, MountType, ResourceLimits
from occlum.config.values import UNITS, size_text

Problem = tuple[Key, str, str | None]

MAX_KERNEL_HEAP = 60 * UNITS["GB"]
MIN_KERNEL_STACK = 64 * UNITS["KB"]
MAX_KERNEL_STACK = 16 * UNITS["MB"]
MIN_USER_SPACE = 16 * UNITS["MB"]

MIN_STORE = 8 * UNITS["MB"]
_PIN = re.compile(r"[0-9a-fA-F]{80}")

# Where the kernel always puts its own file systems; a mount there must be of that type.
FIXED_MOUNTS = {"/proc": MountType.PROCFS, "/dev": MountType.DEVFS}


def problems(config: Config) -> Iterator[Problem]:
    """Every broken rule."""
    yield from _limits(config.resource_limits)
    yield from _process(config)
    yield from _identifiers(config)
    yield from _features(config)
    yield from _network(config)
    yield from _mounts(config.mount)


def _limits(limits: ResourceLimits) -> Iterator[Problem]:
    def at(name: str, what: str, hint: str | None = None) -> Problem:
        return ("resource_limits", name), f"resource_limits.{name} {what}", hint

    if limits.user_space_limit < MIN_USER_SPACE:
        yield at(
            "user_space_size",
            f"is {size_text(limits.user_space_limit)}; expected at least "
            f"{size_text(MIN_USER_SPACE)}",
            "memory is taken when touched: be generous",
        )
    if limits.user_space_max_size and limits.user_space_max_size < limits.user_space_size:
        yield at("user_space_max_size", "is below user_space_size", "remove one of the two")
    if limits.kernel_heap_limit > MAX_KERNEL_HEAP:
        yield at(
            "kernel_space_heap_size",
            f"is {size_text(limits.kernel_heap_limit)}; expected at "
            f"most {size_text(MAX_KERNEL_HEAP)}",
        )
    heap_max = limits.kernel_space_heap_max_size
    if heap_max and heap_max < limits.kernel_space_heap_size:
        yield at(
            "kernel_space_heap_max_size", "is below kernel_space_heap_size", "remove one of the two"
        )
    stack = limits.kernel_space_stack_size
    if not MIN_KERNEL_STACK <= stack <= MAX_KERNEL_STACK or stack % 4096:
        yield at(
            "kernel_space_stack_size",
            f"is {size_text(stack)}; expected whole pages from "
            f"{size_text(MIN_KERNEL_STACK)} to {size_text(MAX_KERNEL_STACK)}",
            'write "256KB"',
        )
    if limits.init_num_of_threads > limits.max_num_of_threads:
        yield at("init_num_of_threads", "is above max_num_of_threads")


def _process(config: Config) -> Iterator[Problem]:
    stack = config.process.default_stack_size
    limit = config.resource_limits.user_space_limit
    if stack >= limit:
        yield (
            ("process", "default_stack_size"),
            f"process.default_stack_size is {size_text(stack)}; expected less than the user space "
            f"of {size_text(limit)}",
            'write "8MB"',
        )


def _identifiers(config: Config) -> Iterator[Problem]:
    metadata = config.metadata
    for name, identifier in (
        ("family_id", metadata.family_id),
        ("ext_prod_id", metadata.ext_prod_id),
    ):
        if identifier.value and not metadata.enable_kss:
            yield (
                ("metadata", name),
                f"metadata.{name} is set, but key separation is off",
                'write "enable_kss": true, or 0x0 in both halves',
            )


def _features(config: Config) -> Iterator[Problem]:
    required = {
        "amx": config.feature.amx,
        "pkru": config.metadata.pkru if config.metadata.pkru is not None else config.feature.pkru,
        "io_uring": config.feature.io_uring,
    }
    for name, presence in required.items():
        if presence == 1:
            key: Key = ("feature", name)
            if name == "pkru" and config.metadata.pkru is not None:
                key = ("metadata", name)
            yield (
                key,
                f"{key[0]}.{name} is 1 (required); this version does not offer it",
                "write 2 (use it if available) or 0",
            )


def _network(config: Config) -> Iterator[Problem]:
    network = config.network
    if network.outside:
        return
    for name, is_set, value in [
        ("loopback", network.loopback is Loopback.HOST, '"host"'),
        ("publish", bool(network.publish), "not empty"),
    ]:
        if is_set:
            yield (
                ("network", name),
                f"network.{name} is {value}, but network.outside is false",
                'write "outside": true, or remove the entry',
            )


def _mounts(mounts: tuple[Mount, ...]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        key: Key = ("mount", index)
        name = f"mount[{index}]"
        if mount.target in seen:
            yield (*key, "target"), f"{name}.target {mount.target} is mounted twice", None
        seen.add(mount.target)
        if mount.target == "/":
            yield from _root(key, mount)
        else:
            yield from _other(key, mount)
    if "/" not in seen:
        yield ("mount",), "mount has no entry for the target /", "occlum new writes a default one"


def _root(key: Key, mount: Mount) -> Iterator[Problem]:
    where = f"mount[{key[1]}]"
    if mount.type is MountType.SEFS:
        return
    if mount.type is not MountType.UNIONFS:
        yield (
            (*key, "type"),
            f"{where}.type is {mount.type}; expected unionfs or sefs for the target /",
            "the root is the image, usually with a writable layer over it",
        )
        return
    yield from _layers(key, mount)


def _layers(key: Key, mount: Mount) -> Iterator[Problem]:
    where = f"mount[{key[1]}]"
    layers = mount.options.layers or ()
    if len(layers) != 2:
        yield (
            (*key, "options", "layers"),
            f"{where}.options.layers has {len(layers)} entries; expected the image and one "
            "writable layer over it",
            None,
        )
    for number, layer in enumerate(layers):
        layer_key: Key = (*key, "options", "layers", number)
        if layer.type is not MountType.SEFS or layer.target != "/":
            yield (
                layer_key,
                f"{where}.options.layers[{number}] is {layer.type} on {layer.target}; expected "
                "sefs on /",
                None,
            )
        elif number == 1 and not mount.options.temporary:
            yield from _store(layer_key, f"{where}.options.layers[1]", layer)


def _store(key: Key, where: str, mount: Mount) -> Iterator[Problem]:
    """An encrypted store, which needs a place on the host and may have a pin."""
    options = mount.options
    if not mount.source and not options.temporary:
        yield (
            key,
            f"{where} is a store without a source",
            'name a directory, for example "source": "./run/mount/data"',
        )
    if options.mac and not _PIN.fullmatch(options.mac):
        yield (
            (*key, "options", "MAC"),
            f"{where}.options.MAC is not 80 hexadecimal digits",
            "`occlum fs` prints the pin of a store",
        )
    if options.disk_size is not None and options.disk_size < MIN_STORE:
        yield (
            (*key, "options", "disk_size"),
            f"{where}.options.disk_size is {size_text(options.disk_size)}; expected at least "
            f"{size_text(MIN_STORE)}",
            None,
        )


def _other(key: Key, mount: Mount) -> Iterator[Problem]:
    where = f"mount[{key[1]}]"
    fixed = FIXED_MOUNTS.get(mount.target)
    if fixed is not None and mount.type is not fixed:
        yield (
            (*key, "type"),
            f"{where}.type is {mount.type}; {mount.target} is always {fixed}",
            "remove the entry",
        )
        return
    if mount.options.layers is not None and mount.type is not MountType.UNIONFS:
        yield (*key, "options", "layers"), f"{where}.options.layers only fits unionfs", None
    if mount.type is MountType.HOSTFS and not mount.source:
        yield (
            key,
            f"{where} is hostfs without a source",
            '"source": "." is the instance directory',
        )
    elif mount.type is MountType.UNIONFS:
        yield from _layers(key, mount)
    elif mount.type is MountType.SEFS:
        yield from _store(key, where, mount)
    elif mount.type is MountType.EXT2:
        yield (
            (*key, "type"),
            f"{where} is ext2; this version can't mount disk images",
            "sefs keeps files in an encrypted store, hostfs on the host",
        )
    elif mount.type in FIXED_MOUNTS.values() and fixed is None:
        home = next(path for path, kind in FIXED_MOUNTS.items() if kind is mount.type)
        yield (*key, "target"), f"{where} is {mount.type} on {mount.target}; expected {home}", None

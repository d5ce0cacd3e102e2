"""``Occlum.json`` as types: every published field with the default that `occlum new` writes.

The models hold what one value can say about itself. What several values must agree on is in
`occlum.config.rules`; how the kernel gets it is in `occlum.config.boot`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from occlum.config.values import (
    UNITS,
    AbsolutePath,
    Assignment,
    HexU64,
    Size,
    VariableName,
)

_KB, _MB, _GB = UNITS["KB"], UNITS["MB"], UNITS["GB"]

U16 = Annotated[int, Field(ge=0, lt=1 << 16, strict=True)]
Count = Annotated[int, Field(gt=0, lt=1 << 31, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]
Presence = Annotated[int, Field(ge=0, le=2, strict=True)]
"""0 off, 1 required, 2 if available."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ResourceLimits(_Section):
    """Sizes in bytes. Memory is taken when it is first touched, so limits may be generous."""

    user_space_size: Size = 4 * _GB
    """Memory of all programs together."""
    user_space_max_size: Size | None = None
    """With EDMM; the larger of the two is the limit."""
    kernel_space_heap_size: Size = 1 * _GB
    """Memory of the LibOS: page cache, files in memory, tables."""
    kernel_space_heap_max_size: Size | None = None
    """With EDMM; the larger of the two is the limit."""
    kernel_space_stack_size: Size = 256 * _KB
    """Kernel stack of each virtual CPU and task, 64KB to 16MB."""
    init_num_of_threads: Count = 8
    """Virtual CPUs: host threads that may be inside at once."""
    max_num_of_threads: Count = 16384
    """Threads of all programs together."""

    @property
    def user_space_limit(self) -> int:
        """Pages come and go at run time in every mode, so the larger of the two is the limit."""
        return max(self.user_space_size, self.user_space_max_size or 0)

    @property
    def kernel_heap_limit(self) -> int:
        return max(self.kernel_space_heap_size, self.kernel_space_heap_max_size or 0)


class Process(_Section):
    """Defaults of each process. ``default_mmap_size`` is obsolete and has no effect."""

    default_stack_size: Size = 8 * _MB
    """Stack of a program's first thread."""
    default_heap_size: Size = 256 * _MB
    """Room that brk(2) may grow into."""
    default_mmap_size: Size | None = None
    """Obsolete, without effect."""


class Env(_Section):
    default: tuple[Assignment, ...] = ()
    """Given to every program; measured."""
    untrusted: tuple[VariableName, ...] = ()
    """Names whose value the host may choose; one * at the end is a prefix."""


class Identifier(_Section):
    """A 128-bit identifier in two halves."""

    high: HexU64 = 0
    low: HexU64 = 0

    @property
    def value(self) -> int:
        return self.high << 64 | self.low


class Metadata(_Section):
    product_id: U16 = 0
    """ISVPRODID."""
    version_number: U16 = 0
    """ISVSVN."""
    debuggable: Flag = True
    """Whether the enclave may be opened for debugging; false for a release."""
    disable_log: Flag = False
    """Whether the LibOS keeps silent, whatever the log level."""
    enable_kss: Flag = False
    """Key separation and sharing."""
    family_id: Identifier = Identifier()
    """With enable_kss."""
    ext_prod_id: Identifier = Identifier()
    """With enable_kss."""
    pkru: Presence | None = None
    """The older place of ``feature.pkru``."""


class Feature(_Section):
    amx: Presence = 0
    """AMX: 0 off, 1 required, 2 if available."""
    pkru: Presence = 0
    """Protection keys: 0 off, 1 required, 2 if available."""
    io_uring: Presence = 0
    """io_uring on the host: 0 off, 1 required, 2 if available."""
    enable_edmm: Flag = False
    """Dynamic memory of SGX2; accepted, memory is always dynamic where it can be."""
    enable_posix_shm: Flag = False
    """Accepted; POSIX shared memory is always there."""


class Loopback(StrEnum):
    """Whose 127.0.0.0/8 and ::1 are."""

    INSIDE = "inside"
    HOST = "host"


Port = Annotated[int, Field(gt=0, lt=1 << 16, strict=True)]


class Network(_Section):
    """What of the network is inside the enclave, and what is the host's.

    A listener on 0.0.0.0 or :: can be reached from inside and from the host at once; one on a
    loopback address from inside only, unless its port is published.
    """

    outside: Flag = True
    """Whether there is anything but loopback."""
    loopback: Loopback = Loopback.INSIDE
    publish: tuple[Port, ...] | Literal["all"] = ()
    """Ports whose listeners on a loopback address the host reaches at its own."""


class MountType(StrEnum):
    UNIONFS = "unionfs"
    SEFS = "sefs"
    HOSTFS = "hostfs"
    RAMFS = "ramfs"
    DEVFS = "devfs"
    PROCFS = "procfs"
    EXT2 = "ext2"


class AutokeyPolicy(IntEnum):
    """Bits of KEYREQUEST.KEYPOLICY."""

    MRENCLAVE = 1
    MRSIGNER = 2


class MountOptions(_Section):
    mac: Annotated[Text | None, Field(alias="MAC")] = None
    """What the layer must be: the pin of a store; empty: not pinned."""
    layers: tuple[Mount, ...] | None = None
    """Of a unionfs: the image, and the writable layer over it."""
    temporary: Flag = False
    """Keep what is written in memory only."""
    autokey_policy: AutokeyPolicy | None = None
    """Which enclaves get a store's key: 1 this enclave only (MRENCLAVE), 2 those of the same signer
    (MRSIGNER), which is the default."""
    cache_size: Size | None = None
    """How much the page cache holds, for all mounts together."""
    disk_size: Size | None = None
    """Limit of a ramfs or of a store."""


class Mount(_Section):
    target: AbsolutePath
    """Where in the tree."""
    type: MountType
    source: Text | None = None
    """On the host; a relative path begins at the instance."""
    options: MountOptions = Field(default_factory=lambda: MountOptions())


class Config(_Section):
    """The whole file."""

    resource_limits: ResourceLimits = ResourceLimits()
    process: Process = Process()
    entry_points: Annotated[tuple[AbsolutePath, ...], Field(min_length=1)]
    """Directories or files that programs may be started from."""
    env: Env = Env()
    metadata: Metadata = Metadata()
    feature: Feature = Feature()
    network: Network = Network()
    mount: tuple[Mount, ...]

//! The boot configuration (measured, trusted) and the host's handover (untrusted).

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

pub const BOOT_CONFIG_VERSION: u32 = 1;

/// Which CPU an enclave image was built for. Measured: a simulated image can never pass for a
/// hardware one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuMode {
    Simulation,
    Hardware,
}

/// When a forked child gets memory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForkCopies {
    /// When one of both writes, which page permissions tell.
    OnWrite,
    /// At fork, all of it: for CPUs that can't change permissions of pages (SGX1, no EDMM).
    AtOnce,
}

/// `Occlum.json` after validation, as the kernel reads it. Written by `occlum build` (postcard,
/// after an 8-byte little-endian length) at `layout::BOOT_CONFIG_BASE`, covered by MRENCLAVE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootConfig {
    pub version: u32,
    pub cpu_mode: CpuMode,
    /// Number of vCPUs (TCSs) the image has.
    pub vcpus: u32,
    pub resource_limits: ResourceLimits,
    pub process: ProcessDefaults,
    /// Absolute path prefixes that `run`/`exec` may start programs from.
    pub entry_points: Vec<String>,
    pub env: Environment,
    pub debuggable: bool,
    pub disable_log: bool,
    pub mounts: Vec<Mount>,
    /// Root hash of the file-system image; see `docs/format/image.md`.
    pub image_root: [u8; 32],
    pub fork_copies: ForkCopies,
    pub network: Network,
    /// Bytes of the page cache; 0 = the kernel decides.
    pub page_cache_size: u64,
}

/// What of the network is inside the enclave, and what is the host's; `docs/design/sockets.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Whether there is anything but loopback: connections to other machines, and listeners that
    /// others reach.
    pub outside: bool,
    /// 127.0.0.0/8 and ::1 are the host's, not the enclave's.
    pub host_loopback: bool,
    /// Ports whose listeners on a loopback address the host can reach at its own.
    pub publish: PublishedPorts,
    /// 0 off, 1 required, 2 if available.
    pub io_uring: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublishedPorts {
    All,
    These(Vec<u16>),
}

/// Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// All memory committed to LibOS processes.
    pub user_space_size: u64,
    pub kernel_heap_size: u64,
    pub kernel_stack_size: u64,
    /// LibOS threads alive at once in all processes.
    pub max_threads: u32,
}

/// Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessDefaults {
    pub stack_size: u64,
    pub heap_size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `NAME=value`, trusted.
    pub default: Vec<String>,
    /// Names whose host value may override or add; a trailing `*` is a prefix match.
    pub untrusted: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the enclave's tree.
    pub target: String,
    pub kind: MountKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// The hashed image named by `BootConfig::image_root`, read-only, with a writable in-memory
    /// layer over it.
    Root,
    /// In memory; `size_limit` in bytes, 0 = bounded by the kernel heap only.
    Ramfs { size_limit: u64 },
    Procfs,
    Devfs,
    /// A host directory, nothing trusted; the path is the host's.
    Hostfs { source: String },
    /// An encrypted store.
    Store { store: StoreMount },
    /// The image's directory of this name, with an encrypted store over it. On `/` the root.
    Union { store: StoreMount },
}

/// An encrypted store on the host, under a key of the CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMount {
    /// Host directory, with the file [`STORE_FILE`] in it; relative to the instance.
    pub source: String,
    pub policy: SealPolicy,
    /// Bytes; 0 = no limit but the host's disk.
    pub size_limit: u64,
    pub is_read_only: bool,
    /// The store must be in this state or a later one (see `docs/format/store.md`); empty = any.
    pub pin: String,
}

/// The store's file in the directory that a mount names.
pub const STORE_FILE: &str = "store.occ";

/// Which enclaves get the key of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SealPolicy {
    /// Those with the same signer and product id.
    Mrsigner,
    /// The very same enclave only.
    Mrenclave,
}

/// What the host hands over when it enters the first vCPU for the first time: the address of this
/// structure is in RSI. Untrusted: the kernel copies it once, then checks every field.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HostInfo {
    pub version: u32,
    /// vCPUs (host threads) that will enter; at most `BootConfig::vcpus`.
    pub vcpus: u32,
    /// Address of the [`crate::ocall::SharedPage`].
    pub shared: u64,
    /// Staging buffers for ocall data: one of `staging_size` bytes for each vCPU, contiguous.
    pub staging: u64,
    pub staging_size: u64,
    /// The file-system image file, mapped read-only outside the enclave.
    pub image: u64,
    pub image_size: u64,
    /// A postcard [`RunRequest`].
    pub request: u64,
    pub request_size: u64,
    /// XFRM bits the CPU has enabled (XCR0), for sizing saved vector state.
    pub xfrm: u64,
    /// Bytes of an XSAVE area (standard format) for `xfrm`.
    pub xsave_size: u64,
    /// AT_HWCAP (CPUID.1:EDX) and AT_HWCAP2 as Linux gives them to programs.
    pub hwcap: u64,
    pub hwcap2: u64,
}

pub const HOST_INFO_VERSION: u32 = 1;

/// What the person asked to run. Untrusted: entry points and environment rules are applied inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// Path inside the enclave; empty to start nothing and wait for requests.
    pub path: String,
    /// argv without argv[0]; the kernel sets argv[0] to the path's base name.
    pub args: Vec<Vec<u8>>,
    /// The host's environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    pub log_level: LogLevel,
    /// Host names for `/etc/hostname` and uname; untrusted.
    pub hostname: String,
    /// Contents of the host's resolv.conf and hosts files; untrusted.
    pub resolv_conf: Vec<u8>,
    pub hosts: Vec<u8>,
    pub observation: Observation,
}

/// What the person wants to see of the programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Tell system calls ([`crate::ocall::Ocall::Trace`]); debuggable enclaves only.
    pub is_traced: bool,
    /// Names of the calls to tell; all if there is none.
    pub calls: Vec<String>,
    /// Tell at the end which calls were met that are not supported ([`crate::ocall::Ocall::Report`]).
    pub reports_unsupported: bool,
    /// A debugger looks on: tell where code is mapped ([`crate::ocall::Ocall::Mapped`]), and bring it into
    /// memory before; debuggable enclaves only.
    pub is_debugged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum LogLevel {
    Off = 0,
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

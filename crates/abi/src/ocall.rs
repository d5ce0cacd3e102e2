//! The calls the kernel makes to the host.
//!
//! Register convention. The kernel leaves by EEXIT with RDI = the [`Ocall`] number and its
//! arguments in RSI, RDX, R8, R9, R10 (all other registers cleared, RSP/RBP = URSP/URBP). The host
//! serves it and enters again (EENTER) with RDI = the result: a value >= 0, or a negative errno, and
//! RSI = a second value where the call has one. Everything the host returns is untrusted.
//!
//! Data passes through the calling vCPU's staging buffer, host memory at
//! `HostInfo::staging + vcpu * staging_size`; pointers in arguments point into it.
//!
//! Commands the host gives when it enters (RDI, while no ocall of that vCPU is open): see [`Entry`].

use core::sync::atomic::{AtomicU32, AtomicU64};

/// RDI at EENTER with CSSA = 0 and no ocall open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Entry {
    /// First entry of this vCPU. RSI = address of `HostInfo` (used for vCPU 0 only),
    /// RDX = vCPU index.
    Start = 1,
}

macro_rules! ocalls {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// One call to the host; the argument list is in each variant's documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Ocall { $($(#[$doc])* $name = $number,)* }

        impl Ocall {
            /// The call with this number, if there is one.
            pub fn from_raw(number: u64) -> Option<Ocall> {
                match number { $($number => Some(Ocall::$name),)* _ => None }
            }
        }
    };
}

ocalls! {
    /// The exception at SSA[0] is handled: execute ERESUME. ()
    Resume = 0,
    /// The program has ended. (wait status as of wait4: exit code << 8, or signal number | 0x80 if core)
    /// All vCPUs are stopped; does not return.
    Exit = 1,
    /// The kernel has found a bug or a lie and stops the enclave. (reason: see [`StopReason`], then up
    /// to 32 bytes of text in four registers, padded with zeros) The text names a lie even where the log
    /// can't: before there is a staging buffer. What is longer was logged before. Does not return.
    Stop = 2,
    /// (level, ptr, len) one line of log, UTF-8, without newline.
    Log = 3,
    /// (deadline_ns of CLOCK_MONOTONIC, u64::MAX = none) Wait until woken by `Wake`, until an event of
    /// the host event set (see `EventAdd`) or until the deadline. -> number of events written to the
    /// staging buffer as [`HostEvent`]s, 0 if woken or timed out.
    Park = 4,
    /// (vcpu) Wake a parked vCPU. A wake-up sent before the vCPU parks is kept.
    Wake = 5,
    /// (vcpu) Interrupt a vCPU: an AEX if it is in the enclave, EINTR-like return if in an ocall.
    Kick = 6,
    /// () Start the ticker again (see [`SharedPage::ticker_asleep`]).
    StartTicker = 7,
    /// (addr, len, prot: PROT_READ|WRITE|EXEC bits) Set page permissions inside ELRANGE; pages not yet
    /// there are added (EAUG), zeroed. In the range of an inaccessible page, PROT_NONE keeps content.
    Protect = 8,
    /// (addr, len) Drop pages: content lost, inaccessible, memory given back to the host.
    Release = 9,
    /// (addr, len, prot) Give back the memory but keep the range usable: next read gives zeros.
    Discard = 10,
    /// () Refresh the time page.
    UpdateTime = 11,
    /// (ptr, len) -> len: fill from the host's randomness. Untrusted; never used for keys.
    Random = 12,

    /// (addr, len, prot, src) Replace pages: the new ones have the permissions `prot` and the content of
    /// `len` bytes of enclave memory at `src`, and no thread ever sees them half-made (EAUG with
    /// EACCEPTCOPY). What was at `addr` is lost.
    Install = 13,
    /// (leaf, subleaf, ptr) -> 0: executes CPUID and writes EAX, EBX, ECX, EDX as four u32. An enclave
    /// can't; what the host answers is as true as the host is.
    Cpuid = 14,

    /// (fd, ptr, len) non-blocking read(2) on standard input/output/error 0..=2 or a descriptor the
    /// host opened; EAGAIN when it would block.
    Read = 20,
    /// (fd, ptr, len) non-blocking write(2).
    Write = 21,
    /// (fd, offset, ptr, len) pread(2).
    ReadAt = 22,
    /// (fd, offset, ptr, len) pwrite(2).
    WriteAt = 23,
    /// (fd) close(2).
    Close = 24,
    /// (fd, events: POLLIN|POLLOUT) Watch a descriptor, one-shot: one [`HostEvent`] at the next `Park`
    /// or `PollEvents`, then it must be added again. Regular files are always ready.
    EventAdd = 25,
    /// (fd) Stop watching.
    EventRemove = 26,
    /// () -> count: like `Park` without waiting.
    PollEvents = 27,
    /// (fd, ptr) -> 0: [`HostStat`] of an open descriptor.
    Fstat = 28,
    /// (fd, request, ptr, len) ioctl(2) restricted by the host side to terminal requests
    /// (TCGETS, TCSETS*, TIOCGWINSZ, TIOCSWINSZ, TIOCGPGRP, FIONREAD).
    Ioctl = 29,

    /// hostfs. Paths are bytes in the staging buffer: (ptr, len, ...). The host resolves them under
    /// the directory handle in the first argument, and never outside it; -1 names a host path as given
    /// (used for the mount source only).
    /// (dirfd, path_ptr, path_len, flags: O_* , mode) -> fd
    Open = 40,
    /// (dirfd, path_ptr, path_len, out_ptr) -> 0: [`HostStat`], not following a final symlink.
    Stat = 41,
    /// (fd, ptr, len, cookie) -> bytes written: directory entries as linux_dirent64; the second value is
    /// the next cookie.
    ReadDir = 42,
    /// (dirfd, path_ptr, path_len, mode)
    Mkdir = 43,
    /// (dirfd, path_ptr, path_len, flags: AT_REMOVEDIR or 0)
    Unlink = 44,
    /// (dirfd, ptr, len of both: `old\0new`, flags: RENAME_*)
    Rename = 45,
    /// (dirfd, ptr, len of both: `target\0linkpath`)
    Symlink = 46,
    /// (dirfd, path_ptr, path_len, out_ptr, out_len) -> length
    ReadLink = 47,
    /// (dirfd, ptr, len of both: `old\0new`)
    Link = 48,
    /// (dirfd, path_ptr, path_len, mode) fchmodat, not through a symlink.
    Chmod = 49,
    /// (dirfd, path_ptr, path_len, uid | gid << 32) fchownat, not through a symlink.
    Chown = 50,
    /// (dirfd, path_ptr, path_len, times_ptr: [i64; 4] = atime s, ns, mtime s, ns; UTIME_OMIT allowed)
    Utimes = 51,
    /// (fd, size)
    Truncate = 52,
    /// (fd, flags: 1 = data only)
    Sync = 53,
    /// (fd, out_ptr) -> 0: [`HostStatFs`]
    StatFs = 54,
    /// (fd, 1 = exclusive, 0 = shared) -> 0: flock(2) without waiting; EAGAIN if somebody else has it. It keeps
    /// two enclaves from using one store by mistake; no promise hangs on it.
    Lock = 55,

    /// Sockets of the host: all of them non-blocking, and closed with `Close`. One is watched from
    /// `SocketConnect`, `SocketListen` or `SocketAccept` on, a datagram socket from the first: a
    /// [`HostEvent`] comes whenever something has changed (edge-triggered), not once. Addresses are
    /// bytes of `struct sockaddr_in` or `sockaddr_in6`.
    /// (domain: AF_INET | AF_INET6, type: SOCK_STREAM | SOCK_DGRAM) -> fd
    SocketOpen = 60,
    /// (fd, ptr, len) bind(2)
    SocketBind = 61,
    /// (fd, backlog) listen(2)
    SocketListen = 62,
    /// (fd, ptr, len) -> connections taken, each a [`HostConnection`] in the buffer, as many as are
    /// there and fit; EAGAIN if none is there.
    SocketAccept = 63,
    /// (fd, ptr, len) connect(2) -> 0; mostly EINPROGRESS. With len 0, AF_UNSPEC.
    SocketConnect = 64,
    /// (fd, how: SHUT_*)
    SocketShutdown = 65,
    /// (fd, whose: 0 = getsockname, 1 = getpeername, ptr, len) -> bytes of the address
    SocketName = 66,
    /// (fd, ptr, len, flags: MSG_*) send(2), never with SIGPIPE -> bytes sent
    SocketSend = 67,
    /// (fd, ptr, len, flags: MSG_*) recv(2) -> bytes
    SocketReceive = 68,
    /// (fd, ptr, len, flags) The buffer begins with a [`DatagramHead`], the data follows. -> bytes sent
    SocketSendTo = 69,
    /// (fd, ptr, len, flags) -> bytes of the whole datagram, which may be more than fit behind the
    /// [`DatagramHead`] that the buffer begins with.
    SocketReceiveFrom = 70,
    /// (fd, level << 32 | name, ptr, len) setsockopt(2)
    SocketSetOption = 71,
    /// (fd, level << 32 | name, ptr, len) getsockopt(2) -> bytes
    SocketGetOption = 72,
    /// (fd) -> POLL* bits that hold now
    SocketPoll = 73,
    /// (fd, request: FIONREAD | SIOCOUTQ) -> bytes
    SocketPending = 74,
    /// (ptr, len) -> bytes: [`HostInterfaceAddress`]es of the host
    Interfaces = 75,

    /// (ptr, len) -> bytes written: the next request of the host, a postcard
    /// [`crate::control::Numbered`]; 0 if there is none.
    TakeRequest = 80,
    /// (number, ptr, len) A postcard [`crate::control::Answer`] to the request with that number.
    Answer = 81,
    /// (ptr, len) A line of the system-call trace, with newline: thread id, start in ns of
    /// CLOCK_MONOTONIC, duration in ns, text.
    Trace = 82,
    /// (ptr, len) Text for the person, whatever the log level is.
    Report = 83,
    /// (start, offset, ptr, len of the path, process id | [`MAPPED_AS_PROGRAM`]) Code of a file stands at
    /// `start`, for a debugger or a profile.
    Mapped = 84,
}

/// Largest address of a socket: `sizeof(struct sockaddr_in6)`.
pub const SOCKET_ADDRESS_SIZE: usize = 28;

/// A connection that the host has accepted.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HostConnection {
    pub fd: u32,
    /// Bytes of each address.
    pub address_size: u32,
    pub local: [u8; SOCKET_ADDRESS_SIZE],
    pub peer: [u8; SOCKET_ADDRESS_SIZE],
}

/// What stands before a datagram in the staging buffer.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct DatagramHead {
    /// Where it goes or comes from; size 0 for "the peer the socket is connected to".
    pub address_size: u32,
    /// Received: MSG_TRUNC. To be sent: the AF_* of what is said below.
    pub flags: u32,
    pub address: [u8; SOCKET_ADDRESS_SIZE],
    /// IP_PKTINFO, IPV6_PKTINFO: 0, 4 or 16 bytes of the address it was sent to, or is to be sent from,
    /// and the interface.
    pub local_size: u32,
    pub local: [u8; 16],
    pub interface: u32,
    /// IP_TTL or IPV6_HOPLIMIT, IP_TOS or IPV6_TCLASS; -1 if not known.
    pub hops: i32,
    pub traffic_class: i32,
}

/// One address of a network interface of the host.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HostInterfaceAddress {
    /// Padded with zeros.
    pub name: [u8; 16],
    pub index: u32,
    /// IFF_* bits.
    pub flags: u32,
    pub mtu: u32,
    /// AF_INET or AF_INET6; 0 for an interface without address.
    pub family: u16,
    pub prefix_bits: u16,
    pub address: [u8; 16],
    pub hardware_address: [u8; 6],
    pub hardware: u16,
}

/// In the process id of `Mapped`: the process starts to execute a program, which this is a part of.
pub const MAPPED_AS_PROGRAM: u64 = 1 << 32;

/// With the permissions of `Protect`: the pages will be used at once, so bring all of them into memory
/// now, which costs less than a fault for each. Writable pages only; advice, not a promise.
pub const PROTECT_POPULATE: u64 = 1 << 8;

/// Why the kernel stopped the enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum StopReason {
    /// A bug in the kernel.
    KernelBug = 1,
    /// The host told a lie.
    HostMisbehaved = 2,
    /// The boot configuration, the image or the request can't be used; the log says why.
    CannotStart = 3,
}

/// One ready descriptor, written by the host to the staging buffer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HostEvent {
    pub fd: u32,
    /// POLLIN, POLLOUT, POLLERR, POLLHUP bits.
    pub events: u32,
}

/// File attributes as the host reports them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HostStat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime_s: i64,
    pub atime_ns: i64,
    pub mtime_s: i64,
    pub mtime_ns: i64,
    pub ctime_s: i64,
    pub ctime_ns: i64,
}

/// statfs(2) of a host file system; sizes in units of `block_size` bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HostStatFs {
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u64,
}

/// One page of host memory that both sides read and write without an ocall. Untrusted.
#[repr(C, align(4096))]
pub struct SharedPage {
    /// Seqlock for the time fields: odd while the host writes.
    pub time_seq: AtomicU32,
    /// ns = ((tsc - tsc_base) * tsc_mult) >> 32
    pub tsc_mult: AtomicU32,
    pub tsc_base: AtomicU64,
    /// CLOCK_MONOTONIC at `tsc_base`.
    pub monotonic_ns: AtomicU64,
    /// CLOCK_REALTIME at `tsc_base`.
    pub realtime_ns: AtomicU64,
    /// The kernel sets `want_tick[v]` while vCPU v has more to run than one task (or timers that no
    /// parked vCPU waits for). The host's ticker then, each period, wakes a parked vCPU if there is
    /// one, else kicks v.
    pub want_tick: [AtomicU32; crate::layout::MAX_VCPUS],
    /// 1 while the ticker sleeps because no vCPU wanted ticks for a while; the kernel then calls
    /// `StartTicker` after it sets a `want_tick`.
    pub ticker_asleep: AtomicU32,
    /// Bit v is set by the host while vCPU v is parked. A hint only.
    pub parked: AtomicU64,
    /// 1 while requests of the host wait to be taken. A hint only.
    pub requests: AtomicU32,
    /// The process whose thread vCPU v runs; set by the kernel while a debugger or a profile looks on.
    pub running: [AtomicU32; crate::layout::MAX_VCPUS],
}

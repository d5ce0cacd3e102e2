//! How the trace shows arguments: names instead of numbers where a person thinks in names.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use occlum_abi::Errno;

use super::super::{Arg, Call, Syscall};
use crate::error::Result;
use crate::signal::Signal;
use crate::user::{self, UserAddr};

/// Bytes of a buffer, or of a string, that are shown.
const SHOWN: usize = 32;
const STRINGS: usize = 16;

type Names = &'static [(u64, &'static str)];

/// An argument.
#[derive(Clone, Copy)]
enum Shape {
    Plain(Arg),
    DirFd,
    /// Bits with names; the rest is shown as a number.
    Flags(Names),
    /// `open` flags: the two lowest bits are a number.
    OpenFlags,
    /// One of several.
    One(Names),
    /// Bytes that the program gives, as many as this argument says.
    In(usize),
    /// Bytes that the program gets, as many as the result says.
    Out,
    /// A list of strings that ends with NULL.
    Strings,
}

use Shape::{DirFd, Flags, In, One, OpenFlags, Out, Plain, Strings};

const INT: Shape = Plain(Arg::Int);
const FD: Shape = Plain(Arg::Fd);
const PATH: Shape = Plain(Arg::Path);
const PTR: Shape = Plain(Arg::Ptr);
const SIZE: Shape = Plain(Arg::Uint);
const OCTAL: Shape = Plain(Arg::Octal);
const HEX: Shape = Plain(Arg::Hex);
const SIGNAL: Shape = Plain(Arg::Signal);

const PROT: Names = &[(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")];
const MAP: Names = &[
    (1, "MAP_SHARED"),
    (2, "MAP_PRIVATE"),
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x2_0000, "MAP_STACK"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];
const OPEN: Names = &[
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o200000, "O_DIRECTORY"),
    (0o400000, "O_NOFOLLOW"),
    (0o2000000, "O_CLOEXEC"),
    (0o10000000, "O_PATH"),
];
const CLONE: Names = &[
    (0x100, "CLONE_VM"),
    (0x200, "CLONE_FS"),
    (0x400, "CLONE_FILES"),
    (0x800, "CLONE_SIGHAND"),
    (0x4000, "CLONE_VFORK"),
    (0x1_0000, "CLONE_THREAD"),
    (0x4_0000, "CLONE_SYSVSEM"),
    (0x8_0000, "CLONE_SETTLS"),
    (0x10_0000, "CLONE_PARENT_SETTID"),
    (0x20_0000, "CLONE_CHILD_CLEARTID"),
    (0x100_0000, "CLONE_CHILD_SETTID"),
];
const WHENCE: Names = &[(0, "SEEK_SET"), (1, "SEEK_CUR"), (2, "SEEK_END")];
const FUTEX: Names = &[
    (0, "FUTEX_WAIT"),
    (1, "FUTEX_WAKE"),
    (128, "FUTEX_WAIT_PRIVATE"),
    (129, "FUTEX_WAKE_PRIVATE"),
    (131, "FUTEX_REQUEUE_PRIVATE"),
    (137, "FUTEX_WAIT_BITSET_PRIVATE"),
    (393, "FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME"),
];
const FAMILY: Names = &[(1, "AF_UNIX"), (2, "AF_INET"), (10, "AF_INET6"), (16, "AF_NETLINK")];
const SOCKET: Names = &[(0o4000, "SOCK_NONBLOCK"), (0o2000000, "SOCK_CLOEXEC")];
const FCNTL: Names = &[
    (0, "F_DUPFD"),
    (1, "F_GETFD"),
    (2, "F_SETFD"),
    (3, "F_GETFL"),
    (4, "F_SETFL"),
    (6, "F_SETLK"),
    (1030, "F_DUPFD_CLOEXEC"),
];
const ADVICE: Names = &[(3, "MADV_WILLNEED"), (4, "MADV_DONTNEED"), (8, "MADV_FREE"), (14, "MADV_HUGEPAGE")];
const CLOCK: Names = &[(0, "CLOCK_REALTIME"), (1, "CLOCK_MONOTONIC"), (4, "CLOCK_MONOTONIC_RAW")];
const WAIT: Names = &[(1, "WNOHANG"), (2, "WUNTRACED"), (8, "WCONTINUED")];
const AT: Names = &[
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x200, "AT_REMOVEDIR"),
    (0x400, "AT_SYMLINK_FOLLOW"),
    (0x1000, "AT_EMPTY_PATH"),
];
const ACCESS: Names = &[(4, "R_OK"), (2, "W_OK"), (1, "X_OK")];
const HOW: Names = &[(0, "SIG_BLOCK"), (1, "SIG_UNBLOCK"), (2, "SIG_SETMASK")];
const ARCH: Names = &[(0x1001, "ARCH_SET_GS"), (0x1002, "ARCH_SET_FS"), (0x1003, "ARCH_GET_FS")];
const RESOURCE: Names =
    &[(3, "RLIMIT_STACK"), (4, "RLIMIT_CORE"), (6, "RLIMIT_NPROC"), (7, "RLIMIT_NOFILE"), (9, "RLIMIT_AS")];

/// Calls whose arguments have more to say than the table knows.
const SHAPES: &[(&str, &[Shape])] = &[
    ("read", &[FD, Out, SIZE]),
    ("write", &[FD, In(2), SIZE]),
    ("pread64", &[FD, Out, SIZE, SIZE]),
    ("pwrite64", &[FD, In(2), SIZE, SIZE]),
    ("recvfrom", &[FD, Out, SIZE, HEX, PTR, PTR]),
    ("sendto", &[FD, In(2), SIZE, HEX, PTR, SIZE]),
    ("open", &[PATH, OpenFlags, OCTAL]),
    ("openat", &[DirFd, PATH, OpenFlags, OCTAL]),
    ("newfstatat", &[DirFd, PATH, PTR, Flags(AT)]),
    ("statx", &[DirFd, PATH, Flags(AT), HEX, PTR]),
    ("unlinkat", &[DirFd, PATH, Flags(AT)]),
    ("mkdirat", &[DirFd, PATH, OCTAL]),
    ("readlinkat", &[DirFd, PATH, Out, SIZE]),
    ("readlink", &[PATH, Out, SIZE]),
    ("access", &[PATH, Flags(ACCESS)]),
    ("faccessat", &[DirFd, PATH, Flags(ACCESS)]),
    ("faccessat2", &[DirFd, PATH, Flags(ACCESS), Flags(AT)]),
    ("lseek", &[FD, INT, One(WHENCE)]),
    ("fcntl", &[FD, One(FCNTL), HEX]),
    ("mmap", &[PTR, SIZE, Flags(PROT), Flags(MAP), FD, HEX]),
    ("mprotect", &[PTR, SIZE, Flags(PROT)]),
    ("madvise", &[PTR, SIZE, One(ADVICE)]),
    ("execve", &[PATH, Strings, PTR]),
    ("clone", &[Flags(CLONE), PTR, PTR, PTR, HEX]),
    ("wait4", &[INT, PTR, Flags(WAIT), PTR]),
    ("futex", &[PTR, One(FUTEX), INT, PTR]),
    ("socket", &[One(FAMILY), Flags(SOCKET), INT]),
    ("socketpair", &[One(FAMILY), Flags(SOCKET), INT, PTR]),
    ("pipe2", &[PTR, OpenFlags]),
    ("dup3", &[FD, FD, OpenFlags]),
    ("getcwd", &[Out, SIZE]),
    ("clock_gettime", &[One(CLOCK), PTR]),
    ("clock_nanosleep", &[One(CLOCK), HEX, PTR, PTR]),
    ("rt_sigaction", &[SIGNAL, PTR, PTR, SIZE]),
    ("rt_sigprocmask", &[One(HOW), PTR, PTR, SIZE]),
    ("kill", &[INT, SIGNAL]),
    ("tgkill", &[INT, INT, SIGNAL]),
    ("arch_prctl", &[One(ARCH), PTR]),
    ("prlimit64", &[INT, One(RESOURCE), PTR, PTR]),
];

/// Whether a result is an address.
pub fn gives_address(name: &str) -> bool {
    matches!(name, "mmap" | "mremap" | "brk" | "shmat")
}

/// The call up to what can be shown only when it has returned.
pub fn before(call: &Call<'_>, row: &Syscall) -> String {
    let mut text = format!("{}(", row.name);
    for (index, shape) in shapes(row).iter().enumerate() {
        if matches!(shape, Out) {
            break;
        }
        append(&mut text, call, index, *shape, 0);
    }
    text
}

/// The rest.
pub fn after(text: &mut String, call: &Call<'_>, row: &Syscall, result: &Result<usize>) {
    let shapes = shapes(row);
    let first = shapes.iter().position(|shape| matches!(shape, Out)).unwrap_or(shapes.len());
    let size = result.as_ref().map_or(0, |size| *size);
    for (index, shape) in shapes.iter().enumerate().skip(first) {
        append(text, call, index, *shape, size);
    }
}

fn shapes(row: &Syscall) -> Vec<Shape> {
    match SHAPES.iter().find(|(name, _)| *name == row.name) {
        Some((_, shapes)) => shapes.to_vec(),
        None => row.args.iter().map(|arg| Plain(*arg)).collect(),
    }
}

fn append(text: &mut String, call: &Call<'_>, index: usize, shape: Shape, result: usize) {
    if index > 0 {
        text.push_str(", ");
    }
    let value = call.args[index];
    // Writing to a String can't fail.
    let _ = match shape {
        Plain(arg) => plain(text, call, index, arg),
        DirFd if call.int(index) == -100 => write!(text, "AT_FDCWD"),
        DirFd => write!(text, "{}", call.int(index)),
        Flags(names) => flags(text, value, names),
        OpenFlags => {
            text.push_str(["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"][(value & 3) as usize]);
            let rest = value & 0xffff_fffc;
            if rest == 0 {
                return;
            }
            text.push('|');
            flags(text, rest, OPEN)
        }
        One(names) => match names.iter().find(|(known, _)| *known == value) {
            Some((_, name)) => write!(text, "{name}"),
            None => write!(text, "{value:#x}"),
        },
        In(size) => bytes(text, call.addr(index), call.size(size)),
        Out if result == 0 => write!(text, "{value:#x}"),
        Out => bytes(text, call.addr(index), result),
        Strings => strings(text, call.addr(index)),
    };
}

fn plain(text: &mut String, call: &Call<'_>, index: usize, arg: Arg) -> core::fmt::Result {
    match arg {
        Arg::Int | Arg::Fd => write!(text, "{}", call.int(index)),
        Arg::Signal => match Signal::new(call.int(index)) {
            Some(signal) => write!(text, "{signal:?}"),
            None => write!(text, "{}", call.int(index)),
        },
        Arg::Uint => write!(text, "{}", call.args[index]),
        Arg::Hex => write!(text, "{:#x}", call.args[index]),
        Arg::Octal => write!(text, "{:#o}", call.uint(index)),
        Arg::Ptr if call.args[index] == 0 => write!(text, "NULL"),
        Arg::Ptr => write!(text, "{:#x}", call.args[index]),
        Arg::Path => string(text, call.addr(index), 4096),
    }
}

fn flags(text: &mut String, value: u64, names: Names) -> core::fmt::Result {
    let mut rest = value;
    let mut is_first = true;
    for (bits, name) in names {
        if value & bits == *bits {
            rest &= !bits;
            write!(text, "{}{name}", if is_first { "" } else { "|" })?;
            is_first = false;
        }
    }
    match rest {
        0 if is_first => write!(text, "0"),
        0 => Ok(()),
        rest => write!(text, "{}{rest:#x}", if is_first { "" } else { "|" }),
    }
}

fn string(text: &mut String, addr: UserAddr, max: usize) -> core::fmt::Result {
    match user::read_c_string(addr, max, Errno::ENAMETOOLONG) {
        Ok(found) => write!(text, "\"{}\"", found.escape_ascii()),
        Err(_) if addr.is_null() => write!(text, "NULL"),
        Err(_) => write!(text, "{:#x}", addr.0),
    }
}

fn bytes(text: &mut String, addr: UserAddr, size: usize) -> core::fmt::Result {
    let mut shown = [0; SHOWN];
    let part = &mut shown[..size.min(SHOWN)];
    if user::read_bytes(addr, part).is_err() {
        return write!(text, "{:#x}", addr.0);
    }
    write!(text, "\"{}\"{}", part.escape_ascii(), if size > SHOWN { "..." } else { "" })
}

fn strings(text: &mut String, list: UserAddr) -> core::fmt::Result {
    text.push('[');
    for index in 0..STRINGS {
        let Ok(addr) = user::read::<usize>(list.offset(index * size_of::<usize>())) else { break };
        if addr == 0 {
            return write!(text, "]");
        }
        text.push_str(if index > 0 { ", " } else { "" });
        string(text, UserAddr(addr), 512)?;
    }
    write!(text, "...]")
}

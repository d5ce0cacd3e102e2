//! Memory: mmap(2) and its family.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::mm::{
    Advice, Backing, Fixed, ForkAdvice, Leave, MapRequest, MappableFile, MemoryLimits, Move, PAGE_SIZE, Placement, Prot,
    Sharing,
};
use crate::outside;
use crate::process::Resource;
use crate::process::credentials::Capability;
use crate::user;
use crate::vfs::mount::MS_NOEXEC;
use crate::vfs::mounts;
use crate::vfs::{Kind, OpenFile};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(9, "mmap", &[Arg::Ptr, Arg::Uint, Arg::Hex, Arg::Hex, Arg::Fd, Arg::Hex], sys_mmap)
        .but("no huge pages of one's own (MAP_HUGETLB), no MAP_SYNC; a shared file stands at one address, a second mapping gives it again"),
    Syscall::full(10, "mprotect", &[Arg::Ptr, Arg::Uint, Arg::Hex], sys_mprotect)
        .but("no PROT_GROWSUP: nothing grows up"),
    Syscall::full(11, "munmap", &[Arg::Ptr, Arg::Uint], sys_munmap),
    Syscall::full(12, "brk", &[Arg::Ptr], sys_brk),
    Syscall::full(25, "mremap", &[Arg::Ptr, Arg::Uint, Arg::Uint, Arg::Hex, Arg::Ptr], sys_mremap)
        .but("shared memory and program text don't move; shared memory grows where there is room"),
    Syscall::full(26, "msync", &[Arg::Ptr, Arg::Uint, Arg::Hex], sys_msync),
    Syscall::full(27, "mincore", &[Arg::Ptr, Arg::Uint, Arg::Ptr], sys_mincore),
    Syscall::full(28, "madvise", &[Arg::Ptr, Arg::Uint, Arg::Int], sys_madvise)
        .but("MADV_FREE frees nothing"),
    Syscall::full(149, "mlock", &[Arg::Ptr, Arg::Uint], sys_mlock),
    Syscall::full(150, "munlock", &[Arg::Ptr, Arg::Uint], sys_munlock),
    Syscall::full(151, "mlockall", &[Arg::Hex], sys_mlockall),
    Syscall::full(152, "munlockall", &[], sys_munlockall),
    Syscall::full(216, "remap_file_pages", &[Arg::Ptr, Arg::Uint, Arg::Hex, Arg::Uint, Arg::Hex], sys_remap_file_pages)
        .never("a page of an enclave has one address (ENOSYS)"),
    Syscall::full(329, "pkey_mprotect", &[Arg::Ptr, Arg::Uint, Arg::Hex, Arg::Int], sys_pkey_mprotect)
        .but("without a key only"),
    Syscall::full(330, "pkey_alloc", &[Arg::Hex, Arg::Hex], sys_pkey_alloc)
        .never("no protection keys (ENOSPC)"),
    Syscall::full(331, "pkey_free", &[Arg::Int], sys_pkey_free)
        .never("no protection keys"),
    Syscall::full(325, "mlock2", &[Arg::Ptr, Arg::Uint, Arg::Hex], sys_mlock2),
];

const MAP_SHARED: u64 = 0x01;
const MAP_PRIVATE: u64 = 0x02;
const MAP_SHARED_VALIDATE: u64 = 0x03;
const MAP_TYPE: u64 = 0x0f;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_32BIT: u64 = 0x40;
const MAP_GROWSDOWN: u64 = 0x100;
const MAP_LOCKED: u64 = 0x2000;
const MAP_NORESERVE: u64 = 0x4000;
const MAP_POPULATE: u64 = 0x8000;
const MAP_DENYWRITE: u64 = 0x800;
const MAP_STACK: u64 = 0x2_0000;
const MAP_HUGETLB: u64 = 0x4_0000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
/// Flags MAP_SHARED_VALIDATE accepts (`LEGACY_MAP_MASK` in Linux).
const MAP_KNOWN: u64 = MAP_SHARED | MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | 0x800 | 0x1000
    | MAP_32BIT | MAP_GROWSDOWN | MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | 0x1_0000 | MAP_STACK
    | MAP_HUGETLB;

fn sys_mmap(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.args[3];
    let offset = call.args[5];
    if !offset.is_multiple_of(PAGE_SIZE as u64) {
        return err(Errno::EINVAL, "offset not page-aligned");
    }
    if flags & MAP_HUGETLB != 0 {
        return err(Errno::ENOMEM, "no pool of huge pages");
    }
    if flags & MAP_LOCKED != 0 {
        check_may_lock(call)?;
    }
    let addr = call.size(0);
    let is_shown = outside::is_debugged() && is_code(flags, call.args[2]);
    let request = MapRequest {
        addr: (addr != 0 || is_fixed(flags)).then_some(addr),
        size: call.size(1),
        prot: Prot::from_bits(call.args[2]),
        sharing: if flags & MAP_TYPE == MAP_PRIVATE { Sharing::Private } else { Sharing::Shared },
        fixed: fixed(flags),
        placement: if flags & MAP_32BIT != 0 { Placement::Low2Gib } else { Placement::High },
        grows_down: flags & MAP_GROWSDOWN != 0,
        is_stack: flags & MAP_STACK != 0,
        is_unreserved: flags & MAP_NORESERVE != 0,
        // A debugger changes code that is there.
        is_populated: is_shown || flags & (MAP_POPULATE | MAP_LOCKED) != 0,
        is_locked: flags & MAP_LOCKED != 0,
        ..MapRequest::default()
    };
    if call.args[2] & 6 == 6 && call.thread.process().mdwe.load(Ordering::Relaxed) != 0 {
        return err(Errno::EACCES, "PR_SET_MDWE");
    }
    let request = if flags & MAP_ANONYMOUS != 0 {
        anonymous(request, flags)?
    } else {
        let file = call.thread.files().get_content(call.int(4))?;
        of_file(request, flags, &file, offset)?
    };
    let start = call.thread.space().map(request)?;
    if is_shown {
        show_code(call, start, offset)?;
    }
    Ok(start)
}

fn is_code(flags: u64, prot: u64) -> bool {
    flags & MAP_ANONYMOUS == 0 && Prot::from_bits(prot).contains(Prot::EXEC)
}

fn show_code(call: &Call<'_>, start: usize, offset: u64) -> Result<()> {
    let file = call.thread.files().get_content(call.int(4))?;
    if let Some(path) = file.path() {
        let process = call.thread.process().pid().into();
        outside::tell_mapped(start, offset, &path.name(&mounts::root()).text, process);
    }
    Ok(())
}

fn is_fixed(flags: u64) -> bool {
    flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0
}

fn fixed(flags: u64) -> Fixed {
    match flags {
        _ if flags & MAP_FIXED_NOREPLACE != 0 => Fixed::NoReplace,
        _ if flags & MAP_FIXED != 0 => Fixed::Replace,
        _ => Fixed::No,
    }
}

fn anonymous(request: MapRequest, flags: u64) -> Result<MapRequest> {
    request.check()?;
    match flags & MAP_TYPE {
        MAP_SHARED if request.grows_down => err(Errno::EINVAL, "shared memory does not grow down"),
        MAP_PRIVATE | MAP_SHARED => Ok(request),
        _ => err(Errno::EINVAL, "neither MAP_PRIVATE nor MAP_SHARED"),
    }
}

fn of_file(request: MapRequest, flags: u64, file: &Arc<OpenFile>, offset: u64) -> Result<MapRequest> {
    let request = MapRequest { is_write_denied: !file.is_writable(), ..request };
    request.check()?;
    match flags & MAP_TYPE {
        MAP_SHARED_VALIDATE if flags & !MAP_KNOWN != 0 => {
            return err(Errno::EOPNOTSUPP, "flag not known for this file");
        }
        MAP_SHARED | MAP_SHARED_VALIDATE => check_shared(&request, file)?,
        MAP_PRIVATE => {}
        _ => return err(Errno::EINVAL, "neither MAP_PRIVATE nor MAP_SHARED"),
    }
    if !file.is_readable() {
        return err(Errno::EACCES, "not open for reading");
    }
    if is_dev_zero(file) {
        return Ok(request);
    }
    if request.prot.contains(Prot::EXEC) && file.path().is_some_and(|path| path.mount.has(MS_NOEXEC)) {
        return err(Errno::EPERM, "executable from a noexec mount");
    }
    let mappable: Arc<dyn MappableFile> = file.mappable()?;
    if request.grows_down {
        return err(Errno::EINVAL, "files don't grow down");
    }
    // A private mapping may be made writable whatever the descriptor allows.
    let is_write_denied = request.is_write_denied && request.sharing == Sharing::Shared;
    let is_program = flags & MAP_DENYWRITE != 0;
    Ok(MapRequest { backing: Backing::File { file: mappable, offset }, is_write_denied, is_program, ..request })
}

fn check_shared(request: &MapRequest, file: &Arc<OpenFile>) -> Result<()> {
    if request.prot.contains(Prot::WRITE) && !file.is_writable() {
        return err(Errno::EACCES, "not open for writing");
    }
    Ok(())
}

/// Mapping `/dev/zero` is an old way to say MAP_ANONYMOUS.
fn is_dev_zero(file: &Arc<OpenFile>) -> bool {
    const DEV_ZERO: u64 = 1 << 8 | 5;
    let is_device = file.inode().is_some_and(|inode| inode.kind() == Kind::CharDevice);
    is_device && file.file().attr().is_ok_and(|attr| attr.rdev == DEV_ZERO)
}

fn sys_munmap(call: &mut Call<'_>) -> Result<usize> {
    call.thread.space().unmap(call.size(0), call.size(1)).map(|()| 0)
}

const PROT_SEM: u64 = 8;
const PROT_GROWSDOWN: u64 = 0x0100_0000;
const PROT_GROWSUP: u64 = 0x0200_0000;

fn sys_mprotect(call: &mut Call<'_>) -> Result<usize> {
    let bits = call.args[2];
    if bits & PROT_GROWSUP != 0 {
        return err(Errno::EINVAL, "nothing grows up");
    }
    if !call.size(0).is_multiple_of(PAGE_SIZE) {
        return err(Errno::EINVAL, "address not page-aligned");
    }
    if call.size(1) > 0 && bits & !(7 | PROT_SEM | PROT_GROWSDOWN) != 0 {
        return err(Errno::EINVAL, "unknown protection");
    }
    check_may_gain_exec(call, bits)?;
    if bits & PROT_GROWSDOWN != 0 && call.size(1) > 0 {
        let space = call.thread.space();
        return space.protect_grown(call.size(0), call.size(1), Prot::from_bits(bits)).map(|()| 0);
    }
    call.thread.space().protect(call.size(0), call.size(1), Prot::from_bits(bits)).map(|()| 0)
}

/// PR_SET_MDWE: what could be written, or was not executable, does not become so.
fn check_may_gain_exec(call: &Call<'_>, bits: u64) -> Result<()> {
    const PROT_EXEC: u64 = 4;
    if bits & PROT_EXEC == 0 || call.thread.process().mdwe.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    match call.thread.space().is_executable(call.size(0), call.size(1))? {
        true => Ok(()),
        false => err(Errno::EACCES, "PR_SET_MDWE"),
    }
}

fn sys_pkey_mprotect(call: &mut Call<'_>) -> Result<usize> {
    if call.int(3) != -1 {
        return err(Errno::EINVAL, "no such protection key");
    }
    sys_mprotect(call)
}

fn sys_pkey_alloc(call: &mut Call<'_>) -> Result<usize> {
    if call.args[0] != 0 || call.args[1] & !3 != 0 {
        return err(Errno::EINVAL, "flags or rights");
    }
    err(Errno::ENOSPC, "no protection keys")
}

fn sys_pkey_free(_call: &mut Call<'_>) -> Result<usize> {
    err(Errno::EINVAL, "no such protection key")
}

fn sys_brk(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.space().set_brk(call.size(0)))
}

const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;
const MREMAP_DONTUNMAP: u64 = 4;

fn sys_mremap(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.args[3];
    if flags & !(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) != 0 {
        return err(Errno::EINVAL, "unknown flag");
    }
    if flags & MREMAP_DONTUNMAP != 0 && flags & MREMAP_MAYMOVE == 0 {
        return err(Errno::EINVAL, "MREMAP_DONTUNMAP without MREMAP_MAYMOVE");
    }
    let leave = if flags & MREMAP_DONTUNMAP != 0 { Leave::Zeros } else { Leave::Nothing };
    let to = match flags & !MREMAP_DONTUNMAP {
        MREMAP_FIXED => return err(Errno::EINVAL, "MREMAP_FIXED without MREMAP_MAYMOVE"),
        0 => Move::No,
        MREMAP_MAYMOVE => Move::Anywhere,
        _ => Move::To(call.size(4)),
    };
    call.thread.space().remap(call.size(0), call.size(1), call.size(2), to, leave)
}

const MS_ASYNC: u64 = 1;
const MS_INVALIDATE: u64 = 2;
const MS_SYNC: u64 = 4;

fn sys_msync(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.args[2];
    if flags & !(MS_ASYNC | MS_INVALIDATE | MS_SYNC) != 0 {
        return err(Errno::EINVAL, "unknown flag");
    }
    if !call.size(0).is_multiple_of(PAGE_SIZE) {
        return err(Errno::EINVAL, "address not page-aligned");
    }
    if flags & MS_ASYNC != 0 && flags & MS_SYNC != 0 {
        return err(Errno::EINVAL, "MS_ASYNC and MS_SYNC");
    }
    call.thread.space().sync(call.size(0), call.size(1), flags & MS_INVALIDATE != 0).map(|()| 0)
}

/// The answer of mincore(2) goes out in pieces of this many pages.
const MINCORE_PIECE: usize = 4096;

fn sys_mincore(call: &mut Call<'_>) -> Result<usize> {
    let (start, size, vector) = (call.size(0), call.size(1), call.addr(2));
    let pages = size.div_ceil(PAGE_SIZE);
    for first in (0..pages).step_by(MINCORE_PIECE) {
        let count = MINCORE_PIECE.min(pages - first);
        let at = start.saturating_add(first * PAGE_SIZE);
        let present = call.thread.space().mincore(at, count * PAGE_SIZE)?;
        user::write_bytes(vector.offset(first), &present)?;
    }
    if pages == 0 {
        call.thread.space().mincore(start, 0)?;
    }
    Ok(0)
}

fn sys_madvise(call: &mut Call<'_>) -> Result<usize> {
    let advice = match call.int(2) {
        // NORMAL RANDOM SEQUENTIAL, MERGEABLE .. DODUMP, COLLAPSE
        0..=2 | 12..=17 | 25 => Advice::Tuning,
        9 => Advice::Remove,
        20 | 21 => Advice::Evict,
        24 => Advice::DontNeedLocked,
        10 => Advice::OnFork(ForkAdvice::Skip),
        11 => Advice::OnFork(ForkAdvice::DontSkip),
        18 => Advice::OnFork(ForkAdvice::Wipe),
        19 => Advice::OnFork(ForkAdvice::DontWipe),
        3 => Advice::WillNeed,
        4 => Advice::DontNeed,
        8 => Advice::Free,
        22 => Advice::Populate(Prot::READ),
        23 => Advice::Populate(Prot::WRITE),
        100 | 101 => return err(Errno::EPERM, "no memory failures to simulate"),
        _ => return err(Errno::EINVAL, "unknown advice"),
    };
    call.thread.space().advise(call.size(0), call.size(1), advice).map(|()| 0)
}

/// mlock(2): EPERM for who may lock nothing at all.
fn check_may_lock(call: &Call<'_>) -> Result<()> {
    let process = call.thread.process();
    let is_privileged = call.thread.credentials().has(Capability::IpcLock);
    if !is_privileged && process.limit(Resource::MEMLOCK).soft == 0 {
        return err(Errno::EPERM, "RLIMIT_MEMLOCK is 0");
    }
    // Root's limit is none.
    let limits = process.memory_limits();
    let locked = if is_privileged { usize::MAX } else { limits.locked };
    call.thread.space().set_limits(MemoryLimits { locked, ..limits });
    Ok(())
}

fn sys_mlock(call: &mut Call<'_>) -> Result<usize> {
    check_may_lock(call)?;
    call.thread.space().lock_pages(call.size(0), call.size(1)).map(|()| 0)
}

const MLOCK_ONFAULT: i32 = 1;

fn sys_mlock2(call: &mut Call<'_>) -> Result<usize> {
    if call.int(2) & !MLOCK_ONFAULT != 0 {
        return err(Errno::EINVAL, "unknown flag");
    }
    sys_mlock(call)
}

fn sys_munlock(call: &mut Call<'_>) -> Result<usize> {
    call.thread.space().unlock_pages(call.size(0), call.size(1)).map(|()| 0)
}

const MCL_CURRENT: i32 = 1;
const MCL_FUTURE: i32 = 2;
const MCL_ONFAULT: i32 = 4;

fn sys_mlockall(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.int(0);
    if flags == 0 || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags == MCL_ONFAULT {
        return err(Errno::EINVAL, "unknown flag");
    }
    check_may_lock(call)?;
    call.thread.space().lock_all(flags & MCL_CURRENT != 0, flags & MCL_FUTURE != 0)?;
    Ok(0)
}

fn sys_munlockall(call: &mut Call<'_>) -> Result<usize> {
    call.thread.space().unlock_all();
    Ok(0)
}

fn sys_remap_file_pages(_call: &mut Call<'_>) -> Result<usize> {
    err(Errno::ENOSYS, "deprecated, and a page has one address")
}

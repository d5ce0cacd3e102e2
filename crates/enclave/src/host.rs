//! The door to the host: ocalls, and the host memory their data passes through.
//!
//! Nothing from here is trusted: results are [`Untrusted`] until checked, host memory is a
//! [`HostSlice`] that can only be copied. A lie has a name, [`HostMisbehaved`].

use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use occlum_abi::errno::Errno;
use occlum_abi::layout::{self, ELRANGE_END, PAGE_SIZE, USER_BASE, USER_END};
use occlum_abi::ocall::{Ocall, PROTECT_POPULATE, SharedPage, StopReason};

use crate::copy;
use crate::entry;
use crate::user;
use crate::vcpu;

pub use occlum_abi::boot::LogLevel;

#[allow(missing_docs)]
pub const PROT_READ: u32 = 1;
#[allow(missing_docs)]
pub const PROT_WRITE: u32 = 2;
#[allow(missing_docs)]
pub const PROT_EXEC: u32 = 4;

/// The host gave something no honest host gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostMisbehaved {
    /// An address inside the enclave, or not canonical, where host memory was due.
    BadPointer,
    /// Host memory that was promised can't be read or written.
    UnreadableMemory,
    /// A length or count larger than the buffer it describes.
    BadLength(Ocall),
    /// A result outside what the call can give.
    BadResult(Ocall),
    /// A descriptor that can't be one, or that the host has given already.
    BadDescriptor(Ocall),
    /// A socket address of another family or size.
    BadAddress(Ocall),
    /// A handover field out of range.
    BadHandover(&'static str),
    /// A block of the file-system image is not the one that was measured.
    ChangedImage,
    /// The kernel gets less memory than the configuration grants it.
    NoMemory,
    /// A request that is none.
    BadRequest,
    /// Clock parameters that make time stand still or jump beyond reason.
    BadClock,
}

impl fmt::Display for HostMisbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostMisbehaved::BadPointer => f.write_str("a pointer into the enclave"),
            HostMisbehaved::UnreadableMemory => f.write_str("inaccessible host memory"),
            HostMisbehaved::BadLength(call) => write!(f, "{call:?}: impossible length"),
            HostMisbehaved::BadResult(call) => write!(f, "{call:?}: impossible result"),
            HostMisbehaved::BadDescriptor(call) => write!(f, "{call:?}: bad descriptor"),
            HostMisbehaved::BadAddress(call) => write!(f, "{call:?}: bad address"),
            HostMisbehaved::BadHandover(field) => write!(f, "handover: {field}"),
            HostMisbehaved::ChangedImage => f.write_str("a changed block of the image"),
            HostMisbehaved::NoMemory => f.write_str("no memory for the kernel"),
            HostMisbehaved::BadRequest => f.write_str("a request that is none"),
            HostMisbehaved::BadClock => f.write_str("impossible clock parameters"),
        }
    }
}

/// A value the host chose.
#[derive(Clone, Copy)]
#[must_use]
pub struct Untrusted<T>(T);

impl<T> Untrusted<T> {
    pub(crate) fn new(value: T) -> Untrusted<T> {
        Untrusted(value)
    }

    /// Gives the value to `check`, which returns what may be believed, or nothing for a lie.
    pub fn check<U>(
        self,
        lie: HostMisbehaved,
        check: impl FnOnce(T) -> Option<U>,
    ) -> Result<U, HostMisbehaved> {
        check(self.0).ok_or(lie)
    }
}

impl Untrusted<i64> {
    /// An ocall's result: a value in `0..=max`, or an errno. Anything else is a lie.
    pub fn at_most(self, call: Ocall, max: usize) -> Result<Result<usize, Errno>, HostMisbehaved> {
        let value = self.0;
        if value < 0 {
            let errno = i32::try_from(value.unsigned_abs()).ok().and_then(Errno::from_raw);
            return errno.map(Err).ok_or(HostMisbehaved::BadResult(call));
        }
        match usize::try_from(value) {
            Ok(value) if value <= max => Ok(Ok(value)),
            _ => Err(HostMisbehaved::BadLength(call)),
        }
    }
}

/// A range of host memory. It may change at any time: copy once, then look.
#[derive(Clone, Copy, Debug)]
pub struct HostSlice {
    addr: usize,
    size: usize,
}

impl HostSlice {
    /// A range that lies outside the enclave.
    pub fn new(addr: u64, size: u64) -> Result<HostSlice, HostMisbehaved> {
        let end = addr.checked_add(size).ok_or(HostMisbehaved::BadPointer)?;
        if addr < ELRANGE_END as u64 || end > 1 << 47 {
            return Err(HostMisbehaved::BadPointer);
        }
        Ok(HostSlice { addr: addr as usize, size: size as usize })
    }

    /// Address, for arguments of ocalls.
    pub fn addr(&self) -> u64 {
        self.addr as u64
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The part `offset..offset + size`; `None` if it does not fit.
    pub fn part(&self, offset: usize, size: usize) -> Option<HostSlice> {
        if offset > self.size || size > self.size - offset {
            return None;
        }
        Some(HostSlice { addr: self.addr + offset, size })
    }

    /// Copies the first `buf.len()` bytes into the enclave.
    pub fn read(&self, buf: &mut [u8]) -> Result<(), HostMisbehaved> {
        if buf.len() > self.size {
            return Err(HostMisbehaved::UnreadableMemory);
        }
        // SAFETY: the destination is ours; the source is outside the enclave; faults are reported.
        let left = unsafe { copy::copy_unowned(buf.as_mut_ptr(), self.addr as *const u8, buf.len()) };
        if left == 0 { Ok(()) } else { Err(HostMisbehaved::UnreadableMemory) }
    }

    /// Copies `bytes` out of the enclave.
    pub fn write(&self, bytes: &[u8]) -> Result<(), HostMisbehaved> {
        if bytes.len() > self.size {
            return Err(HostMisbehaved::UnreadableMemory);
        }
        // SAFETY: the destination is outside the enclave; faults are reported.
        let left = unsafe { copy::copy_unowned(self.addr as *mut u8, bytes.as_ptr(), bytes.len()) };
        if left == 0 { Ok(()) } else { Err(HostMisbehaved::UnreadableMemory) }
    }
}

static STAGING: AtomicUsize = AtomicUsize::new(0);
static STAGING_SIZE: AtomicUsize = AtomicUsize::new(0);
static SHARED: AtomicUsize = AtomicUsize::new(0);
/// Bit v: the kernel set `want_tick[v]`.
static WANT_TICK: AtomicU64 = AtomicU64::new(0);

/// Largest staging buffer. The kernel allocates room for what a full one can hold.
const STAGING_MAX: u64 = 4 << 20;

/// Checks and records the host's buffers; before this only ocalls without data work.
pub(crate) fn set_buffers(shared: u64, staging: u64, size: u64, vcpus: u32) -> Result<(), HostMisbehaved> {
    HostSlice::new(shared, size_of::<SharedPage>() as u64)?;
    let all = size.checked_mul(u64::from(vcpus)).ok_or(HostMisbehaved::BadPointer)?;
    HostSlice::new(staging, all)?;
    if !(PAGE_SIZE as u64..=STAGING_MAX).contains(&size) || !staging.is_multiple_of(64) {
        return Err(HostMisbehaved::BadHandover("staging"));
    }
    if !shared.is_multiple_of(PAGE_SIZE as u64) {
        return Err(HostMisbehaved::BadHandover("shared"));
    }
    SHARED.store(shared as usize, Ordering::Relaxed);
    STAGING.store(staging as usize, Ordering::Relaxed);
    STAGING_SIZE.store(size as usize, Ordering::Release);
    Ok(())
}

/// The staging buffer of this vCPU. Valid until the caller switches tasks.
pub fn staging() -> HostSlice {
    let size = STAGING_SIZE.load(Ordering::Relaxed);
    HostSlice { addr: STAGING.load(Ordering::Relaxed) + vcpu::index() * size, size }
}

/// The shared page, for [`crate::time`] and ticks.
pub(crate) fn shared() -> Option<&'static SharedPage> {
    let addr = SHARED.load(Ordering::Relaxed);
    // SAFETY: the range was checked to lie outside the enclave; all fields are atomics, so a host
    // that changes them at any time is no undefined behaviour. If the host unmaps it, the access
    // faults and the enclave stops (`lang.rs`).
    unsafe { (addr as *const SharedPage).as_ref() }
}

/// Whether an address is in host memory.
pub(crate) fn is_host_address(address: usize) -> bool {
    address >= ELRANGE_END
}

/// An ocall that neither changes the enclave's memory nor its execution. For all others there are
/// functions below that check what they are given.
///
/// # Panics
/// If `call` is one of those others.
pub fn call(call: Ocall, args: [u64; 5]) -> Untrusted<i64> {
    assert!(call as u64 >= Ocall::Read as u64 || call == Ocall::Random, "{call:?} has its own function");
    Untrusted::new(ocall(call, args).0)
}

fn ocall(call: Ocall, args: [u64; 5]) -> (i64, u64) {
    let components = user::all_components();
    user::evict_resident();
    // Nothing secret leaves in vector registers, nothing the host put there comes in.
    user::reset_vector_registers(components);
    // SAFETY: the user's state is in memory; the calls that touch enclave memory are made only by
    // the functions of this module that check their ranges.
    let result =
        unsafe { entry::ocall_exit(call as u64, args[0], args[1], args[2], args[3], args[4]) };
    user::reset_vector_registers(components);
    (result.value, result.second)
}

pub(crate) fn log(level: LogLevel, text: &str) {
    let buffer = staging();
    for line in text.as_bytes().chunks(buffer.size().max(1)) {
        if buffer.size() == 0 || buffer.write(line).is_err() {
            return;
        }
        ocall(Ocall::Log, [level as u64, buffer.addr(), line.len() as u64, 0, 0]);
    }
}

/// Ends the instance with the program's wait status.
pub fn exit(wait_status: u32) -> ! {
    loop {
        ocall(Ocall::Exit, [u64::from(wait_status), 0, 0, 0, 0]);
    }
}

/// Stops the enclave; the reason was logged before.
pub fn stop(reason: StopReason) -> ! {
    stop_with(reason, [0; 4])
}

/// Stops the enclave because of a lie. Allocates nothing and needs no buffer: there may be none yet.
pub fn stop_for(lie: HostMisbehaved) -> ! {
    let mut text = ShortText::default();
    // What does not fit is cut.
    let _ = fmt::write(&mut text, format_args!("{lie}"));
    stop_with(StopReason::HostMisbehaved, text.words())
}

fn stop_with(reason: StopReason, [t0, t1, t2, t3]: [u64; 4]) -> ! {
    loop {
        ocall(Ocall::Stop, [reason as u64, t0, t1, t2, t3]);
    }
}

/// Text that fits into the registers of an ocall.
#[derive(Default)]
struct ShortText {
    bytes: [u8; 32],
    used: usize,
}

impl ShortText {
    fn words(&self) -> [u64; 4] {
        let (words, _) = self.bytes.as_chunks::<8>();
        core::array::from_fn(|i| u64::from_le_bytes(words[i]))
    }
}

impl fmt::Write for ShortText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, byte) in self.bytes[self.used..].iter_mut().zip(text.bytes()) {
            *to = byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// Waits for a wake-up, a host event or `deadline_ns` (CLOCK_MONOTONIC; `u64::MAX` = none). Gives the
/// number of events the host wrote to the staging buffer.
pub fn park(deadline_ns: u64) -> Untrusted<i64> {
    Untrusted::new(ocall(Ocall::Park, [deadline_ns, 0, 0, 0, 0]).0)
}

/// Wakes a vCPU that is, or is about to be, parked.
pub fn wake(vcpu: usize) {
    ocall(Ocall::Wake, [vcpu as u64, 0, 0, 0, 0]);
}

/// Interrupts user code on a vCPU.
pub fn kick(vcpu: usize) {
    ocall(Ocall::Kick, [vcpu as u64, 0, 0, 0, 0]);
}

/// Whether this vCPU wants ticks (see `SharedPage::want_tick`). Costs an ocall only if the ticker sleeps.
pub fn want_tick(wanted: bool) {
    let bit = 1u64 << vcpu::index();
    let had = WANT_TICK.load(Ordering::Relaxed) & bit != 0;
    if had == wanted {
        return;
    }
    let Some(shared) = shared() else { return };
    shared.want_tick[vcpu::index()].store(u32::from(wanted), Ordering::SeqCst);
    if !wanted {
        WANT_TICK.fetch_and(!bit, Ordering::Relaxed);
        return;
    }
    WANT_TICK.fetch_or(bit, Ordering::Relaxed);
    if shared.ticker_asleep.load(Ordering::SeqCst) != 0 {
        ocall(Ocall::StartTicker, [0; 5]);
    }
}

/// Tells the host which process this vCPU runs, for a debugger or a profile.
pub fn publish_running(process: u32) {
    if let Some(shared) = shared() {
        shared.running[vcpu::index()].store(process, Ordering::Relaxed);
    }
}

/// Whether the host says that requests wait. A hint, asked often.
pub fn has_requests() -> bool {
    shared().is_some_and(|shared| shared.requests.load(Ordering::Relaxed) != 0)
}

/// The host would not change page permissions: out of memory, or of mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtectError;

/// Sets the permissions of user pages; pages not yet there are added, zeroed.
///
/// # Panics
/// If the range is not page-aligned or not in the user range.
pub fn protect_user(addr: usize, size: usize, prot: u32) -> Result<(), ProtectError> {
    check_user_range(addr, size);
    memory_call(Ocall::Protect, addr, size, prot)
}

/// Permissions for [`protect_user`]: the (writable) pages will be used at once, bring them in now.
pub const PROT_POPULATE: u32 = PROTECT_POPULATE as u32;

/// Replaces user pages by new ones that hold `content`, which no thread sees half-made.
///
/// # Panics
/// As [`protect_user`], with `content` a whole number of pages.
pub fn install_user(addr: usize, content: &[u8], prot: u32) -> Result<(), ProtectError> {
    check_user_range(addr, content.len());
    let (source, size) = (content.as_ptr() as u64, content.len() as u64);
    memory_result(Ocall::Install, [addr as u64, size, u64::from(prot), source, 0])
}

/// Drops user pages: their content is lost and they become inaccessible.
///
/// # Panics
/// As [`protect_user`].
pub fn release_user(addr: usize, size: usize) -> Result<(), ProtectError> {
    check_user_range(addr, size);
    memory_call(Ocall::Release, addr, size, 0)
}

/// Drops the content of user pages but keeps their permissions `prot`: they read as zeros.
///
/// # Panics
/// As [`protect_user`].
pub fn discard_user(addr: usize, size: usize, prot: u32) -> Result<(), ProtectError> {
    check_user_range(addr, size);
    memory_call(Ocall::Discard, addr, size, prot)
}

fn check_user_range(addr: usize, size: usize) {
    assert!(addr.is_multiple_of(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE), "page alignment");
    assert!(addr >= USER_BASE && size <= USER_END && addr <= USER_END - size, "not user memory");
}

/// Permissions of kernel memory; for the modules of this crate that own the range.
pub(crate) fn protect_kernel(addr: usize, size: usize, prot: u32) -> Result<(), ProtectError> {
    debug_assert!(addr >= layout::KERNEL_BASE);
    memory_call(Ocall::Protect, addr, size, prot)
}

fn memory_call(call: Ocall, addr: usize, size: usize, prot: u32) -> Result<(), ProtectError> {
    memory_result(call, [addr as u64, size as u64, u64::from(prot), 0, 0])
}

fn memory_result(call: Ocall, args: [u64; 5]) -> Result<(), ProtectError> {
    let (result, _) = ocall(call, args);
    // On hardware the EACCEPTs that follow verify what the host did; in simulation there is nothing
    // between the host and memory anyway.
    match Untrusted(result).at_most(call, 0) {
        Ok(answer) => answer.map(|_| ()).map_err(|_| ProtectError),
        Err(lie) => stop_for(lie),
    }
}

/// EAX, EBX, ECX, EDX of CPUID as the host tells them. For programs only: nothing about them can be
/// checked, so the kernel does not act on them.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let buffer = staging();
    let args = [u64::from(leaf), u64::from(subleaf), buffer.addr(), 0, 0];
    if Untrusted(ocall(Ocall::Cpuid, args).0).at_most(Ocall::Cpuid, 0) != Ok(Ok(0)) {
        stop_for(HostMisbehaved::BadResult(Ocall::Cpuid));
    }
    let mut bytes = [0; 16];
    buffer.read(&mut bytes).unwrap_or_else(|lie| stop_for(lie));
    let (words, _) = bytes.as_chunks::<4>();
    core::array::from_fn(|i| u32::from_le_bytes(words[i]))
}

/// Asks the host to refresh the clock parameters.
pub(crate) fn update_time() {
    ocall(Ocall::UpdateTime, [0; 5]);
}

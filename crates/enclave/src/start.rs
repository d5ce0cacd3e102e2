//! First code of each vCPU: set up its page, check what the host hands over, then enter the kernel.

use core::sync::atomic::{AtomicU8, Ordering};

use alloc::vec;
use alloc::vec::Vec;
use occlum_abi::boot::{
    BOOT_CONFIG_VERSION, BootConfig, CpuMode, HOST_INFO_VERSION, HostInfo, LogLevel, RunRequest,
};
use occlum_abi::layout;
use occlum_abi::ocall::{Entry, StopReason};

use crate::copy;
use crate::entry;
use crate::exception::GPR_SIZE;
use crate::heap;
use crate::host::{self, HostMisbehaved, HostSlice};
use crate::log;
use crate::user;
use crate::vcpu::{self, VcpuPage};

/// What the kernel starts from.
pub struct Boot {
    /// Measured.
    pub config: BootConfig,
    /// What the person asked for; untrusted.
    pub request: RunRequest,
    /// The file-system image, in host memory.
    pub image: HostSlice,
    /// AT_HWCAP and AT_HWCAP2 for programs; untrusted, used for nothing else.
    pub hwcap: [u64; 2],
}

/// 0 = not known yet, 1 = hardware, 2 = simulation.
static CPU: AtomicU8 = AtomicU8::new(0);

/// Largest run request the kernel takes from the host, in bytes. Decoded it is up to 24 times as large
/// (empty strings), and a vector doubles as it grows: the heap must bear that.
const REQUEST_MAX: u64 = 4 << 20;
const REQUEST_GROWTH: u64 = 64;

/// Called from `first_entry` on the idle stack.
pub(crate) extern "C" fn start_vcpu(command: u64, host_info: u64, page: *mut VcpuPage) -> ! {
    // SAFETY: `page` is GS base, this vCPU's zeroed page.
    unsafe { set_up_page(page) };
    let config = config_bytes();
    // The mode first: decoding the rest needs the heap, which needs ocalls, which need the mode. Every
    // vCPU reads it for itself: one that is interrupted while it waits must know how to leave.
    let mode = postcard::take_from_bytes::<(u32, CpuMode)>(config).map(|((_, mode), _)| mode);
    set_cpu_mode(page, mode != Ok(CpuMode::Hardware));
    if vcpu::index() != 0 {
        start_other(command);
    }
    let config = match postcard::from_bytes::<BootConfig>(config) {
        Ok(config) if config.version == BOOT_CONFIG_VERSION => config,
        Ok(_) => cannot_start("the boot configuration is of another version"),
        Err(_) => cannot_start("the boot configuration can't be decoded"),
    };
    let taken = check_command(command).and_then(|()| take_over(config, host_info));
    match taken {
        Ok(boot) => crate::occlum_kernel_main(boot),
        Err(lie) => host::stop_for(lie),
    }
}

/// Every vCPU but the first: waits until the kernel can schedule.
fn start_other(command: u64) -> ! {
    vcpu::wait_for_release();
    if let Err(lie) = check_command(command) {
        host::stop_for(lie);
    }
    // It has no staging buffer: the kernel was told of fewer.
    if vcpu::index() >= vcpu::count() {
        host::stop_for(HostMisbehaved::BadHandover("vcpus"));
    }
    // What the host left there would become the first user's.
    user::reset_vector_registers(user::all_components());
    crate::occlum_kernel_vcpu_main(vcpu::index())
}

fn check_command(command: u64) -> Result<(), HostMisbehaved> {
    let is_start = command == Entry::Start as u64;
    is_start.then_some(()).ok_or(HostMisbehaved::BadHandover("command"))
}

/// # Safety
/// `page` is this vCPU's page, zeroed.
unsafe fn set_up_page(page: *mut VcpuPage) {
    let area = page as usize - layout::VCPU_PAGE;
    // SAFETY: the caller's promise; nobody else touches the page yet.
    unsafe {
        (*page).this = page as usize;
        (*page).index = (area - layout::VCPU_AREA_BASE) / layout::VCPU_AREA_STRIDE;
        (*page).syscall_entry = entry::syscall_entry as *const () as usize;
        (*page).cpuid_entry = entry::cpuid_entry as *const () as usize;
        (*page).exception_stack_top =
            area + layout::VCPU_EXCEPTION_STACK + layout::VCPU_EXCEPTION_STACK_SIZE;
        (*page).ssa0_gpr = area + layout::VCPU_SSA + layout::SSA_FRAME_SIZE - GPR_SIZE;
        (*page).ssa1_gpr = area + layout::VCPU_SSA + 2 * layout::SSA_FRAME_SIZE - GPR_SIZE;
    }
}

/// Whether the CPU is the software one; measured, so not the host's to say.
pub(crate) fn is_simulated() -> bool {
    CPU.load(Ordering::Acquire) == 2
}

fn set_cpu_mode(page: *mut VcpuPage, simulated: bool) {
    CPU.store(if simulated { 2 } else { 1 }, Ordering::Release);
    // SAFETY: this vCPU's page.
    unsafe { (*page).simulated = u8::from(simulated) };
}

/// The measured configuration, postcard-encoded; empty if the builder wrote an impossible length.
fn config_bytes() -> &'static [u8] {
    // SAFETY: the builder maps the configuration read-only at this address, length first; the length
    // is part of the measurement, so it is trusted to lie in the mapping.
    unsafe {
        let size = (layout::BOOT_CONFIG_BASE as *const u64).read() as usize;
        if size > layout::BOOT_CONFIG_MAX - 8 {
            return &[];
        }
        core::slice::from_raw_parts((layout::BOOT_CONFIG_BASE + 8) as *const u8, size)
    }
}

fn take_over(config: BootConfig, host_info: u64) -> Result<Boot, HostMisbehaved> {
    let info = copy_host_info(host_info)?;
    if info.version != HOST_INFO_VERSION {
        return Err(HostMisbehaved::BadHandover("version"));
    }
    let vcpus = info.vcpus;
    if vcpus == 0 || vcpus > config.vcpus || vcpus as usize > layout::MAX_VCPUS {
        return Err(HostMisbehaved::BadHandover("vcpus"));
    }
    host::set_buffers(info.shared, info.staging, info.staging_size, vcpus)?;
    vcpu::set_count(vcpus);
    set_vector_state(&info)?;
    let heap_size = config.resource_limits.kernel_heap_size;
    heap::set_limit(heap_size as usize);
    let image = HostSlice::new(info.image, info.image_size)?;
    let request = read_request(&info, heap_size)?;
    log::set_level(permitted_level(&config, request.log_level));
    Ok(Boot { config, request, image, hwcap: [info.hwcap, info.hwcap2] })
}

fn copy_host_info(addr: u64) -> Result<HostInfo, HostMisbehaved> {
    HostSlice::new(addr, size_of::<HostInfo>() as u64)?;
    let mut info = core::mem::MaybeUninit::<HostInfo>::zeroed();
    // SAFETY: HostInfo is plain integers, for which any bytes are valid; the source is outside the
    // enclave and a fault is reported.
    let left = unsafe {
        copy::copy_unowned(info.as_mut_ptr().cast(), addr as *const u8, size_of::<HostInfo>())
    };
    if left != 0 {
        return Err(HostMisbehaved::UnreadableMemory);
    }
    // SAFETY: all bytes were written.
    Ok(unsafe { info.assume_init() })
}

/// x87, SSE, AVX, AVX-512 and PKRU: what a context has room for.
const XFRM_SUPPORTED: u64 = 0x2e7;

fn set_vector_state(info: &HostInfo) -> Result<(), HostMisbehaved> {
    let xfrm = info.xfrm & XFRM_SUPPORTED;
    // A component that is not saved would pass from one program to another.
    if !is_enabled(xfrm, user::enabled_components()) {
        return Err(HostMisbehaved::BadHandover("xfrm"));
    }
    let size = info.xsave_size as usize;
    if size < user::measure_xsave(xfrm) || size > user::XSAVE_MAX {
        return Err(HostMisbehaved::BadHandover("xsave_size"));
    }
    user::set_xfrm(xfrm, size);
    user::reset_vector_registers(xfrm);
    cpufeatures::allow(xfrm);
    Ok(())
}

/// Whether `xfrm` is what the CPU has enabled. XCR0 in an enclave is its XFRM; the software CPU can't
/// change XCR0, so there PKRU may be enabled though XFRM does not have it.
fn is_enabled(xfrm: u64, enabled: u64) -> bool {
    const PKRU: u64 = 1 << 9;
    let may_lack = if CPU.load(Ordering::Relaxed) == 2 { PKRU } else { 0 };
    xfrm & !enabled == 0 && enabled & XFRM_SUPPORTED & !xfrm & !may_lack == 0
}

fn read_request(info: &HostInfo, heap: u64) -> Result<RunRequest, HostMisbehaved> {
    if info.request_size > REQUEST_MAX.min(heap / REQUEST_GROWTH) {
        return Err(HostMisbehaved::BadHandover("request_size"));
    }
    let mut bytes: Vec<u8> = vec![0; info.request_size as usize];
    HostSlice::new(info.request, info.request_size)?.read(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(|_| HostMisbehaved::BadHandover("request"))
}

/// The host asks for a log level; the builder decides how far it may go.
pub fn permitted_level(config: &BootConfig, asked: LogLevel) -> LogLevel {
    if config.disable_log {
        return LogLevel::Off;
    }
    if config.debuggable { asked } else { asked.min(LogLevel::Info) }
}

/// The configuration, the image or the request can't be used. The reason is written whatever the log
/// level is.
pub fn cannot_start(reason: &str) -> ! {
    log::write_unfiltered(LogLevel::Error, reason);
    host::stop(StopReason::CannotStart)
}

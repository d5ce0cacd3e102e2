//! The vDSO: one image of code (`vdso/vdso.c`, built with the kernel) and one page of clock data, at the
//! same place in every space. The data is the kernel's: programs can only read it.
//!
//! ```text
//! clock page   seq u64 | tsc_base u64 | mult u64 | monotonic_ns u64 | realtime_ns u64
//! ```
//! `seq` is odd while the kernel writes, and 0 before it first did.

use occlum_abi::layout::PAGE_SIZE;
use occlum_enclave::time::ClockParams;
use occlum_enclave::usermem;
use spin::Once;
use zerocopy::IntoBytes;

use super::grant::{no_host_memory, set_host_prot};
use super::territory;
use super::vma::{OnFork, Prot, Source, Vma, VmaSet};
use super::commit;
use crate::error::Result;
use crate::sched::SpinLock;

static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vdso.so"));

/// Address of the clock page; the image follows it.
static CLOCK_PAGE: Once<usize> = Once::new();
/// `seq` of what was published last.
static PUBLISHED: SpinLock<u64> = SpinLock::new(0);

/// Everything after `seq`.
#[derive(zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct ClockData {
    tsc_base: u64,
    mult: u64,
    monotonic_ns: u64,
    realtime_ns: u64,
}

/// Puts the vDSO into the user range; once, at boot.
pub(super) fn init() -> Result<()> {
    let size = PAGE_SIZE + image_size();
    let start = territory::take_global(size)?;
    commit::grant(size)?;
    set_host_prot(&(start..start + size), Prot::READ_WRITE)?;
    usermem::write(start + PAGE_SIZE, IMAGE).map_err(|_| no_host_memory())?;
    set_host_prot(&(start..start + PAGE_SIZE), Prot::READ)?;
    set_host_prot(&(start + PAGE_SIZE..start + size), Prot::READ_EXEC)?;
    CLOCK_PAGE.call_once(|| start);
    Ok(())
}

/// Where the image's ELF header is: AT_SYSINFO_EHDR. `None` before [`super::init`].
pub fn base() -> Option<usize> {
    CLOCK_PAGE.get().map(|page| page + PAGE_SIZE)
}

/// Sets what programs compute clocks from: what the kernel does (`time::adopt_host_clock`). Costs two
/// calls to the host: once a second is fine.
pub fn publish(params: &ClockParams) -> Result<()> {
    let Some(&page) = CLOCK_PAGE.get() else { return Ok(()) };
    let range = page..page + PAGE_SIZE;
    let mut published = PUBLISHED.lock();
    set_host_prot(&range, Prot::READ_WRITE)?;
    let data = ClockData {
        tsc_base: params.tsc_base,
        mult: u64::from(params.mult),
        monotonic_ns: params.monotonic_ns,
        realtime_ns: params.realtime_ns,
    };
    let (odd, even) = (*published + 1, *published + 2);
    // Each word is stored whole and in this order (copies of less than 128 bytes move by words, and
    // x86 does not reorder stores), which is all that readers rely on.
    let written = usermem::write(page, &odd.to_le_bytes())
        .and_then(|()| usermem::write(page + 8, data.as_bytes()))
        .and_then(|()| usermem::write(page, &even.to_le_bytes()));
    set_host_prot(&range, Prot::READ)?;
    written.map_err(|_| no_host_memory())?;
    *published = even;
    Ok(())
}

/// Shows the vDSO in a new space.
pub(super) fn map_into(vmas: &mut VmaSet) {
    let Some(&page) = CLOCK_PAGE.get() else { return };
    let code = page + PAGE_SIZE;
    vmas.insert(global(page..code, Prot::READ, Source::Vvar));
    vmas.insert(global(code..code + image_size(), Prot::READ_EXEC, Source::Vdso));
}

fn global(range: core::ops::Range<usize>, prot: Prot, source: Source) -> Vma {
    Vma {
        start: range.start,
        end: range.end,
        prot,
        source,
        is_shared: false,
        grows_down: false,
        is_stack: false,
        is_locked: false,
        is_write_denied: true,
        on_fork: OnFork::COPY,
        is_pristine: true,
        repeats: 0,
    }
}

fn image_size() -> usize {
    IMAGE.len().next_multiple_of(PAGE_SIZE)
}

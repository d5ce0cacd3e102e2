//! Pages of the enclave at run time: what EAUG, EMODPR and EREMOVE do on hardware.

use super::{Call, Served};
use crate::memory::Protection;
use occlum_abi::ocall::PROTECT_POPULATE;
use rustix::io::Errno;
use std::ops::Range;

/// Grants of at least this size may use large pages. A fault costs microseconds on a virtual machine,
/// and large pages have 512 times fewer; small grants would waste memory with them.
const HUGE_GRANT: usize = 2 << 20;

pub(super) fn protect(call: &Call) -> Served {
    let pages = pages(call)?;
    let (protection, is_needed_now) = protection(call.args[2])?;
    let range = call.instance.enclave.range();
    range.protect(pages.clone(), protection)?;
    let is_data = protection.contains(Protection::WRITE) && !protection.contains(Protection::EXEC);
    if is_data && pages.len() >= HUGE_GRANT {
        // Only advice: a system without large pages does without.
        let _ = range.prefer_huge_pages(pages.clone());
    }
    if is_data && is_needed_now {
        // Advice too; what fails here fails at the access with the proper error.
        let _ = range.populate(pages);
    }
    Ok(().into())
}

pub(super) fn release(call: &Call) -> Served {
    call.instance.enclave.range().release(pages(call)?)?;
    Ok(().into())
}

pub(super) fn discard(call: &Call) -> Served {
    let pages = pages(call)?;
    let (protection, _) = protection(call.args[2])?;
    let range = call.instance.enclave.range();
    range.discard(pages.clone())?;
    range.protect(pages, protection)?;
    Ok(().into())
}

pub(super) fn install(call: &Call) -> Served {
    let pages = pages(call)?;
    let (protection, _) = protection(call.args[2])?;
    let source = usize::try_from(call.args[3]).map_err(|_| Errno::INVAL)?;
    call.instance
        .enclave
        .range()
        .install(pages, protection, source)?;
    Ok(().into())
}

fn pages(call: &Call) -> Result<Range<usize>, Errno> {
    let start = usize::try_from(call.args[0]).map_err(|_| Errno::INVAL)?;
    let size = usize::try_from(call.args[1]).map_err(|_| Errno::INVAL)?;
    let end = start.checked_add(size).ok_or(Errno::INVAL)?;
    Ok(start..end)
}

fn protection(argument: u64) -> Result<(Protection, bool), Errno> {
    let is_needed_now = argument & PROTECT_POPULATE != 0;
    let bits = u32::try_from(argument & !PROTECT_POPULATE).map_err(|_| Errno::INVAL)?;
    let allowed = Protection::READ | Protection::WRITE | Protection::EXEC;
    let protection = Protection::from_bits(bits).filter(|asked| allowed.contains(*asked));
    Ok((protection.ok_or(Errno::INVAL)?, is_needed_now))
}

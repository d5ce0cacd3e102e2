//! Where the program thinks it is: patched system-call sites run in stubs.

use crate::mm;

/// The address in the program's own code for `rip`.
pub fn original(rip: usize) -> usize {
    mm::current().map_or(rip, |space| mm::original_rip(&space, rip))
}

/// Where the code of the program's address `rip` runs.
pub fn patched(rip: usize) -> usize {
    mm::current().map_or(rip, |space| mm::patched_rip(&space, rip))
}

/// AT_SYSINFO_EHDR; 0 for none.
pub fn vdso_base() -> usize {
    mm::vdso::base().unwrap_or(0)
}

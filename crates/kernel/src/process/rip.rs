//! Where the program thinks it is: patched system-call sites run in stubs.

/// The address in the program's own code for `rip`.
pub fn original(rip: usize) -> usize {
    rip
}

/// Where the code of the program's address `rip` runs.
pub fn patched(rip: usize) -> usize {
    rip
}

/// AT_SYSINFO_EHDR; 0 for none.
pub fn vdso_base() -> usize {
    0
}

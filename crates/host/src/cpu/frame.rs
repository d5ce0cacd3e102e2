//! The memory that belongs to one logical processor of the software CPU: its hidden state, the area
//! where a leaf function keeps the enclave's vector state, and the signal stack, in one aligned block.
//!
//! ```text
//! +0        HostThread (this file)
//! +0x1000   XSAVE area, used while a leaf function runs
//! +0x5000   guard page
//! +0x6000   signal stack, up to the block's end
//! ```
//!
//! The signal handler begins with the enclave's registers and the enclave's FS base. It finds the
//! block by rounding its stack pointer down to `BLOCK_SIZE`; EEXIT finds it through the TCS.

use crate::memory::Mapping;
use occlum_sgx::ssa::{GPRSGX_SIZE, Gprsgx};
use rustix::io::Errno;
use std::ffi::c_void;

pub const BLOCK_SIZE: usize = 128 << 10;
pub const LEAF_XSAVE: usize = 0x1000;
const GUARD: usize = 0x5000;
const SIGNAL_STACK: usize = 0x6000;

/// What IRETQ pops.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct InterruptReturn {
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Hidden state of one logical processor. `asm.rs` reads and writes it by offset; a signal handler
/// may run between any two instructions, so Rust touches it only through a raw pointer.
#[repr(C, align(64))]
pub struct HostThread {
    /// RSP outside, as the exit must leave it.
    pub host_rsp: u64,
    pub host_fs: u64,
    /// Linear address of the TCS.
    pub tcs: u64,
    /// Linear addresses from the TCS: OENTRY, OFSBASE, OGSBASE.
    pub entry: u64,
    pub enter_fs: u64,
    pub enter_gs: u64,
    /// The frame SSA\[CSSA\] and the GPRSGX in it.
    pub frame: u64,
    pub gprsgx: u64,
    /// XFRM without what the process has no permission for.
    pub xfrm: u64,
    pub iret: InterruptReturn,
    /// RSP and FS base of the enclave while a leaf function runs.
    pub leaf_rsp: u64,
    pub leaf_fs: u64,
    /// 1 from the last instruction before the enclave to the first one after it.
    pub inside: u32,
    pub cssa: u32,
    pub nssa: u32,
    /// What the last AEX was about.
    pub aex: AexCause,
    pub ssa: u64,
    pub ssa_frame_size: u64,
    pub xsave_size: u64,
    /// MISCSELECT of the enclave.
    pub miscselect: u32,
    /// `occlum_sgx::einit::Enclave`, for leaf functions.
    pub identity: *const c_void,
}

/// Cause of an AEX, as the host sees it. The enclave reads its own in the SSA frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AexCause {
    /// The signal that interrupted the enclave.
    pub signal: i32,
    /// Exception vector and error code; `vector` is negative for an interrupt.
    pub vector: i32,
    pub error: u32,
    /// Linear address of a page fault.
    pub address: u64,
}

/// Owns one block.
pub struct Block {
    mapping: Mapping,
    offset: usize,
}

impl Block {
    pub fn new() -> Result<Block, Errno> {
        let mapping = Mapping::anonymous(2 * BLOCK_SIZE)?;
        let offset = mapping.address().next_multiple_of(BLOCK_SIZE) - mapping.address();
        mapping.guard(offset + GUARD..offset + SIGNAL_STACK)?;
        Ok(Block { mapping, offset })
    }

    pub fn thread(&self) -> *mut HostThread {
        self.mapping.pointer(self.offset).cast()
    }

    /// Address and size of the signal stack.
    pub fn signal_stack(&self) -> (usize, usize) {
        (
            self.mapping.address() + self.offset + SIGNAL_STACK,
            BLOCK_SIZE - SIGNAL_STACK,
        )
    }
}

const _: () = assert!(size_of::<HostThread>() <= LEAF_XSAVE);

impl Default for HostThread {
    fn default() -> HostThread {
        // SAFETY: integers and a raw pointer; zero is a value of each.
        unsafe { std::mem::zeroed() }
    }
}

impl HostThread {
    /// Makes `cssa` the current frame. At NSSA, the pointers are beyond the last one and EENTER refuses.
    pub fn select_frame(&mut self, cssa: u32) {
        self.cssa = cssa;
        self.frame = self.ssa + u64::from(cssa) * self.ssa_frame_size;
        self.gprsgx = self.gprsgx_of(cssa).addr() as u64;
    }

    /// GPRSGX of a frame.
    pub fn gprsgx_of(&self, frame: u32) -> *const Gprsgx {
        let end = self.ssa + u64::from(frame + 1) * self.ssa_frame_size;
        std::ptr::with_exposed_provenance((end - GPRSGX_SIZE as u64) as usize)
    }
}

impl AexCause {
    /// Not an exception: something from outside the enclave.
    pub fn is_interrupt(&self) -> bool {
        self.vector < 0
    }
}

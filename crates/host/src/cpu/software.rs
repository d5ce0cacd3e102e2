//! One logical processor of the software CPU: a thread attached to a TCS.

use super::asm;
use super::enclave::{CpuError, Enclave, TcsSlot};
use super::frame::{Block, HostThread};
use super::{Cpu, Exit, Refused, Registers};
use crate::memory::Protection;
use crate::sys;
use occlum_abi::layout;
use occlum_sgx::ssa::Gprsgx;
use rustix::io::Errno;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

const PAGE: usize = layout::PAGE_SIZE;

/// CS and SS of 64-bit user code on Linux.
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2B;

/// `cpu_eenter`, or what stands in for it.
pub type Eenter = unsafe extern "C" fn(*mut HostThread, *mut Registers) -> u32;

/// The thread that created it, as a logical processor. It can't move to another thread.
pub struct SoftwareCpu {
    block: Block,
    enclave: Arc<Enclave>,
    slot: usize,
    _not_send: PhantomData<*mut ()>,
}

impl SoftwareCpu {
    /// Takes the TCS with this index, in order of addresses. From now on the thread can make system
    /// calls from host code only.
    pub fn attach(enclave: Arc<Enclave>, index: usize) -> Result<SoftwareCpu, CpuError> {
        let slot = enclave.tcs(index).ok_or(CpuError::NoTcs(index))?;
        if !sys::has_fsgsbase() {
            return Err(CpuError::NoFsGsBase);
        }
        if !slot.take() {
            return Err(CpuError::NoTcs(index));
        }
        let block = Block::new()?;
        // SAFETY: a new block, big enough and zeroed; nobody else knows it yet.
        unsafe { block.thread().write(hidden_state(&enclave, slot)) };
        write_hidden_pointer(&enclave, slot, block.thread())?;
        // SAFETY: `drop` takes the stack away before the block goes.
        unsafe { sys::set_signal_stack(Some(block.signal_stack()))? };
        sys::refuse_detours().map_err(CpuError::NoFilter)?;
        sys::refuse_calls_from_enclave().map_err(CpuError::NoUserDispatch)?;
        Ok(SoftwareCpu {
            block,
            enclave,
            slot: index,
            _not_send: PhantomData,
        })
    }

    /// EENTER by a function with the contract of `cpu_eenter` (`asm.rs`): a test double that enters
    /// with other registers goes there by way of its own.
    ///
    /// # Safety
    /// `eenter` keeps that contract.
    pub unsafe fn enter_by(
        &mut self,
        eenter: Eenter,
        registers: &mut Registers,
    ) -> Result<Exit, Refused> {
        let (cssa, nssa) = self.cssa();
        if cssa >= nssa {
            return Err(Refused::NoFrame { cssa, nssa });
        }
        // SAFETY: the block is this thread's, the frame exists, the signal stack is set.
        let how = unsafe { eenter(self.block.thread(), registers) };
        self.exit(how)
    }

    fn exit(&self, how: u32) -> Result<Exit, Refused> {
        match how {
            asm::LEFT_BY_EEXIT => Ok(Exit::Eexit),
            // SAFETY: the block lives; its thread is here, outside the enclave.
            asm::LEFT_BY_AEX => Ok(Exit::Aex(unsafe { (*self.block.thread()).aex })),
            _ => Err(Refused::LeftAstray),
        }
    }

    fn cssa(&self) -> (u32, u32) {
        let thread = self.block.thread();
        // SAFETY: as in `exit`.
        unsafe { ((*thread).cssa, (*thread).nssa) }
    }
}

impl Cpu for SoftwareCpu {
    fn enter(&mut self, registers: &mut Registers) -> Result<Exit, Refused> {
        // SAFETY: the CPU's own instruction.
        unsafe { self.enter_by(asm::cpu_eenter, registers) }
    }

    fn resume(&mut self, registers: &mut Registers) -> Result<Exit, Refused> {
        let (cssa, _) = self.cssa();
        if cssa == 0 {
            return Err(Refused::NothingToResume);
        }
        let thread = self.block.thread();
        // SAFETY: as in `enter`; an AEX has filled the frame.
        let how = unsafe {
            (*thread).select_frame(cssa - 1);
            asm::cpu_eresume(thread, registers)
        };
        self.exit(how)
    }

    fn saved_registers(&self, frame: u32) -> Option<Gprsgx> {
        let (_, nssa) = self.cssa();
        if frame >= nssa || !self.enclave.is_debuggable() {
            return None;
        }
        let thread = self.block.thread();
        // SAFETY: as in `exit`; a frame of the enclave, which its thread is not using.
        unsafe { Some((*thread).gprsgx_of(frame).read()) }
    }
}

impl Drop for SoftwareCpu {
    fn drop(&mut self) {
        // SAFETY: no handler runs on it now: this is the thread.
        let is_stackless = unsafe { sys::set_signal_stack(None) }.is_ok();
        if let Some(slot) = self.enclave.tcs(self.slot).filter(|_| is_stackless) {
            slot.give_back();
        }
    }
}

fn hidden_state(enclave: &Enclave, slot: &TcsSlot) -> HostThread {
    let base = layout::ELRANGE_BASE as u64;
    let secs = &enclave.identity().secs;
    let (xfrm, xsave_size) = enclave.extended_state();
    let mut thread = HostThread {
        host_fs: sys::fs_base(),
        tcs: slot.at as u64,
        entry: base + slot.tcs.oentry.get(),
        enter_fs: base + slot.tcs.ofs_base.get(),
        enter_gs: base + slot.tcs.ogs_base.get(),
        xfrm,
        nssa: slot.tcs.nssa.get(),
        ssa: base + slot.tcs.ossa.get(),
        ssa_frame_size: u64::from(secs.ssa_frame_size.get()) * PAGE as u64,
        xsave_size,
        miscselect: secs.miscselect.get(),
        identity: ptr::from_ref(enclave.identity()).cast(),
        ..HostThread::default()
    };
    thread.iret.cs = USER_CS;
    thread.iret.ss = USER_SS;
    thread.select_frame(0);
    thread
}

/// The TCS page is read-only to all; the pointer goes in while the processor is not in the enclave.
fn write_hidden_pointer(
    enclave: &Enclave,
    slot: &TcsSlot,
    thread: *mut HostThread,
) -> Result<(), Errno> {
    let page = slot.at..slot.at + PAGE;
    let pointer = thread.expose_provenance().to_le_bytes();
    enclave
        .range()
        .protect(page.clone(), Protection::READ | Protection::WRITE)?;
    // SAFETY: the page is writable now, and only its own processor, which is here, uses it.
    unsafe {
        enclave
            .range()
            .write(slot.at + layout::SIM_TCS_HIDDEN, &pointer)
    };
    enclave.range().protect(page, Protection::READ)
}

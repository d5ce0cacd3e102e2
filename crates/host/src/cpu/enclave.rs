//! Building an enclave by the architecture's rules, and the enclave that comes out.
//!
//! Pages are real memory with the permissions of their SECINFO. While they are added, whole windows
//! around them are writable; EINIT sets the permissions, run by run.

use super::{asm, signal};
use crate::memory::{Elrange, Mapping, Protection};
use crate::sys;
use occlum_abi::layout;
use occlum_sgx::attributes::{AttributeFlags, Miscselect, Xfrm};
use occlum_sgx::ecreate::{self, Capabilities, EcreateError};
use occlum_sgx::einit::{self, EinitError};
use occlum_sgx::measure::Measurement;
use occlum_sgx::secinfo::{PageType, Permissions, SecInfo, SecInfoError};
use occlum_sgx::secs::Secs;
use occlum_sgx::sigstruct::SigStruct;
use occlum_sgx::tcs::{Tcs, TcsError};
use occlum_sgx::{FromBytes, FromZeros, IntoBytes};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = layout::PAGE_SIZE;
const CHUNK: usize = 256;
/// What becomes writable at once while pages are added.
const WINDOW: usize = 2 << 20;

/// Why the CPU refuses to build or start an enclave.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    #[error("ECREATE: {0}")]
    Ecreate(#[from] EcreateError),
    #[error("ECREATE: the software CPU has one range, {base:#x} with {size:#x} bytes", base = layout::ELRANGE_BASE, size = layout::ELRANGE_SIZE)]
    OtherRange,
    #[error("the memory below {end:#x} can't be reserved for the enclave: {0}", end = layout::ELRANGE_END)]
    Reserve(Errno),
    #[error("EADD: {0}")]
    SecInfo(#[from] SecInfoError),
    #[error("EADD: page {0:#x} can't be added there, or was added before")]
    PageAddress(u64),
    #[error("EEXTEND: {0:#x} is not 256 bytes of a page that was added")]
    ChunkAddress(u64),
    #[error("TCS {at:#x}: {error}")]
    Tcs { at: usize, error: TcsError },
    #[error("EINIT (code {}): {_0}", .0.code())]
    Einit(#[from] EinitError),
    #[error("TCS {0:#x}: the SSA frames, the entry or the vCPU page are not where they must be")]
    TcsLayout(usize),
    #[error("the image has no free TCS with index {0}")]
    NoTcs(usize),
    #[error("the CPU or the system lacks FSGSBASE (Linux 5.9 or later is needed)")]
    NoFsGsBase,
    #[error("the system has no Syscall User Dispatch (Linux 5.11 or later is needed): {0}")]
    NoUserDispatch(Errno),
    #[error("the system refuses a seccomp filter: {0}")]
    NoFilter(Errno),
    #[error("{0}")]
    System(#[from] Errno),
}

/// An enclave between ECREATE and EINIT.
pub struct Builder {
    range: Elrange,
    secs: Secs,
    measurement: Measurement,
    pages: BTreeMap<usize, SecInfo>,
    windows: Vec<usize>,
}

impl Builder {
    /// `sigstruct` says with which ATTRIBUTES and MISCSELECT the enclave wants to be created.
    pub fn ecreate(
        size: u64,
        ssa_frame_size: u32,
        sigstruct: &SigStruct,
    ) -> Result<Builder, CpuError> {
        let cpu_xfrm = Xfrm::from_bits_truncate(sys::usable_xfrm());
        let attributes = sigstruct.attributes_on(cpu_xfrm);
        let base = layout::ELRANGE_BASE as u64;
        let secs = Secs::new(
            base,
            size,
            ssa_frame_size,
            sigstruct.miscselect().bits(),
            attributes,
        );
        ecreate::check(&secs, &capabilities(cpu_xfrm, attributes.xfrm()))?;
        if size != layout::ELRANGE_SIZE as u64 {
            return Err(CpuError::OtherRange);
        }
        Ok(Builder {
            range: Elrange::reserve().map_err(CpuError::Reserve)?,
            secs,
            measurement: Measurement::ecreate(size, ssa_frame_size),
            pages: BTreeMap::new(),
            windows: Vec::new(),
        })
    }

    /// Adds a page of zeros at `offset` from the base; `eextend` and `load` fill it.
    pub fn eadd(&mut self, offset: u64, secinfo: &SecInfo) -> Result<(), CpuError> {
        secinfo.check_eadd()?;
        let at = offset as usize;
        let is_inside = (layout::USER_BASE..layout::ELRANGE_END).contains(&at);
        if !at.is_multiple_of(PAGE) || !is_inside || self.pages.contains_key(&at) {
            return Err(CpuError::PageAddress(offset));
        }
        self.open_window(at & !(WINDOW - 1))?;
        self.pages.insert(at, secinfo.as_added());
        self.measurement.eadd(offset, secinfo);
        Ok(())
    }

    /// 256 bytes of a page, loaded and measured.
    pub fn eextend(&mut self, offset: u64, data: &[u8; CHUNK]) -> Result<(), CpuError> {
        self.load(offset, data)?;
        self.measurement.eextend(offset, data);
        Ok(())
    }

    /// 256 bytes of a page, not measured.
    pub fn load(&mut self, offset: u64, data: &[u8; CHUNK]) -> Result<(), CpuError> {
        let at = offset as usize;
        if !at.is_multiple_of(CHUNK) || !self.pages.contains_key(&(at & !(PAGE - 1))) {
            return Err(CpuError::ChunkAddress(offset));
        }
        // The page is zeros; writing those again would only cost a page fault.
        if data.iter().any(|&byte| byte != 0) {
            // SAFETY: the page was added, so its window is writable, and nobody is in the enclave.
            unsafe { self.range.write(at, data) };
        }
        Ok(())
    }

    /// Checks measurement and signature; the enclave can then be entered.
    pub fn einit(mut self, sigstruct: &SigStruct) -> Result<Arc<Enclave>, CpuError> {
        self.secs.mrenclave = self.measurement.clone().finish();
        let identity = einit::check(&self.secs, sigstruct)?;
        let tcss = self.tcss()?;
        self.set_permissions()?;
        let gate = gate()?;
        signal::install_handlers()?;
        Ok(Arc::new(Enclave {
            range: self.range,
            identity,
            tcss,
            _gate: gate,
        }))
    }

    fn open_window(&mut self, window: usize) -> Result<(), CpuError> {
        if self.windows.last() == Some(&window) || self.windows.contains(&window) {
            return Ok(());
        }
        let pages = self.window_pages(window);
        self.range
            .protect(pages, Protection::READ | Protection::WRITE)?;
        self.windows.push(window);
        Ok(())
    }

    fn window_pages(&self, window: usize) -> Range<usize> {
        window.max(layout::USER_BASE)..window + WINDOW
    }

    fn set_permissions(&self) -> Result<(), CpuError> {
        for &window in &self.windows {
            let pages = self.window_pages(window);
            let mut run = pages.start;
            while run < pages.end {
                let protection = self.protection_of(run);
                let same = (run..pages.end)
                    .step_by(PAGE)
                    .take_while(|&at| self.protection_of(at) == protection);
                let end = run + same.count() * PAGE;
                self.range.protect(run..end, protection)?;
                run = end;
            }
        }
        Ok(())
    }

    fn protection_of(&self, at: usize) -> Protection {
        let Some(secinfo) = self.pages.get(&at) else {
            return Protection::empty();
        };
        if secinfo.page_type() == Some(PageType::Tcs) {
            // The gate reads the hidden pointer in it; nobody writes.
            return Protection::READ;
        }
        let given = secinfo.permissions();
        [
            (Permissions::R, Protection::READ),
            (Permissions::W, Protection::WRITE),
            (Permissions::X, Protection::EXEC),
        ]
        .into_iter()
        .filter(|(permission, _)| given.contains(*permission))
        .fold(Protection::empty(), |all, (_, protection)| all | protection)
    }

    fn tcss(&self) -> Result<Vec<TcsSlot>, CpuError> {
        let is_tcs = |secinfo: &SecInfo| secinfo.page_type() == Some(PageType::Tcs);
        let at = self
            .pages
            .iter()
            .filter(|(_, secinfo)| is_tcs(secinfo))
            .map(|(&at, _)| at);
        at.map(|at| self.tcs(at)).collect()
    }

    fn tcs(&self, at: usize) -> Result<TcsSlot, CpuError> {
        let mut bytes = [0; PAGE];
        // SAFETY: a page that was added, still readable; nobody writes to it.
        unsafe { ptr::copy_nonoverlapping(ptr::without_provenance(at), bytes.as_mut_ptr(), PAGE) };
        let tcs = Tcs::read_from_bytes(&bytes).unwrap_or_else(|_| Tcs::new_zeroed());
        tcs.check_eadd()
            .map_err(|error| CpuError::Tcs { at, error })?;
        if tcs.as_bytes() != tcs.as_added().as_bytes() || !self.is_enterable(at, &tcs) {
            return Err(CpuError::TcsLayout(at));
        }
        Ok(TcsSlot {
            at,
            tcs,
            is_taken: AtomicBool::new(false),
        })
    }

    /// The SSA frames are writable pages, the entry lies inside, and the vCPU page stands where the
    /// gate looks for the TCS.
    fn is_enterable(&self, at: usize, tcs: &Tcs) -> bool {
        let ssa = tcs.ossa.get() as usize;
        let size = tcs.nssa.get() as usize * self.secs.ssa_frame_size.get() as usize * PAGE;
        let writable = Protection::READ | Protection::WRITE;
        let is_saved = |page| self.protection_of(page) == writable;
        tcs.nssa.get() > 0
            && (ssa..ssa.saturating_add(size)).step_by(PAGE).all(is_saved)
            && tcs.oentry.get() < layout::ELRANGE_SIZE as u64
            && tcs.ofs_base.get() < layout::ELRANGE_SIZE as u64
            && tcs.ogs_base.get() == (at + layout::VCPU_PAGE) as u64
    }
}

fn capabilities(cpu_xfrm: Xfrm, xfrm: Xfrm) -> Capabilities {
    let attributes = AttributeFlags::DEBUG
        | AttributeFlags::MODE64BIT
        | AttributeFlags::PROVISIONKEY
        | AttributeFlags::KSS;
    Capabilities {
        attributes,
        xfrm: cpu_xfrm,
        miscselect: Miscselect::EXINFO,
        max_size_bits: layout::ELRANGE_SIZE.ilog2(),
        xsave_size: sys::xsave_size(xfrm.bits()) as u32,
    }
}

/// The page that answers ENCLU.
fn gate() -> Result<Mapping, Errno> {
    // jmp *2(%rip); ud2; target
    let mut code = vec![0xFF, 0x25, 2, 0, 0, 0, 0x0F, 0x0B];
    code.extend(asm::gate_address().to_le_bytes());
    Mapping::code_at(layout::SIM_ENCLU_GATE, &code)
}

/// An initialised enclave.
pub struct Enclave {
    range: Elrange,
    identity: einit::Enclave,
    tcss: Vec<TcsSlot>,
    _gate: Mapping,
}

/// A TCS, which serves one thread at a time.
pub struct TcsSlot {
    pub at: usize,
    pub tcs: Tcs,
    is_taken: AtomicBool,
}

impl TcsSlot {
    /// False if another thread has it.
    pub fn take(&self) -> bool {
        !self.is_taken.swap(true, Ordering::AcqRel)
    }

    pub fn give_back(&self) {
        self.is_taken.store(false, Ordering::Release);
    }
}

impl Enclave {
    pub fn range(&self) -> &Elrange {
        &self.range
    }

    /// Who it is, for keys and reports.
    pub fn identity(&self) -> &einit::Enclave {
        &self.identity
    }

    /// TCSs by ascending address.
    pub fn tcs(&self, index: usize) -> Option<&TcsSlot> {
        self.tcss.get(index)
    }

    pub fn tcs_count(&self) -> usize {
        self.tcss.len()
    }

    pub fn is_debuggable(&self) -> bool {
        self.identity
            .secs
            .attributes
            .contains(AttributeFlags::DEBUG)
    }

    /// XFRM, and the bytes of an XSAVE area for it.
    pub fn extended_state(&self) -> (u64, u64) {
        let xfrm = self.identity.secs.attributes.xfrm().bits();
        (xfrm, sys::xsave_size(xfrm))
    }
}

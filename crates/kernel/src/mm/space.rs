//! [`AddressSpace`]: the mappings of one process, or of several that share them (CLONE_VM).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use occlum_abi::layout::{PAGE_SIZE, USER_BASE, USER_END};
use spin::Once;

use super::brk::Brk;
use super::commit;
use super::file::FileIdentity;
use super::overlay::{Group, Overlay};
use super::ranges::RangeSet;
use super::request::MemoryLimits;
use super::residency::OVERLAID;
use super::stubs::StubArea;
use super::territory::Territory;
use super::vdso;
use super::vma::{Prot, Source, Vma, VmaSet};
use crate::error::{Errno, Result, err};
use crate::sched::Mutex;

/// The user memory of a process.
pub struct AddressSpace {
    /// Never used again, and not 0.
    pub(super) id: usize,
    pub(super) this: Weak<AddressSpace>,
    pub(super) inner: Mutex<Space>,
    /// Its tasks may not enter user code or touch user memory: another member of its group is in place,
    /// or wants to be, or it is folded.
    pub(super) is_shut: AtomicBool,
    /// A task entered since `fold.rs` last looked.
    pub(super) was_entered: AtomicBool,
    /// Its place in the list of `fold.rs`; 0 is none.
    pub(super) candidate: AtomicUsize,
    pub(super) group: Once<Arc<Group>>,
    /// Threads that run in it.
    threads: Arc<AtomicUsize>,
}

/// What a new [`AddressSpace`] is made of.
pub(super) struct Parts {
    pub vmas: VmaSet,
    pub territory: Territory,
    pub granted: RangeSet,
    pub brk: Brk,
    pub stubs: BTreeMap<usize, StubArea>,
    pub limits: MemoryLimits,
    pub overlay: Overlay,
}

impl Parts {
    /// Nothing but the vDSO.
    pub fn new(territory: Territory) -> Parts {
        let mut vmas = VmaSet::default();
        vdso::map_into(&mut vmas);
        Parts {
            vmas,
            territory,
            granted: RangeSet::new(),
            brk: Brk::default(),
            stubs: BTreeMap::new(),
            limits: MemoryLimits::default(),
            overlay: Overlay::none(),
        }
    }
}

/// What an [`AddressSpace`] guards.
pub(super) struct Space {
    pub vmas: VmaSet,
    pub territory: Territory,
    /// Pages that mappings have, but for those of global objects. Disjoint from `territory.warm`.
    pub granted: RangeSet,
    pub brk: Brk,
    /// Areas of patched system calls, by the address of their first stub.
    pub stubs: BTreeMap<usize, StubArea>,
    pub limits: MemoryLimits,
    pub overlay: Overlay,
    /// Its pages are inaccessible although they are granted (`fold.rs`).
    pub is_folded: bool,
    /// What it counts for in `fold.rs`.
    pub weight: usize,
    /// [`AddressSpace::id`]
    pub id: usize,
    /// A mapping is being made: the program does not know its address yet.
    pub is_mapping: bool,
    /// mlockall(MCL_FUTURE).
    pub locks_future: bool,
    threads: Arc<AtomicUsize>,
}

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub start: usize,
    pub end: usize,
    pub prot: Prot,
    pub is_shared: bool,
    /// Into the file.
    pub offset: u64,
    pub file: FileIdentity,
    /// Path, `[heap]` and the like, or empty.
    pub name: String,
    /// Bytes that are present.
    pub resident: usize,
    /// How often the process has mapped it; once but for parts of shared objects.
    pub times: usize,
    pub is_locked: bool,
}

/// Bytes, for `/proc/PID/statm` and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceUsage {
    pub mapped: usize,
    pub resident: usize,
    pub locked: usize,
    /// Private and writable.
    pub data: usize,
    pub stack: usize,
    /// Executable.
    pub text: usize,
}

impl AddressSpace {
    /// A space with nothing in it but the vDSO. If `program` ran before, what it left is reused.
    pub fn new(program: FileIdentity) -> Result<Arc<AddressSpace>> {
        Ok(AddressSpace::from_parts(Parts::new(Territory::new(program)?)))
    }

    pub(super) fn from_parts(parts: Parts) -> Arc<AddressSpace> {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(1);
        let overlaid = if parts.overlay.group.is_none() { 0 } else { OVERLAID };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed) | overlaid;
        let threads = Arc::new(AtomicUsize::new(0));
        let Parts { vmas, territory, granted, brk, stubs, limits, overlay } = parts;
        let group = overlay.group.clone().map_or_else(Once::new, Once::initialized);
        let is_shut = AtomicBool::new(!overlay.is_in_place);
        let space = Space {
            vmas,
            territory,
            granted,
            brk,
            stubs,
            limits,
            overlay,
            is_folded: false,
            weight: 0,
            id,
            is_mapping: false,
            locks_future: false,
            threads: threads.clone(),
        };
        let inner = Mutex::new(space);
        Arc::new_cyclic(|this| AddressSpace {
            id,
            this: this.clone(),
            inner,
            is_shut,
            was_entered: AtomicBool::new(true),
            candidate: AtomicUsize::new(0),
            group,
            threads,
        })
    }

    /// A thread will run in this space, until [`AddressSpace::thread_leaves`].
    pub fn thread_joins(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
    }

    pub fn thread_leaves(&self) {
        self.threads.fetch_sub(1, Ordering::Relaxed);
    }

    /// The program is loaded and user code may run: what the last one left becomes inaccessible, but for text
    /// and constants of files, which the program most likely maps next.
    pub fn close_standing(&self) -> Result<()> {
        self.inner.lock().close_standing(&(0..usize::MAX), |_, _| true)?;
        self.may_be_folded();
        Ok(())
    }

    /// The limits for the calls that follow.
    pub fn set_limits(&self, limits: MemoryLimits) {
        self.inner.lock().limits = limits;
    }

    /// Calls `f` for each mapping, ascending. `f` must not use the space.
    pub fn for_each_mapping(&self, mut f: impl FnMut(&Mapping)) {
        let space = self.inner.lock();
        for vma in space.vmas.iter() {
            f(&space.describe(vma));
        }
    }

    /// The mapping that holds `address`.
    pub fn mapping_at(&self, address: usize) -> Option<Mapping> {
        let space = self.inner.lock();
        space.vmas.at(address).map(|vma| space.describe(vma))
    }

    /// Bytes of its own that are present; 0 while somebody works on the space.
    pub fn resident(&self) -> usize {
        self.inner.try_lock().map_or(0, |space| space.granted.size())
    }

    pub fn usage(&self) -> SpaceUsage {
        let space = self.inner.lock();
        let mut usage = SpaceUsage { resident: space.granted.size(), ..SpaceUsage::default() };
        for vma in space.vmas.iter() {
            usage.add(vma);
        }
        usage
    }
}

impl SpaceUsage {
    fn add(&mut self, vma: &Vma) {
        let size = vma.size();
        self.mapped += size;
        self.locked += if vma.is_locked { size } else { 0 };
        self.text += if vma.prot.contains(Prot::EXEC) { size } else { 0 };
        match vma.source {
            Source::Stack => self.stack += size,
            _ if vma.prot.contains(Prot::WRITE) && !vma.is_shared => self.data += size,
            _ => {}
        }
    }
}

impl Space {
    /// Whether another thread may touch pages while they are made.
    pub fn is_shown_to_others(&self) -> bool {
        !self.is_mapping && self.threads.load(Ordering::Relaxed) > 1
    }

    fn describe(&self, vma: &Vma) -> Mapping {
        let (offset, file, name) = match &vma.source {
            Source::Anonymous => (0, FileIdentity::default(), String::new()),
            Source::File { file, offset } => (*offset, file.identity(), file.name()),
            Source::Shared { object, offset } => (*offset, object.identity(), object.name()),
            Source::Heap => (0, FileIdentity::default(), "[heap]".into()),
            Source::Stack => (0, FileIdentity::default(), "[stack]".into()),
            Source::Stubs => (0, FileIdentity::default(), "[stubs]".into()),
            Source::Vdso => (0, FileIdentity::default(), "[vdso]".into()),
            Source::Vvar => (0, FileIdentity::default(), "[vvar]".into()),
        };
        let parts = self.granted.within(vma.range());
        let resident = parts.iter().map(|part| part.end - part.start).sum();
        let Vma { start, end, prot, is_shared, is_locked, repeats, .. } = *vma;
        let times = 1 + repeats as usize;
        Mapping { start, end, prot, is_shared, offset, file, name, resident, is_locked, times }
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        self.is_no_candidate();
        if let Some(group) = self.group.get() {
            group.leave(self);
        }
    }
}

impl Drop for Space {
    /// Nobody runs here any more: pages are kept warm for the next space where they are, and what
    /// is left goes back to the host.
    fn drop(&mut self) {
        let known = self.known_content();
        self.weigh_nothing();
        self.retire_all();
        self.vmas.clear();
        for (range, content) in known {
            self.territory.warm.describe(range, content);
        }
    }
}

/// Page-aligns `[addr, addr + size)` for calls that take existing ranges: `addr` must be aligned
/// (EINVAL), the range must lie in the user range (`outside`).
pub(super) fn page_range(addr: usize, size: usize, outside: Errno) -> Result<core::ops::Range<usize>> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return err(Errno::EINVAL, "address not page-aligned");
    }
    let end = size.checked_next_multiple_of(PAGE_SIZE).and_then(|size| addr.checked_add(size));
    match end {
        Some(end) if end <= USER_END => Ok(addr..end),
        _ => err(outside, "beyond the user range"),
    }
}

/// Whether a program may map at `addr` (mmap_min_addr).
pub(super) fn is_mappable(addr: usize) -> bool {
    addr >= USER_BASE
}

/// Fails with ENOMEM if the program asks for memory that can't exist.
pub(super) fn check_available(size: usize) -> Result<()> {
    if size > commit::Usage::now().available() {
        return err(Errno::ENOMEM, "larger than what is left of user_space_size");
    }
    Ok(())
}

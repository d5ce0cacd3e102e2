//! Shared memory segments (shmget(2), shmat(2)).
//!
//! A segment is a [`SharedObject`] of `mm` whose file is no file: pages start as zeroes and are never
//! written back. The table keeps the object from the first attach until IPC_RMID, then the mappings do, so
//! the memory goes with the last of them. Attaches are not counted: they are the mappings there are.
//!
//! A page of an enclave has one address. All processes see a segment at the same one, and a second
//! attach in one process gives the first's address again.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::object::{Object, Request, Table};
use crate::error::{Errno, Result, err};
use crate::mm::{
    self, AddressSpace, Backing, FileIdentity, Fixed, MapRequest, MappableFile, PAGE_SIZE, Prot, SharedObject,
    SharedSlot, Sharing,
};
use crate::process;

/// `st_dev` of segments in /proc/PID/maps; the inode number is the id.
const SEGMENT_DEV: u64 = 0x01;
/// SHMMNI
pub const SEGMENTS_MAX: usize = 4096;
/// Mode bit: the segment goes with its last attach.
pub const SHM_DEST: u32 = 0o1000;
/// Mode bit: SHM_LOCK.
pub const SHM_LOCKED: u32 = 0o2000;

pub static SEGMENTS: Table<Segment> = Table::new(SEGMENTS_MAX);

pub struct Segment {
    pages: Arc<SegmentPages>,
    object: Option<Arc<SharedObject>>,
    pub size: usize,
    pub attached_s: i64,
    pub detached_s: i64,
    pub changed_s: i64,
    pub creator: u32,
    pub last_pid: u32,
}

/// What `mm` takes for the file of a segment.
struct SegmentPages {
    id: i32,
    key: i32,
    size: usize,
    slot: SharedSlot,
}

/// Where and how to attach.
pub struct Attach {
    pub addr: Option<usize>,
    pub fixed: Fixed,
    pub prot: Prot,
}

/// shmget(2).
pub fn get(request: &Request<'_>, size: usize, pid: u32) -> Result<i32> {
    purge();
    let check = |segment: &Segment| {
        if size > segment.size {
            return err(Errno::EINVAL, "the segment is smaller");
        }
        Ok(())
    };
    SEGMENTS.get(request, check, |id| Segment::new(id, request.key, size, pid))
}

/// EINVAL for an id that no segment has.
pub fn find(id: i32) -> Result<Arc<Object<Segment>>> {
    let segment = SEGMENTS.find(id)?;
    if is_over(&segment) {
        SEGMENTS.remove(&segment);
        return err(Errno::EINVAL, "the segment was removed");
    }
    Ok(segment)
}

/// shmat(2); gives the address.
pub fn attach(segment: &Object<Segment>, space: &Arc<AddressSpace>, how: &Attach, pid: u32) -> Result<usize> {
    let pages = segment.inner.lock().state.pages.clone();
    let stands_at = mappings(space, pages.identity()).first().map(|(range, _)| range.start);
    // SHM_REMAP to where the process has it: one attach more, as anywhere else.
    let how = if how.addr == stands_at { &Attach { addr: None, fixed: Fixed::No, ..*how } } else { how };
    let start = map(&pages, space, how)?;
    let mut inner = segment.inner.lock();
    if inner.permissions.mode & SHM_DEST == 0 {
        inner.state.object = pages.slot.object();
    }
    inner.state.attached_s = super::object::now_s();
    inner.state.last_pid = pid;
    Ok(start)
}

/// shmdt(2).
pub fn detach(space: &Arc<AddressSpace>, addr: usize, pid: u32) -> Result<()> {
    let at = space.mapping_at(addr).filter(|at| at.start == addr && at.offset == 0);
    let Some(at) = at.filter(|at| at.file.dev == SEGMENT_DEV && at.name.starts_with("/SYSV")) else {
        return err(Errno::EINVAL, "no segment is attached there");
    };
    let segment = SEGMENTS.find(at.file.ino as i32);
    if let Ok(segment) = &segment {
        let mut inner = segment.inner.lock();
        inner.state.detached_s = super::object::now_s();
        inner.state.last_pid = pid;
    }
    for (range, _) in mappings(space, at.file) {
        space.unmap(range.start, range.len())?;
    }
    if let Ok(segment) = segment
        && is_over(&segment)
    {
        SEGMENTS.remove(&segment);
    }
    Ok(())
}

/// IPC_RMID: the segment goes when nobody has it any more.
pub fn remove(segment: &Object<Segment>) {
    let (key, object) = {
        let mut inner = segment.inner.lock();
        let key = core::mem::take(&mut inner.permissions.key);
        inner.permissions.mode |= SHM_DEST;
        (key, inner.state.object.take())
    };
    SEGMENTS.forget_key(key, segment.id);
    drop(object);
    if is_over(segment) {
        SEGMENTS.remove(segment);
    }
}

/// `shm_nattch`.
pub fn attach_count(segment: &Object<Segment>) -> usize {
    let identity = FileIdentity { dev: SEGMENT_DEV, ino: segment.id as u64 };
    let times = |space: &Arc<AddressSpace>| mappings(space, identity).iter().map(|(_, times)| times).sum::<usize>();
    spaces().iter().map(times).sum()
}

/// Forgets segments that were removed and have lost their last attach.
pub fn purge() {
    for segment in SEGMENTS.all() {
        if is_over(&segment) {
            SEGMENTS.remove(&segment);
        }
    }
}

fn is_over(segment: &Object<Segment>) -> bool {
    let is_doomed = segment.inner.lock().permissions.mode & SHM_DEST != 0;
    is_doomed && attach_count(segment) == 0
}

fn map(pages: &Arc<SegmentPages>, space: &AddressSpace, how: &Attach) -> Result<usize> {
    let file: Arc<dyn MappableFile> = pages.clone();
    let request = MapRequest {
        addr: how.addr,
        size: pages.size,
        prot: how.prot,
        sharing: Sharing::Shared,
        fixed: how.fixed,
        backing: Backing::File { file, offset: 0 },
        is_write_denied: !how.prot.contains(Prot::WRITE),
        ..MapRequest::default()
    };
    match space.map(request) {
        Err(error) if error.errno == Errno::EEXIST => err(Errno::EINVAL, "something is mapped there"),
        result => result,
    }
}

/// Where a space has the segment, and how often.
fn mappings(space: &AddressSpace, identity: FileIdentity) -> Vec<(Range<usize>, usize)> {
    let mut found = Vec::new();
    space.for_each_mapping(|mapping| {
        if mapping.file == identity && mapping.is_shared {
            found.push((mapping.start..mapping.end, mapping.times));
        }
    });
    found
}

/// The spaces of all processes, each once.
fn spaces() -> Vec<Arc<AddressSpace>> {
    let mut spaces: Vec<Arc<AddressSpace>> = Vec::new();
    for process in process::processes() {
        let Some(thread) = process.main_thread() else { continue };
        if !spaces.iter().any(|space| Arc::ptr_eq(space, thread.space())) {
            spaces.push(thread.space().clone());
        }
    }
    spaces
}

impl Segment {
    fn new(id: i32, key: i32, size: usize, pid: u32) -> Result<Segment> {
        if size == 0 {
            return err(Errno::EINVAL, "size is 0");
        }
        if size > mm::Usage::now().limit {
            return err(Errno::ENOMEM, "larger than user_space_size");
        }
        let rounded = size.next_multiple_of(PAGE_SIZE);
        Ok(Segment {
            pages: Arc::new(SegmentPages { id, key, size: rounded, slot: SharedSlot::new() }),
            object: None,
            size,
            attached_s: 0,
            detached_s: 0,
            changed_s: super::object::now_s(),
            creator: pid,
            last_pid: 0,
        })
    }
}

impl MappableFile for SegmentPages {
    fn read_page_data(&self, _offset: u64, buf: &mut [u8]) -> Result<usize> {
        buf.fill(0);
        Ok(buf.len())
    }

    fn size(&self) -> u64 {
        self.size as u64
    }

    fn identity(&self) -> FileIdentity {
        FileIdentity { dev: SEGMENT_DEV, ino: self.id as u64 }
    }

    fn name(&self) -> String {
        format!("/SYSV{:08x} (deleted)", self.key)
    }

    fn is_memory_only(&self) -> bool {
        true
    }

    fn shared_slot(&self) -> Option<&SharedSlot> {
        Some(&self.slot)
    }
}

//! Files in memory: /tmp, /dev/shm, memfd, and the writable layer over a read-only file system.
//!
//! With a *lower* file system the tree starts as that one's and changes are kept here (a union):
//! - a name of a directory is looked up here first, then below; a [`Whiteout`](dir::Slot) hides what lies below
//! - a node made for a lower inode takes its attributes then, its data block by block at the first write
//!   (copy-up of 64 KiB, never of a whole large file)
//! - its inode number is the lower one's, so it is stable, and hard links below stay one file; numbers of new
//!   files start at 2^32
//! - once changed, a node is *pinned*, so that forgetting names does not forget changes
//! - renaming a lower directory moves the node that refers to it: nothing is copied
//!
//! Lock order: a directory's map, then a node's attributes, then the maps of the file system; all are
//! short spin locks. Under a file's content lock pages are allocated, user memory is copied (faults pause, see
//! `vfs::transfer`) and the lower file is read, which must not park.

mod data;
mod dir;
mod node;

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use occlum_enclave::HeapUsage;

pub use node::Node;

use crate::error::{Errno, Result, err};
use crate::sched::SpinLock;
use crate::vfs::InodeRef;
use crate::vfs::mount::{FileSystem, StatFs};

const TMPFS_MAGIC: u64 = 0x0102_1994;
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;

/// First inode number of files that do not come from below.
const FIRST_OWN_INO: u64 = 1 << 32;
/// Kernel heap for one node with its name; half of the heap may go to nodes.
const NODE_COST: usize = 1024;

static NEXT_DEV: AtomicU64 = AtomicU64::new(0x20);

/// A file system in memory.
pub struct RamFs {
    shared: Arc<Shared>,
    root: Arc<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Plain,
    /// Over a lower file system.
    Union,
    /// A memfd.
    SingleFile,
}

/// What all nodes of one file system refer to.
struct Shared {
    dev: u64,
    next_ino: AtomicU64,
    /// Bytes of file data, and how many there may be.
    used: AtomicU64,
    limit: u64,
    /// Nodes that do not come from below: those can be made again and are not counted.
    nodes: AtomicUsize,
    /// Nodes made for lower inodes, by number, as long as somebody holds them.
    from_below: SpinLock<BTreeMap<u64, Weak<Node>>>,
    /// Those that were changed.
    pinned: SpinLock<BTreeMap<u64, Arc<Node>>>,
    has_lower: bool,
    /// The file system of one memfd.
    is_single_file: bool,
}

impl RamFs {
    /// An empty file system of at most `limit` bytes of data.
    pub fn new(limit: u64, root_mode: u32) -> Result<Arc<RamFs>> {
        let shared = Shared::new(limit, Use::Plain);
        let root = Node::new_root(&shared, root_mode)?;
        Ok(Arc::new(RamFs { shared, root }))
    }

    /// A writable view of the tree below `lower`.
    pub fn over(lower: InodeRef, limit: u64) -> Result<Arc<RamFs>> {
        let shared = Shared::new(limit, Use::Union);
        let root = shared.node_for(lower)?;
        root.pin();
        Ok(Arc::new(RamFs { shared, root }))
    }

    /// A nameless file of at most `limit` bytes in a file system of its own (memfd).
    pub fn nameless_file(limit: u64, mode: u32) -> Result<Arc<Node>> {
        Node::new_file(&Shared::new(limit, Use::SingleFile), mode)
    }
}

impl FileSystem for RamFs {
    fn name(&self) -> &'static str {
        if self.shared.has_lower { "overlay" } else { "tmpfs" }
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(self.root.clone())
    }

    fn stat(&self) -> Result<StatFs> {
        let used = self.shared.used.load(Ordering::Relaxed);
        let nodes = self.shared.nodes.load(Ordering::Relaxed) as u64;
        Ok(StatFs {
            magic: if self.shared.has_lower { OVERLAYFS_MAGIC } else { TMPFS_MAGIC },
            block_size: 4096,
            blocks: self.shared.limit / 4096,
            blocks_free: self.shared.limit.saturating_sub(used) / 4096,
            files: max_nodes() as u64,
            files_free: (max_nodes() as u64).saturating_sub(nodes),
        })
    }
}

impl Shared {
    fn new(limit: u64, what: Use) -> Arc<Shared> {
        Arc::new(Shared {
            dev: NEXT_DEV.fetch_add(1, Ordering::Relaxed),
            next_ino: AtomicU64::new(FIRST_OWN_INO),
            used: AtomicU64::new(0),
            limit,
            nodes: AtomicUsize::new(0),
            from_below: SpinLock::new(BTreeMap::new()),
            pinned: SpinLock::new(BTreeMap::new()),
            has_lower: what == Use::Union,
            is_single_file: what == Use::SingleFile,
        })
    }

    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// The node for an inode of the lower file system: one for each inode, whatever its names.
    fn node_for(self: &Arc<Shared>, lower: InodeRef) -> Result<Arc<Node>> {
        let attr = lower.attr()?;
        let mut nodes = self.from_below.lock();
        if let Some(node) = nodes.get(&attr.ino).and_then(Weak::upgrade) {
            return Ok(node);
        }
        let node = Node::new_from_below(self, lower, &attr)?;
        nodes.insert(attr.ino, Arc::downgrade(&node));
        Ok(node)
    }

    /// Counts `size` more bytes of data; ENOSPC.
    fn charge(&self, size: u64) -> Result<()> {
        let before = self.used.fetch_add(size, Ordering::Relaxed);
        if before + size > self.limit {
            self.used.fetch_sub(size, Ordering::Relaxed);
            return err(Errno::ENOSPC, "file system in memory is full");
        }
        Ok(())
    }

    fn discharge(&self, size: u64) {
        self.used.fetch_sub(size, Ordering::Relaxed);
    }

    /// Counts one more node that lives in the kernel heap; ENOSPC.
    fn count_node(&self) -> Result<()> {
        if self.nodes.fetch_add(1, Ordering::Relaxed) >= max_nodes() {
            self.nodes.fetch_sub(1, Ordering::Relaxed);
            return err(Errno::ENOSPC, "too many files in memory");
        }
        Ok(())
    }
}

fn max_nodes() -> usize {
    HeapUsage::now().limit / 2 / NODE_COST
}

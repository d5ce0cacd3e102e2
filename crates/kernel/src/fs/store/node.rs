//! One inode: of the store, of what is below it, or of both.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use occlum_storage::store::{self, NewInode};

use super::data::{Added, Data, Place, Then};
use super::meta::{self, Meta, to_time};
use super::{OWN_XATTRS, Shared};
use crate::error::{Errno, Error, Result, err};
use crate::fs::cache::{self, Cached, Evicted};
use crate::mm::SharedSlot;
use crate::sched::SpinLock;
use crate::vfs::file::File;
use crate::vfs::inode::*;
use crate::vfs::{Sink, Source, access};

pub struct Node {
    pub(super) shared: Arc<Shared>,
    pub(super) me: Weak<Node>,
    /// `st_ino`.
    pub(super) number: u64,
    pub(super) kind: Kind,
    /// Number in the store; 0 as long as it is only below.
    pub(super) upper: AtomicU64,
    /// A file not yet raised, or the directory that shows through.
    pub(super) lower: Option<InodeRef>,
    /// Path of `lower` if it is a directory, from the lower root, without a slash at the end.
    pub(super) lower_path: Box<[u8]>,
    /// Where it was found, as long as it is only below.
    pub(super) found: SpinLock<Option<(Arc<Node>, Box<[u8]>)>>,
    /// Names below that still lead here although it was raised.
    pub(super) names_below: AtomicU32,
    pub(super) meta: SpinLock<Meta>,
    pub(super) data: Data,
    mapping: SharedSlot,
    /// It stands in the list of nodes with something to write.
    pub(super) is_listed: AtomicBool,
}

/// What a node is made of.
pub(super) struct Parts {
    pub number: u64,
    pub kind: Kind,
    pub upper: u64,
    pub lower: Option<InodeRef>,
    pub lower_path: Box<[u8]>,
    pub found: Option<(Arc<Node>, Box<[u8]>)>,
    pub meta: Meta,
}

impl Node {
    pub(super) fn new(shared: &Arc<Shared>, parts: Parts) -> Arc<Node> {
        let size = if parts.kind == Kind::Regular { parts.meta.size } else { 0 };
        Arc::new_cyclic(|me| Node {
            shared: shared.clone(),
            me: me.clone(),
            number: parts.number,
            kind: parts.kind,
            upper: AtomicU64::new(parts.upper),
            lower: parts.lower,
            lower_path: parts.lower_path,
            found: SpinLock::new(parts.found),
            names_below: AtomicU32::new(0),
            meta: SpinLock::new(parts.meta),
            data: Data::new(size),
            mapping: SharedSlot::default(),
            is_listed: AtomicBool::new(false),
        })
    }

    pub(super) fn upper(&self) -> Option<u64> {
        Some(self.upper.load(Ordering::Acquire)).filter(|&upper| upper != 0)
    }

    fn place(&self, ino: u64) -> Place<'_> {
        Place { shared: &self.shared, ino }
    }

    /// The number in the store of what is to be changed: raised if need be. EROFS.
    pub(super) fn changeable(&self) -> Result<u64> {
        if self.shared.is_read_only {
            return err(Errno::EROFS, "the store is open for reading only");
        }
        match self.upper() {
            Some(ino) => Ok(ino),
            None => self.raise(),
        }
    }

    /// Takes the attributes from the store, keeping times that are newer here.
    pub(super) fn refresh(&self) -> Result<()> {
        let Some(ino) = self.upper() else { return Ok(()) };
        let stat = self.shared.with(|store| store.stat(ino))?;
        let mut meta = self.meta.lock();
        let newer = meta.is_dirty.then_some((meta.atime, meta.mtime, meta.ctime));
        *meta = Meta::from(&stat);
        if let Some((atime, mtime, ctime)) = newer {
            meta.atime = atime;
            // Directories change in the store only.
            if self.kind != Kind::Directory {
                meta.mtime = mtime;
            }
            meta.ctime = ctime.max(meta.ctime);
            meta.is_dirty = true;
        }
        Ok(())
    }

    /// Changes attributes in memory; they are written later.
    fn touch(&self, change: impl FnOnce(&mut Meta)) {
        {
            let mut meta = self.meta.lock();
            change(&mut meta);
            meta.is_dirty = true;
        }
        self.list();
    }

    /// Has it written later.
    fn list(&self) {
        if !self.is_listed.swap(true, Ordering::AcqRel)
            && let Some(me) = self.me.upgrade()
        {
            self.shared.add_dirty(me);
        }
    }

    /// Brings data and attributes to the store, not yet to the disk.
    pub(super) fn write_back(&self) -> Result<()> {
        if let Some(object) = self.mapping.object() {
            object.write_back(0..self.data.size())?;
        }
        self.write_back_data(Then::Keep)
    }

    /// As [`Node::write_back`] without the pages of shared mappings.
    pub(super) fn write_back_data(&self, then: Then) -> Result<()> {
        let Some(ino) = self.upper() else { return Ok(()) };
        self.is_listed.store(false, Ordering::Release);
        let meta = {
            let mut meta = self.meta.lock();
            let copy = *meta;
            meta.is_dirty = false;
            copy
        };
        let mut added = Added::new();
        let written = self.data.write_back(self.place(ino), then, &mut added);
        self.report(added);
        let written = written.and_then(|()| {
            if !meta.is_dirty {
                return Ok(());
            }
            let change = store::SetAttr {
                atime: Some(to_time(meta.atime)),
                mtime: Some(to_time(meta.mtime)),
                ..Default::default()
            };
            self.shared.with(|store| store.set_attr(ino, &change, to_time(meta.ctime)))
        });
        if written.is_err() {
            self.meta.lock().is_dirty = true;
            self.list();
        }
        written
    }

    /// It lost its last name and nobody uses it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.meta.lock().nlink == 0 && self.names_below.load(Ordering::Relaxed) == 0
    }

    fn report(&self, added: Added) {
        for number in added {
            let me: Weak<Node> = self.me.clone();
            cache::added(me, number, super::data::BLOCK);
        }
    }

    pub(super) fn same_fs(&self, inode: &InodeRef) -> Result<Arc<Node>> {
        let any: Arc<dyn Any + Send + Sync> = inode.clone();
        let node = any.downcast::<Node>().ok().filter(|node| Arc::ptr_eq(&node.shared, &self.shared));
        node.ok_or(Error::new(Errno::EXDEV, "another file system"))
    }

    fn regular(&self) -> Result<()> {
        match self.kind {
            Kind::Regular => Ok(()),
            Kind::Directory => err(Errno::EISDIR, "a directory"),
            _ => err(Errno::EINVAL, "no data"),
        }
    }

    /// After the content changed: times, and set-ID bits that a write takes away unless root writes.
    fn written(&self) -> Result<()> {
        let now = Timestamp::now();
        self.touch(|meta| {
            meta.mtime = now;
            meta.ctime = now;
        });
        let mode = self.meta.lock().mode;
        if mode & 0o6000 != 0 && !access::may_keep_set_ids() {
            return self.set_attr(&SetAttr { mode: Some(mode & !0o6000), ..Default::default() });
        }
        Ok(())
    }
}

impl Cached for Node {
    fn evict(&self, number: u64) -> Evicted {
        self.data.evict(number)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut nodes = self.shared.nodes.lock();
        let upper = *self.upper.get_mut();
        if nodes.upper.get(&upper).is_some_and(|node| node.strong_count() == 0) {
            nodes.upper.remove(&upper);
        }
        if nodes.lower.get(&self.number).is_some_and(|node| node.strong_count() == 0) {
            nodes.lower.remove(&self.number);
        }
        drop(nodes);
        if upper != 0 && self.meta.get_mut().nlink == 0 && !self.shared.is_read_only {
            self.shared.unused.lock().push(upper);
        }
    }
}

impl Inode for Node {
    fn attr(&self) -> Result<Attr> {
        let meta = *self.meta.lock();
        let below = self.names_below.load(Ordering::Relaxed);
        let is_merged = self.kind == Kind::Directory && self.lower.is_some() && self.upper().is_some();
        Ok(Attr {
            dev: self.shared.dev,
            ino: self.number,
            mode: self.kind.mode() | meta.mode,
            nlink: if is_merged { 1 } else { meta.nlink + below },
            uid: meta.uid,
            gid: meta.gid,
            rdev: meta.rdev,
            size: match self.kind {
                Kind::Regular => self.data.size(),
                Kind::Directory => 4096,
                _ => meta.size,
            },
            block_size: 4096,
            blocks: match self.kind {
                // What is not yet written has no blocks yet; it will.
                Kind::Regular if meta.blocks == 0 && meta.is_dirty => self.data.size().div_ceil(4096) * 8,
                _ => meta.blocks,
            },
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
        })
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        let ino = self.changeable()?;
        let now = Timestamp::now();
        let wanted = store::SetAttr {
            mode: change.mode,
            uid: change.uid,
            gid: change.gid,
            atime: change.atime.map(to_time),
            mtime: change.mtime.map(to_time),
        };
        self.shared.with(|store| store.set_attr(ino, &wanted, to_time(now)))?;
        let mut meta = self.meta.lock();
        meta.mode = change.mode.map_or(meta.mode, |mode| mode & 0o7777);
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        meta.atime = change.atime.unwrap_or(meta.atime);
        meta.mtime = change.mtime.unwrap_or(meta.mtime);
        meta.ctime = now;
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        Ok(self.find(name)?)
    }

    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<InodeRef> {
        let dir = self.changeable()?;
        let node = self.create_named(dir, name, new)?;
        self.refresh()?;
        Ok(node)
    }

    fn create_nameless(&self, mode: u32, uid: u32, gid: u32) -> Result<InodeRef> {
        self.changeable()?;
        let mode = Kind::Regular.mode() | mode & 0o7777;
        let new = NewInode { mode, uid, gid, rdev: 0, target: b"" };
        let ino = self.shared.with(|store| store.create_nameless(&new, meta::now()))?;
        Ok(self.shared.upper_node(ino)?)
    }

    fn link(&self, name: &[u8], inode: &InodeRef) -> Result<()> {
        let node = self.same_fs(inode)?;
        let (dir, ino) = (self.changeable()?, node.changeable()?);
        self.shared.with(|store| store.link(dir, name, ino, meta::now()))?;
        node.refresh()?;
        self.refresh()
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.remove_file(name)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.remove_dir(name)
    }

    fn rename(&self, name: &[u8], to: &InodeRef, to_name: &[u8], how: Rename) -> Result<()> {
        let to = self.same_fs(to)?;
        self.move_entry(name, &to, to_name, how)
    }

    fn read_dir(&self, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        self.list_entries(cursor, visit)
    }

    fn read_link(&self) -> Result<Link> {
        if self.kind != Kind::Symlink {
            return err(Errno::EINVAL, "not a symbolic link");
        }
        match (self.upper(), &self.lower) {
            (Some(ino), _) => Ok(Link::Text(self.shared.with(|store| store.read_link(ino))?)),
            (None, Some(lower)) => lower.read_link(),
            (None, None) => err(Errno::EIO, "neither above nor below"),
        }
    }

    fn open(self: Arc<Self>, flags: u32) -> Result<Option<Arc<dyn File>>> {
        match self.kind {
            Kind::Regular | Kind::Directory => Ok(None),
            Kind::Symlink => err(Errno::ELOOP, "a symbolic link"),
            _ => crate::vfs::special::open(self, flags).map(Some),
        }
    }

    fn read_at(&self, offset: u64, sink: &mut Sink<'_>) -> Result<()> {
        self.regular()?;
        match (self.upper(), &self.lower) {
            (Some(ino), _) => {
                let mut added = Added::new();
                let done = self.data.read_at(self.place(ino), offset, sink, &mut added);
                self.report(added);
                done
            }
            (None, Some(lower)) => lower.read_at(offset, sink),
            (None, None) => err(Errno::EIO, "neither above nor below"),
        }
    }

    fn write_at(&self, position: Position, source: &mut Source<'_>) -> Result<u64> {
        self.regular()?;
        let ino = self.changeable()?;
        let before = source.done();
        let end = self.data.write_at(self.place(ino), position, source);
        if source.done() > before {
            self.written()?;
            self.shared.throttle(self)?;
        }
        end
    }

    fn resize(&self, size: u64) -> Result<()> {
        self.regular()?;
        let ino = self.changeable()?;
        self.data.resize(self.place(ino), size)?;
        self.refresh()?;
        self.written()
    }

    fn allocate(&self, how: Allocate, offset: u64, size: u64) -> Result<()> {
        self.regular()?;
        let ino = self.changeable()?;
        self.allocate_in(ino, how, offset, size)?;
        self.refresh()?;
        self.written()
    }

    fn seek(&self, what: Seek, offset: u64) -> Result<u64> {
        if offset >= self.data.size() {
            return err(Errno::ENXIO, "offset beyond the end");
        }
        let Some(ino) = self.upper() else {
            let Some(lower) = &self.lower else { return err(Errno::EIO, "neither above nor below") };
            return lower.seek(what, offset);
        };
        self.write_back_data(Then::Keep)?;
        let found = self.shared.with(|store| match what {
            Seek::Data => store.seek_data(ino, offset),
            Seek::Hole => store.seek_hole(ino, offset),
        })?;
        found.ok_or(Error::new(Errno::ENXIO, "nothing of it follows"))
    }

    fn sync(&self) -> Result<()> {
        self.write_back()?;
        self.shared.with(|store| store.sync())
    }

    /// What is only below keeps its time: reading it must not copy it up.
    fn accessed(&self, rule: Atime) {
        if self.upper().is_none() || self.shared.is_read_only {
            return;
        }
        let meta = *self.meta.lock();
        if let Some(now) = rule.update(meta.atime, meta.mtime, meta.ctime) {
            self.touch(|meta| meta.atime = now);
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        match self.upper() {
            Some(ino) if !name.starts_with(OWN_XATTRS) => self.shared.with(|store| store.xattr(ino, name)),
            _ => err(Errno::ENODATA, "no such attribute"),
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], how: XattrMode) -> Result<()> {
        if name.starts_with(OWN_XATTRS) {
            return err(Errno::EPERM, "attributes of the file system itself");
        }
        let ino = self.changeable()?;
        let how = match how {
            XattrMode::Any => store::XattrMode::Any,
            XattrMode::Create => store::XattrMode::Create,
            XattrMode::Replace => store::XattrMode::Replace,
        };
        self.shared.with(|store| store.set_xattr(ino, name, value, how, meta::now()))?;
        self.refresh()
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        if name.starts_with(OWN_XATTRS) || self.upper().is_none() {
            return err(Errno::ENODATA, "no such attribute");
        }
        let ino = self.changeable()?;
        self.shared.with(|store| store.remove_xattr(ino, name, meta::now()))?;
        self.refresh()
    }

    fn xattr_names(&self) -> Result<Vec<Box<[u8]>>> {
        let Some(ino) = self.upper() else { return Ok(Vec::new()) };
        let mut names: Vec<Box<[u8]>> = self.shared.with(|store| store.xattr_names(ino))?;
        names.retain(|name| !name.starts_with(OWN_XATTRS));
        Ok(names)
    }

    fn shared_slot(&self) -> Option<&SharedSlot> {
        (self.kind == Kind::Regular).then_some(&self.mapping)
    }

    fn is_unchanging(&self) -> bool {
        self.upper().is_none() && self.lower.as_ref().is_some_and(|lower| lower.is_unchanging())
    }

    fn sites(&self) -> Option<Arc<[u8]>> {
        // A changed file is no longer the one that was analysed.
        self.lower.as_ref().filter(|_| self.upper().is_none())?.sites()
    }
}

impl Node {
    fn allocate_in(&self, ino: u64, how: Allocate, offset: u64, size: u64) -> Result<()> {
        let end = offset.checked_add(size).ok_or(Error::new(Errno::EFBIG, "offset overflow"))?;
        let place = self.place(ino);
        let length = self.data.size();
        match how {
            Allocate::PunchHole | Allocate::ZeroRange | Allocate::ZeroRangeKeepSize => {
                let size = size.min(length.saturating_sub(offset));
                if size > 0 {
                    self.data.change_stored(place, offset, || {
                        self.shared.with(|store| store.punch(ino, offset, size, meta::now()))?;
                        Ok(length)
                    })?;
                }
            }
            Allocate::Collapse => self.data.change_stored(place, offset, || {
                self.shared.with(|store| store.collapse(ino, offset, size, meta::now()))?;
                Ok(length - size)
            })?,
            Allocate::Insert => self.data.change_stored(place, offset, || {
                self.shared.with(|store| store.insert(ino, offset, size, meta::now()))?;
                Ok(length + size)
            })?,
            Allocate::Extend | Allocate::KeepSize => self.shared.check_room(size)?,
        }
        let grows = matches!(how, Allocate::Extend | Allocate::ZeroRange);
        if grows && end > self.data.size() { self.data.resize(place, end) } else { Ok(()) }
    }
}

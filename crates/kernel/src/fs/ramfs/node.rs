//! One file, directory or other object in memory.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};

use super::Shared;
use super::data::Data;
use super::dir::{Directory, Found};
use crate::error::{Errno, Error, Result, err};
use crate::mm::SharedSlot;
use crate::sched::SpinLock;
use crate::vfs::file::File;
use crate::vfs::inode::*;
use crate::vfs::{Sink, Source, access};

pub struct Node {
    shared: Arc<Shared>,
    me: Weak<Node>,
    ino: u64,
    kind: Kind,
    rdev: u64,
    meta: SpinLock<Meta>,
    body: Body,
    lower: Option<InodeRef>,
    mapping: SharedSlot,
    /// F_SEAL_* bits; without F_SEAL_SEAL more may be added.
    seals: AtomicU32,
}

struct Meta {
    /// Permission bits.
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

enum Body {
    Directory(SpinLock<Directory>),
    Regular(Data),
    Symlink(Box<[u8]>),
    Other,
}

const F_SEAL_SEAL: u32 = 1;
const F_SEAL_SHRINK: u32 = 2;
const F_SEAL_GROW: u32 = 4;
const F_SEAL_WRITE: u32 = 8;
const F_SEAL_FUTURE_WRITE: u32 = 16;
const F_SEAL_EXEC: u32 = 32;

/// Bytes of all extended attributes of one file.
const XATTRS_MAX: usize = 64 << 10;

impl Node {
    pub(super) fn new_root(shared: &Arc<Shared>, mode: u32) -> Result<Arc<Node>> {
        let new = NewNode { content: NewContent::Directory, mode, uid: 0, gid: 0 };
        Node::new(shared, &new)
    }

    /// A regular file without a name.
    pub(super) fn new_file(shared: &Arc<Shared>, mode: u32) -> Result<Arc<Node>> {
        let new = NewNode { content: NewContent::Regular, mode, uid: 0, gid: 0 };
        Node::new(shared, &new)
    }

    fn new(shared: &Arc<Shared>, new: &NewNode<'_>) -> Result<Arc<Node>> {
        let (kind, rdev, body) = match new.content {
            NewContent::Regular => (Kind::Regular, 0, Body::Regular(Data::new(shared, None))),
            NewContent::Directory => {
                (Kind::Directory, 0, Body::Directory(SpinLock::new(Directory::new(None))))
            }
            NewContent::Symlink(target) => (Kind::Symlink, 0, Body::Symlink(target.into())),
            NewContent::Fifo => (Kind::Fifo, 0, Body::Other),
            NewContent::Socket => (Kind::Socket, 0, Body::Other),
            NewContent::CharDevice(rdev) => (Kind::CharDevice, rdev, Body::Other),
            NewContent::BlockDevice(rdev) => (Kind::BlockDevice, rdev, Body::Other),
        };
        shared.count_node()?;
        let now = Timestamp::now();
        let meta = Meta {
            mode: new.mode & 0o7777,
            uid: new.uid,
            gid: new.gid,
            nlink: if kind == Kind::Directory { 2 } else { 1 },
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
        };
        let ino = shared.new_ino();
        Ok(Node::assemble(shared, ino, kind, rdev, meta, body, None))
    }

    /// The node for an inode of the lower file system.
    pub(super) fn new_from_below(
        shared: &Arc<Shared>,
        lower: InodeRef,
        attr: &Attr,
    ) -> Result<Arc<Node>> {
        let kind = lower.kind();
        let body = match kind {
            Kind::Regular => Body::Regular(Data::new(shared, Some((lower.clone(), attr.size)))),
            Kind::Directory => {
                Body::Directory(SpinLock::new(Directory::new(Some(lower.clone()))))
            }
            Kind::Symlink => match lower.read_link()? {
                Link::Text(target) => Body::Symlink(target.into()),
                Link::Object(_) => return err(Errno::EIO, "an object link below"),
            },
            _ => Body::Other,
        };
        let meta = Meta {
            mode: attr.mode & 0o7777,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            xattrs: BTreeMap::new(),
        };
        Ok(Node::assemble(shared, attr.ino, kind, attr.rdev, meta, body, Some(lower)))
    }

    fn assemble(
        shared: &Arc<Shared>,
        ino: u64,
        kind: Kind,
        rdev: u64,
        meta: Meta,
        body: Body,
        lower: Option<InodeRef>,
    ) -> Arc<Node> {
        Arc::new_cyclic(|me| Node {
            shared: shared.clone(),
            me: me.clone(),
            ino,
            kind,
            rdev,
            meta: SpinLock::new(meta),
            body,
            lower,
            mapping: SharedSlot::default(),
            seals: AtomicU32::new(F_SEAL_SEAL),
        })
    }

    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Whether it is a memfd: a file that never had a name.
    pub fn is_nameless_file(&self) -> bool {
        self.kind == Kind::Regular && self.shared.is_single_file
    }

    pub fn seals(&self) -> u32 {
        self.seals.load(Ordering::Relaxed)
    }

    pub fn allow_seals(&self) {
        self.seals.store(0, Ordering::Relaxed);
    }

    /// EBUSY, as long as somebody could write through a shared mapping.
    pub fn add_seals(&self, seals: u32) -> Result<()> {
        let all = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC;
        if seals & !all != 0 {
            return err(Errno::EINVAL, "unknown seal");
        }
        if self.seals() & F_SEAL_SEAL != 0 {
            return err(Errno::EPERM, "sealed against seals");
        }
        if seals & F_SEAL_WRITE != 0 && self.mapping.object().is_some() {
            return err(Errno::EBUSY, "mapped shared");
        }
        self.seals.fetch_or(seals, Ordering::Relaxed);
        Ok(())
    }

    /// EPERM if a seal forbids that the size becomes `new_size`.
    fn check_size_seals(&self, new_size: u64) -> Result<()> {
        let (seals, size) = (self.seals(), self.data()?.size());
        let is_forbidden = new_size < size && seals & F_SEAL_SHRINK != 0
            || new_size > size && seals & F_SEAL_GROW != 0;
        if is_forbidden { err(Errno::EPERM, "sealed") } else { Ok(()) }
    }

    /// Keeps the node of a lower inode, because it now differs from what lies below.
    pub(super) fn pin(&self) {
        if self.lower.is_some()
            && let Some(me) = self.me.upgrade()
        {
            self.shared.pinned.lock().insert(self.ino, me);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Meta)) {
        self.pin();
        let mut meta = self.meta.lock();
        change(&mut meta);
        meta.ctime = Timestamp::now();
    }

    fn directory(&self) -> Result<&SpinLock<Directory>> {
        match &self.body {
            Body::Directory(directory) => Ok(directory),
            _ => err(Errno::ENOTDIR, "not a directory"),
        }
    }

    fn data(&self) -> Result<&Data> {
        match &self.body {
            Body::Regular(data) => Ok(data),
            Body::Directory(_) => err(Errno::EISDIR, "a directory"),
            _ => err(Errno::EINVAL, "no data"),
        }
    }

    fn find(&self, name: &[u8]) -> Result<Arc<Node>> {
        let found = self.directory()?.lock().find(name)?;
        match found {
            Found::Own(node) => Ok(node),
            Found::Below(inode) => self.shared.node_for(inode),
        }
    }

    fn touch_dir(&self) {
        self.change(|meta| meta.mtime = Timestamp::now());
    }

    fn add_links(&self, count: i32) {
        self.change(|meta| meta.nlink = meta.nlink.saturating_add_signed(count));
    }

    /// One name less; a node without names and users goes away.
    fn drop_link(&self) {
        let count = if self.kind == Kind::Directory { 2 } else { 1 };
        self.add_links(-count);
        if self.meta.lock().nlink == 0 {
            let unpinned = self.shared.pinned.lock().remove(&self.ino);
            drop(unpinned);
        }
    }

    fn same_fs(&self, inode: &InodeRef) -> Result<Arc<Node>> {
        let any: Arc<dyn Any + Send + Sync> = inode.clone();
        let node = any.downcast::<Node>().ok().filter(|node| Arc::ptr_eq(&node.shared, &self.shared));
        node.ok_or(Error::new(Errno::EXDEV, "another file system"))
    }

    /// Takes the target of a rename away; `moved` is what comes in its place.
    fn displace(&self, name: &[u8], moved: &Node, target: &Arc<Node>) -> Result<()> {
        match (moved.kind == Kind::Directory, target.kind == Kind::Directory) {
            (true, false) => return err(Errno::ENOTDIR, "directory over a file"),
            (false, true) => return err(Errno::EISDIR, "file over a directory"),
            (true, true) => {
                target.directory()?.lock().kill()?;
                self.add_links(-1);
            }
            (false, false) => {}
        }
        self.directory()?.lock().remove(name);
        target.drop_link();
        Ok(())
    }

    fn exchange(&self, name: &[u8], to: &Node, to_name: &[u8]) -> Result<()> {
        let (one, other) = (self.find(name)?, to.find(to_name)?);
        self.directory()?.lock().set(name, other.clone())?;
        to.directory()?.lock().set(to_name, one.clone())?;
        if self.ino != to.ino {
            let balance = i32::from(other.kind == Kind::Directory) - i32::from(one.kind == Kind::Directory);
            self.add_links(balance);
            to.add_links(-balance);
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.lower.is_none() {
            self.shared.nodes.fetch_sub(1, Ordering::Relaxed);
        } else {
            let mut nodes = self.shared.from_below.lock();
            if nodes.get(&self.ino).is_some_and(|node| node.strong_count() == 0) {
                nodes.remove(&self.ino);
            }
        }
    }
}

impl Inode for Node {
    fn attr(&self) -> Result<Attr> {
        let (size, occupied) = match &self.body {
            Body::Regular(data) => (data.size(), data.occupied()),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Directory(_) => (4096, 4096),
            Body::Other => (0, 0),
        };
        let meta = self.meta.lock();
        Ok(Attr {
            dev: self.shared.dev,
            ino: self.ino,
            mode: self.kind.mode() | meta.mode,
            nlink: meta.nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev: self.rdev,
            size,
            block_size: 4096,
            blocks: occupied.div_ceil(512),
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
        })
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.change(|meta| {
            meta.mode = change.mode.map_or(meta.mode, |mode| mode & 0o7777);
            meta.uid = change.uid.unwrap_or(meta.uid);
            meta.gid = change.gid.unwrap_or(meta.gid);
            meta.atime = change.atime.unwrap_or(meta.atime);
            meta.mtime = change.mtime.unwrap_or(meta.mtime);
        });
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        Ok(self.find(name)?)
    }

    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<InodeRef> {
        let node = Node::new(&self.shared, new)?;
        self.directory()?.lock().set(name, node.clone())?;
        self.touch_dir();
        if node.kind == Kind::Directory {
            self.add_links(1);
        }
        Ok(node)
    }

    fn create_nameless(&self, mode: u32, uid: u32, gid: u32) -> Result<InodeRef> {
        if self.directory()?.lock().is_dead() {
            return err(Errno::ENOENT, "the directory was removed");
        }
        let node = Node::new(&self.shared, &NewNode { content: NewContent::Regular, mode, uid, gid })?;
        node.meta.lock().nlink = 0;
        Ok(node)
    }

    fn link(&self, name: &[u8], inode: &InodeRef) -> Result<()> {
        let node = self.same_fs(inode)?;
        self.directory()?.lock().set(name, node.clone())?;
        node.add_links(1);
        self.touch_dir();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let node = self.find(name)?;
        if node.kind == Kind::Directory {
            return err(Errno::EISDIR, "unlink of a directory");
        }
        self.directory()?.lock().remove(name);
        node.drop_link();
        self.touch_dir();
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let node = self.find(name)?;
        node.directory()?.lock().kill()?;
        self.directory()?.lock().remove(name);
        node.drop_link();
        self.add_links(-1);
        self.touch_dir();
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &InodeRef, to_name: &[u8], how: Rename) -> Result<()> {
        let to = self.same_fs(to)?;
        if how == Rename::Exchange {
            return self.exchange(name, &to, to_name);
        }
        let node = self.find(name)?;
        match to.find(to_name) {
            Ok(_) if how == Rename::NoReplace => return err(Errno::EEXIST, "target exists"),
            // Two names of one file: rename(2) does nothing.
            Ok(target) if Arc::ptr_eq(&target, &node) => return Ok(()),
            Ok(target) => to.displace(to_name, &node, &target)?,
            Err(error) if error.errno == Errno::ENOENT => {}
            Err(error) => return Err(error),
        }
        to.directory()?.lock().set(to_name, node.clone())?;
        self.directory()?.lock().remove(name);
        if node.kind == Kind::Directory && self.ino != to.ino {
            self.add_links(-1);
            to.add_links(1);
        }
        node.change(|_| {});
        self.touch_dir();
        to.touch_dir();
        Ok(())
    }

    fn read_dir(&self, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        self.directory()?.lock().read(cursor, visit)
    }

    fn read_link(&self) -> Result<Link> {
        match &self.body {
            Body::Symlink(target) => Ok(Link::Text(target.to_vec())),
            _ => err(Errno::EINVAL, "not a symbolic link"),
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
        self.data()?.read_at(offset, sink)
    }

    fn write_at(&self, position: Position, source: &mut Source<'_>) -> Result<u64> {
        if self.seals() & !F_SEAL_SEAL != 0 {
            if self.seals() & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0 {
                return err(Errno::EPERM, "sealed");
            }
            let start = match position {
                Position::At(start) => start,
                Position::End => self.data()?.size(),
            };
            let end = start.saturating_add(source.left() as u64);
            self.check_size_seals(end.max(self.data()?.size()))?;
        }
        let before = source.done();
        let end = self.data()?.write_at(position, source)?;
        if source.done() == before {
            return Ok(end);
        }
        self.change(|meta| {
            meta.mtime = Timestamp::now();
            // A write takes the set-id bits away, unless root writes.
            if meta.mode & 0o6000 != 0 && !access::may_keep_set_ids() {
                meta.mode &= !0o6000;
            }
        });
        Ok(end)
    }

    fn resize(&self, size: u64) -> Result<()> {
        self.check_size_seals(size)?;
        self.data()?.resize(size)?;
        self.change(|meta| meta.mtime = Timestamp::now());
        Ok(())
    }

    fn allocate(&self, how: Allocate, offset: u64, size: u64) -> Result<()> {
        if matches!(how, Allocate::Collapse | Allocate::Insert) {
            return err(Errno::EOPNOTSUPP, "as tmpfs of Linux");
        }
        let data = self.data()?;
        let end = offset.checked_add(size).ok_or(Error::new(Errno::EFBIG, "offset overflow"))?;
        if matches!(how, Allocate::PunchHole | Allocate::ZeroRange | Allocate::ZeroRangeKeepSize) {
            data.zero(offset, size)?;
        }
        if matches!(how, Allocate::Extend | Allocate::ZeroRange) && end > data.size() {
            data.resize(end)?;
        }
        self.change(|meta| meta.mtime = Timestamp::now());
        Ok(())
    }

    fn seek(&self, what: Seek, offset: u64) -> Result<u64> {
        self.data()?.seek(what, offset)
    }

    /// What shows the image's content keeps its time: remembering it would take memory for each file read.
    fn accessed(&self, rule: Atime) {
        if self.lower.is_some() {
            return;
        }
        let mut meta = self.meta.lock();
        if let Some(now) = rule.update(meta.atime, meta.mtime, meta.ctime) {
            meta.atime = now;
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        match self.meta.lock().xattrs.get(name) {
            Some(value) => Ok(value.to_vec()),
            None => err(Errno::ENODATA, "no such attribute"),
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], how: XattrMode) -> Result<()> {
        {
            let meta = self.meta.lock();
            let has = meta.xattrs.contains_key(name);
            match how {
                XattrMode::Create if has => return err(Errno::EEXIST, "attribute exists"),
                XattrMode::Replace if !has => return err(Errno::ENODATA, "no such attribute"),
                _ => {}
            }
            let used: usize = meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            if used + name.len() + value.len() > XATTRS_MAX {
                return err(Errno::ENOSPC, "too many extended attributes");
            }
        }
        self.change(|meta| {
            meta.xattrs.insert(name.into(), value.into());
        });
        Ok(())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let mut had = false;
        self.change(|meta| had = meta.xattrs.remove(name).is_some());
        if had { Ok(()) } else { err(Errno::ENODATA, "no such attribute") }
    }

    fn xattr_names(&self) -> Result<Vec<Box<[u8]>>> {
        Ok(self.meta.lock().xattrs.keys().cloned().collect())
    }

    fn shared_slot(&self) -> Option<&SharedSlot> {
        (self.kind == Kind::Regular).then_some(&self.mapping)
    }

    fn is_unchanging(&self) -> bool {
        let lower = self.lower.as_ref().filter(|_| self.data().is_ok_and(Data::is_unchanged));
        lower.is_some_and(|lower| lower.is_unchanging())
    }

    fn sites(&self) -> Option<Arc<[u8]>> {
        // A changed file is no longer the one that was analysed.
        self.lower.as_ref().filter(|_| self.data().is_ok_and(Data::is_unchanged))?.sites()
    }
}

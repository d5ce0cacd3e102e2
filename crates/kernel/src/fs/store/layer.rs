//! Names over two layers: finding, making, raising, hiding.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering;

use occlum_storage::store::{self, Entry, EntryKind, Leave, Name, NewInode, StoreError};

use super::data::Then;
use super::meta::{self, Meta, to_time};
use super::node::{Node, Parts};
use super::{FIRST_OWN_INO, REDIRECT, ROOT, Shared};
use crate::error::{Errno, Error, Result, err};
use crate::vfs::inode::{DirEntry, Kind, Link, NewContent, NewNode, Rename, Visit};
use crate::vfs::{InodeRef, Sink};

/// Entries that are read from the store at a time.
const BATCH: usize = 256;
/// Bytes of a file that are copied up at a time.
const COPY_SIZE: usize = 256 << 10;
/// Cursors of entries below have the top bit of their last byte. The store's own end with the number of a name
/// among those with the same hash, which does not come near.
const BELOW: u64 = 0x80;
/// A small cursor below (the image's are) is moved up, with this as its last byte.
const MOVED_UP: u64 = 0xff;
const MAX_MOVED_UP: u64 = 1 << 54;

/// The cursor here for one of the directory below, which is either small or a store's.
fn cursor_for(below: u64) -> u64 {
    if below < MAX_MOVED_UP { below << 8 | MOVED_UP } else { below | BELOW }
}

/// The cursor below for one here, if it is of the part below.
fn cursor_below(cursor: u64) -> Option<u64> {
    match cursor & 0xff {
        MOVED_UP => Some(cursor >> 8),
        last if last & BELOW != 0 => Some(cursor & !BELOW),
        _ => None,
    }
}

impl Shared {
    pub(super) fn root(self: &Arc<Shared>) -> Result<Arc<Node>> {
        let stat = self.with(|store| store.stat(ROOT))?;
        let lower = self.lower.as_ref().map(|lower| lower.root.clone());
        let number = match &lower {
            Some(lower) => lower.attr()?.ino,
            None => ROOT,
        };
        let node = Node::new(self, Parts {
            number,
            kind: Kind::Directory,
            upper: ROOT,
            lower,
            lower_path: Box::default(),
            found: None,
            meta: Meta::from(&stat),
        });
        self.nodes.lock().upper.insert(ROOT, Arc::downgrade(&node));
        Ok(node)
    }

    /// The node of an inode of the store without anything below it.
    pub(super) fn upper_node(self: &Arc<Shared>, ino: u64) -> Result<Arc<Node>> {
        self.node_above(ino, |_| Ok((None, Box::default())))
    }

    /// The node of an inode of the store; `below` finds the directory that shows through a new one.
    fn node_above(
        self: &Arc<Shared>,
        ino: u64,
        below: impl FnOnce(&store::Stat) -> Result<(Option<InodeRef>, Box<[u8]>)>,
    ) -> Result<Arc<Node>> {
        if let Some(node) = self.nodes.lock().upper.get(&ino).and_then(Weak::upgrade) {
            return Ok(node);
        }
        let stat = self.with(|store| store.stat(ino))?;
        let (lower, lower_path) = below(&stat)?;
        let node = Node::new(self, Parts {
            number: self.shown_number(ino, stat.origin),
            kind: Kind::from_mode(stat.mode).ok_or(Error::new(Errno::EIO, "file type"))?,
            upper: ino,
            lower,
            lower_path,
            found: None,
            meta: Meta::from(&stat),
        });
        let mut nodes = self.nodes.lock();
        if let Some(first) = nodes.upper.get(&ino).and_then(Weak::upgrade) {
            return Ok(first);
        }
        nodes.upper.insert(ino, Arc::downgrade(&node));
        Ok(node)
    }

    /// The node of what is only below.
    fn node_below(self: &Arc<Shared>, inode: InodeRef, dir: &Arc<Node>, name: &[u8]) -> Result<Arc<Node>> {
        let attr = inode.attr()?;
        if let Some(node) = self.nodes.lock().lower.get(&attr.ino).and_then(Weak::upgrade) {
            return Ok(node);
        }
        let kind = inode.kind();
        let node = Node::new(self, Parts {
            number: attr.ino,
            kind,
            upper: 0,
            lower: Some(inode),
            lower_path: if kind == Kind::Directory { dir.path_below(name) } else { Box::default() },
            found: Some((dir.clone(), name.into())),
            meta: Meta::from(&attr),
        });
        let mut nodes = self.nodes.lock();
        if let Some(first) = nodes.lower.get(&attr.ino).and_then(Weak::upgrade) {
            return Ok(first);
        }
        nodes.lower.insert(attr.ino, Arc::downgrade(&node));
        Ok(node)
    }

    /// `st_ino` of an inode of the store.
    fn shown_number(&self, ino: u64, origin: u64) -> u64 {
        match &self.lower {
            Some(lower) if origin >> 32 == u64::from(lower.mark) && origin != 0 => origin & 0xffff_ffff,
            Some(_) if ino != ROOT => ino + FIRST_OWN_INO,
            _ => ino,
        }
    }

    /// The lower directory with this path.
    fn walk_below(&self, path: &[u8]) -> Result<Option<InodeRef>> {
        let Some(lower) = &self.lower else { return Ok(None) };
        let mut at = lower.root.clone();
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            match at.lookup(name) {
                Ok(next) if next.kind() == Kind::Directory => at = next,
                Ok(_) => return Ok(None),
                // Another image has no such directory.
                Err(error) if error.errno == Errno::ENOENT => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(at))
    }
}

impl Node {
    fn myself(&self) -> Result<Arc<Node>> {
        self.me.upgrade().ok_or(Error::new(Errno::ESTALE, "the inode goes away"))
    }

    fn path_below(&self, name: &[u8]) -> Box<[u8]> {
        [&self.lower_path[..], b"/", name].concat().into()
    }

    fn entry(&self, name: &[u8]) -> Result<Option<Entry>> {
        match self.upper() {
            Some(dir) => self.shared.with(|store| store.lookup(dir, name)),
            None => Ok(None),
        }
    }

    /// What the directory below has under this name.
    fn name_below(&self, name: &[u8]) -> Result<Option<InodeRef>> {
        let Some(lower) = &self.lower else { return Ok(None) };
        match lower.lookup(name) {
            Ok(inode) => Ok(Some(inode)),
            Err(error) if error.errno == Errno::ENOENT => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn require_directory(&self) -> Result<()> {
        if self.kind == Kind::Directory { Ok(()) } else { err(Errno::ENOTDIR, "not a directory") }
    }

    pub(super) fn find(&self, name: &[u8]) -> Result<Arc<Node>> {
        self.require_directory()?;
        match self.entry(name)? {
            Some(Entry { kind: EntryKind::Whiteout, .. }) => err(Errno::ENOENT, "removed"),
            Some(entry) => self.child_above(name, entry),
            None => match self.name_below(name)? {
                Some(inode) => self.shared.node_below(inode, &self.myself()?, name),
                None => err(Errno::ENOENT, "no such name"),
            },
        }
    }

    fn child_above(&self, name: &[u8], entry: Entry) -> Result<Arc<Node>> {
        self.shared.node_above(entry.ino, |stat| {
            if self.shared.lower.is_none() || stat.is_opaque || Kind::from_mode(stat.mode) != Some(Kind::Directory) {
                return Ok((None, Box::default()));
            }
            let redirect = match stat.has_xattrs {
                true => self.shared.with(|store| match store.xattr(entry.ino, REDIRECT) {
                    Err(StoreError::NoXattr) => Ok(None),
                    other => other.map(Some),
                })?,
                false => None,
            };
            if let Some(path) = redirect {
                return Ok((self.shared.walk_below(&path)?, path.into()));
            }
            let below = self.name_below(name)?.filter(|inode| inode.kind() == Kind::Directory);
            Ok((below, self.path_below(name)))
        })
    }

    /// Makes something in the directory, whose number in the store is `dir`.
    pub(super) fn create_named(&self, dir: u64, name: &[u8], new: &NewNode<'_>) -> Result<Arc<Node>> {
        let (kind, rdev, target): (Kind, u64, &[u8]) = match new.content {
            NewContent::Regular => (Kind::Regular, 0, b""),
            NewContent::Directory => (Kind::Directory, 0, b""),
            NewContent::Symlink(target) => (Kind::Symlink, 0, target),
            NewContent::Fifo => (Kind::Fifo, 0, b""),
            NewContent::Socket => (Kind::Socket, 0, b""),
            NewContent::CharDevice(rdev) => (Kind::CharDevice, rdev, b""),
            NewContent::BlockDevice(rdev) => (Kind::BlockDevice, rdev, b""),
        };
        let mode = kind.mode() | new.mode & 0o7777;
        let inode = NewInode { mode, uid: new.uid, gid: new.gid, rdev, target };
        let is_union_dir = kind == Kind::Directory && self.shared.lower.is_some();
        let ino = self.shared.with(|store| {
            let ino = store.create(dir, name, &inode, meta::now())?;
            if is_union_dir {
                store.set_opaque(ino, true)?;
            }
            Ok(ino)
        })?;
        self.shared.upper_node(ino)
    }

    /// Copies what is only below to the store, with the directories above it; gives its number there.
    pub(super) fn raise(&self) -> Result<u64> {
        let _raising = self.shared.raising.lock();
        self.raise_locked()
    }

    fn raise_locked(&self) -> Result<u64> {
        if let Some(ino) = self.upper() {
            return Ok(ino);
        }
        let Some(lower) = &self.lower else { return err(Errno::EIO, "nothing to copy up") };
        let found = self.found.lock().clone();
        let parent = match &found {
            Some((dir, name)) => Some((dir.raise_locked()?, dir, name)),
            None => None,
        };
        let ino = self.copy_up(lower)?;
        if let Some((dir_ino, dir, name)) = parent {
            let before = self.shared.with(|store| store.stat(dir_ino))?;
            self.shared.with(|store| match self.kind {
                Kind::Directory => Ok(()),
                _ => store.link(dir_ino, name, ino, meta::now()),
            })?;
            restore_times(&dir.shared, dir_ino, &before)?;
        }
        self.settle(ino, lower)?;
        Ok(ino)
    }

    /// The attributes and content of what is below as a nameless inode of the store; a directory gets its name at
    /// once, because it has no content to wait for.
    fn copy_up(&self, lower: &InodeRef) -> Result<u64> {
        let attr = lower.attr()?;
        let target = match self.kind {
            Kind::Symlink => match lower.read_link()? {
                Link::Text(target) => target,
                Link::Object(_) => return err(Errno::EIO, "an object link below"),
            },
            _ => Vec::new(),
        };
        let meta = *self.meta.lock();
        let inode = NewInode {
            mode: self.kind.mode() | meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            rdev: attr.rdev,
            target: &target,
        };
        let now = meta::now();
        let ino = match (&*self.found.lock(), self.kind) {
            (Some((dir, name)), Kind::Directory) => {
                let dir = dir.upper().ok_or(Error::new(Errno::EIO, "parent"))?;
                let (dir, name) = (dir, name.clone());
                Some((dir, name))
            }
            _ => None,
        };
        let ino = match ino {
            Some((dir, name)) => {
                let before = self.shared.with(|store| store.stat(dir))?;
                let ino = self.shared.with(|store| store.create(dir, &name, &inode, now))?;
                restore_times(&self.shared, dir, &before)?;
                ino
            }
            None => self.shared.with(|store| store.create_nameless(&inode, now))?,
        };
        if self.kind == Kind::Regular {
            self.copy_data(lower, ino, attr.size)?;
        }
        let mark = self.shared.lower.as_ref().map_or(0, |lower| lower.mark);
        let times = store::SetAttr {
            atime: Some(to_time(meta.atime)),
            mtime: Some(to_time(meta.mtime)),
            ..Default::default()
        };
        self.shared.with(|store| {
            store.set_origin(ino, u64::from(mark) << 32 | self.number)?;
            store.set_attr(ino, &times, to_time(meta.ctime))
        })?;
        Ok(ino)
    }

    fn copy_data(&self, lower: &InodeRef, ino: u64, size: u64) -> Result<()> {
        let mut buf = Vec::new();
        buf.try_reserve_exact(COPY_SIZE).map_err(|_| Error::new(Errno::ENOMEM, "copy up"))?;
        buf.resize(COPY_SIZE, 0);
        let mut offset = 0;
        while offset < size {
            let step = usize::try_from(size - offset).map_or(COPY_SIZE, |rest| rest.min(COPY_SIZE));
            let mut sink = Sink::kernel(&mut buf[..step]);
            lower.read_at(offset, &mut sink)?;
            let count = sink.done();
            if count == 0 {
                return err(Errno::EIO, "the lower file is shorter than it was");
            }
            let data = &buf[..count];
            // Zeros may stay a hole.
            if data.iter().any(|&byte| byte != 0) {
                self.shared.with(|store| store.write_at(ino, offset, data, meta::now()))?;
            }
            offset += count as u64;
        }
        self.shared.with(|store| store.set_size(ino, size, meta::now()))
    }

    /// The copy is complete: from now on it is the inode.
    fn settle(&self, ino: u64, lower: &InodeRef) -> Result<()> {
        let stat = self.shared.with(|store| store.stat(ino))?;
        if self.kind == Kind::Regular {
            self.data.reset(stat.size);
        }
        let links = if self.kind == Kind::Directory { 1 } else { self.meta.lock().nlink };
        {
            let mut meta = self.meta.lock();
            meta.nlink = stat.nlink;
            meta.blocks = stat.blocks * 8;
        }
        let others = links.saturating_sub(1);
        if lower.kind() != Kind::Directory && others > 0 {
            self.names_below.store(others, Ordering::Relaxed);
        }
        let me = self.myself()?;
        let old = {
            let mut nodes = self.shared.nodes.lock();
            self.upper.store(ino, Ordering::Release);
            nodes.upper.insert(ino, Arc::downgrade(&me));
            if self.names_below.load(Ordering::Relaxed) > 0 {
                nodes.kept.push(me);
            }
            self.found.lock().take()
        };
        drop(old);
        Ok(())
    }

    pub(super) fn remove_file(&self, name: &[u8]) -> Result<()> {
        let node = self.find(name)?;
        if node.kind == Kind::Directory {
            return err(Errno::EISDIR, "unlink of a directory");
        }
        self.hide(name, &node)
    }

    pub(super) fn remove_dir(&self, name: &[u8]) -> Result<()> {
        let node = self.find(name)?;
        node.require_directory()?;
        node.require_empty()?;
        self.hide(name, &node)
    }

    /// Takes `name`, which leads to `node`, out of the directory.
    fn hide(&self, name: &[u8], node: &Arc<Node>) -> Result<()> {
        let dir = self.changeable()?;
        let leave = self.leave_for(name)?;
        match self.entry(name)? {
            Some(_) => self.shared.with(|store| match node.kind {
                Kind::Directory => store.rmdir(dir, name, leave, meta::now()),
                _ => store.unlink(dir, name, leave, meta::now()),
            })
            .map(drop)?,
            None => self.shared.with(|store| store.set_whiteout(dir, name, meta::now()))?,
        }
        node.lost_name()?;
        self.refresh()
    }

    /// What must stand for a name that is gone from the store.
    fn leave_for(&self, name: &[u8]) -> Result<Leave> {
        Ok(if self.name_below(name)?.is_some() { Leave::Whiteout } else { Leave::Nothing })
    }

    /// A name that led here is gone.
    fn lost_name(&self) -> Result<()> {
        if let Some(ino) = self.upper() {
            let nlink = self.shared.with(|store| store.stat(ino))?.nlink;
            let mut meta = self.meta.lock();
            if meta.nlink == nlink && self.names_below.load(Ordering::Relaxed) > 0 {
                self.names_below.fetch_sub(1, Ordering::Relaxed);
            }
            meta.nlink = nlink;
            meta.ctime = crate::vfs::inode::Timestamp::now();
            drop(meta);
            if self.is_abandoned() {
                self.forget_kept();
            }
            return Ok(());
        }
        let is_gone = {
            let mut meta = self.meta.lock();
            meta.nlink = if self.kind == Kind::Directory { 0 } else { meta.nlink.saturating_sub(1) };
            meta.nlink == 0
        };
        if is_gone {
            let old = self.found.lock().take();
            drop(old);
        }
        Ok(())
    }

    fn forget_kept(&self) {
        let mut nodes = self.shared.nodes.lock();
        let at = nodes.kept.iter().position(|node| core::ptr::eq(&**node, self));
        let gone = at.map(|at| nodes.kept.swap_remove(at));
        drop(nodes);
        drop(gone);
    }

    fn require_empty(&self) -> Result<()> {
        let mut is_empty = true;
        self.list_entries(0, &mut |_| {
            is_empty = false;
            ControlFlow::Break(())
        })?;
        if is_empty { Ok(()) } else { err(Errno::ENOTEMPTY, "directory not empty") }
    }

    pub(super) fn move_entry(&self, name: &[u8], to: &Arc<Node>, to_name: &[u8], how: Rename) -> Result<()> {
        let node = self.find(name)?;
        let target = match to.find(to_name) {
            Ok(target) => Some(target),
            Err(error) if error.errno == Errno::ENOENT => None,
            Err(error) => return Err(error),
        };
        if let Some(target) = &target {
            check_target(&node, target, how)?;
            // Two names of one file: rename(2) does nothing.
            if Arc::ptr_eq(target, &node) {
                return Ok(());
            }
        }
        let (from_dir, to_dir) = (self.changeable()?, to.changeable()?);
        self.prepare_move(name, &node)?;
        let rename = match how {
            Rename::Exchange => {
                if let Some(target) = &target {
                    to.prepare_move(to_name, target)?;
                }
                store::Rename::Exchange
            }
            // What the target was below is checked; above only whiteouts may be left.
            _ => store::Rename::Replace,
        };
        if how != Rename::Exchange && target.is_some() && node.kind == Kind::Regular {
            // Who replaces a file by a new one wants one of the two after a crash, not an empty one.
            node.write_back_data(Then::Keep)?;
        }
        let leave = if how == Rename::Exchange { Leave::Nothing } else { self.leave_for(name)? };
        let (from, end) = (Name { dir: from_dir, name }, Name { dir: to_dir, name: to_name });
        self.shared.with(|store| store.rename(from, end, rename, leave, meta::now()))?;
        node.refresh()?;
        match (how, target) {
            (Rename::Exchange, Some(target)) => target.refresh()?,
            (_, Some(target)) => target.lost_name()?,
            _ => {}
        }
        self.refresh()?;
        to.refresh()
    }

    /// Raises the child `name`, so that the store can move it. A directory that shows one below remembers which.
    fn prepare_move(&self, name: &[u8], node: &Arc<Node>) -> Result<()> {
        let ino = node.changeable()?;
        if self.entry(name)?.is_none() {
            // Another name of it was raised before; this one is still below.
            let dir = self.changeable()?;
            self.shared.with(|store| store.link(dir, name, ino, meta::now()))?;
            node.names_below.fetch_sub(1, Ordering::Relaxed);
            node.refresh()?;
        }
        if node.kind == Kind::Directory && node.lower.is_some() {
            let path = &node.lower_path;
            let any = store::XattrMode::Any;
            self.shared.with(|store| store.set_xattr(ino, REDIRECT, path, any, meta::now()))?;
        }
        Ok(())
    }

    pub(super) fn list_entries(&self, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        self.require_directory()?;
        let first_below = match cursor_below(cursor) {
            Some(below) => below,
            None => match self.list_above(cursor, visit)? {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(()) => 0,
            },
        };
        if self.meta.lock().nlink == 0 { Ok(()) } else { self.list_below(first_below, visit) }
    }

    fn list_above(&self, mut cursor: u64, visit: &mut Visit<'_>) -> Result<ControlFlow<()>> {
        let Some(dir) = self.upper() else { return Ok(ControlFlow::Continue(())) };
        loop {
            let mut batch = Vec::new();
            self.shared.with(|store| {
                store.read_dir(dir, cursor, |each| {
                    batch.push((Box::<[u8]>::from(each.name), each.entry, each.next));
                    if batch.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
            })?;
            let is_last = batch.len() < BATCH;
            for (name, entry, next) in batch {
                cursor = next;
                let EntryKind::File(kind) = entry.kind else { continue };
                let ino = self.listed_number(entry.ino)?;
                let kind = Kind::from_mode(kind.mode()).ok_or(Error::new(Errno::EIO, "file type"))?;
                if visit(DirEntry { name: &name, ino, kind, next }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if is_last {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    fn listed_number(&self, ino: u64) -> Result<u64> {
        if self.shared.lower.is_none() {
            return Ok(ino);
        }
        let origin = self.shared.with(|store| store.stat(ino))?.origin;
        Ok(self.shared.shown_number(ino, origin))
    }

    fn list_below(&self, first: u64, visit: &mut Visit<'_>) -> Result<()> {
        let Some(lower) = &self.lower else { return Ok(()) };
        let mut problem = Ok(());
        lower.read_dir(first, &mut |entry| match self.entry(entry.name) {
            Ok(Some(_)) => ControlFlow::Continue(()),
            Ok(None) => visit(DirEntry { next: cursor_for(entry.next), ..entry }),
            Err(error) => {
                problem = Err(error);
                ControlFlow::Break(())
            }
        })?;
        problem
    }
}

fn check_target(node: &Node, target: &Node, how: Rename) -> Result<()> {
    if how == Rename::NoReplace {
        return err(Errno::EEXIST, "target exists");
    }
    if how == Rename::Exchange {
        return Ok(());
    }
    match (node.kind == Kind::Directory, target.kind == Kind::Directory) {
        (true, false) => err(Errno::ENOTDIR, "directory over a file"),
        (false, true) => err(Errno::EISDIR, "file over a directory"),
        (true, true) => target.require_empty(),
        (false, false) => Ok(()),
    }
}

/// Raising something is no change of the directory that a program could see.
fn restore_times(shared: &Shared, dir: u64, before: &store::Stat) -> Result<()> {
    let times = store::SetAttr { atime: Some(before.atime), mtime: Some(before.mtime), ..Default::default() };
    shared.with(|store| store.set_attr(dir, &times, before.ctime))
}

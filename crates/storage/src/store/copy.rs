//! Copying a store into another one: under another key, for another machine, without its holes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::attributes::NewInode;
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::inode::{FileKind, ROOT, SetAttr, Stat};
use super::names::EntryKind;
use super::opened::Store;
use super::pointer::BLOCK;
use super::seal::zeros;
use super::xattr::XattrMode;

const PIECE: usize = 1 << 20;

/// A directory whose names are still to be copied: its inode here and there.
type Todo = Vec<(u64, u64)>;

impl<D: Disk> Store<D> {
    /// Copies everything that has a name into `target`, which is new. Nothing is synced there.
    /// `progress` hears inodes done and all; it may break to stop early, which is an error.
    pub fn copy_into<E: Disk>(
        &mut self,
        target: &mut Store<E>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let total = self.statfs().inodes;
        let mut known = BTreeMap::from([(ROOT, ROOT)]);
        let mut todo: Todo = Vec::from([(ROOT, ROOT)]);
        let mut dirs = Vec::new();
        while let Some((from, to)) = todo.pop() {
            dirs.push((from, to));
            for (name, ino, kind) in self.names_of(from)? {
                let now = self.stat(from)?.mtime;
                if kind == EntryKind::Whiteout {
                    target.set_whiteout(to, &name, now)?;
                    continue;
                }
                if let Some(copy) = known.get(&ino) {
                    target.link(to, &name, *copy, now)?;
                    continue;
                }
                let copy = self.copy_inode(target, ino, to, &name)?;
                known.insert(ino, copy);
                match kind {
                    EntryKind::File(FileKind::Directory) => todo.push((ino, copy)),
                    _ => self.copy_attributes(target, ino, copy)?,
                }
                if progress(known.len() as u64, total).is_break() {
                    return Err(StoreError::Failed);
                }
            }
        }
        // Last, because names that come change times.
        for (from, to) in dirs {
            self.copy_attributes(target, from, to)?;
        }
        Ok(())
    }

    fn names_of(&mut self, dir: u64) -> Result<Vec<(Vec<u8>, u64, EntryKind)>> {
        let mut names = Vec::new();
        self.read_dir(dir, 0, |each| {
            names.push((each.name.to_vec(), each.entry.ino, each.entry.kind));
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    fn copy_inode<E: Disk>(
        &mut self,
        target: &mut Store<E>,
        ino: u64,
        dir: u64,
        name: &[u8],
    ) -> Result<u64> {
        let stat = self.stat(ino)?;
        let link = match stat.kind() {
            FileKind::Symlink => self.read_link(ino)?,
            _ => Vec::new(),
        };
        let new = NewInode {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            rdev: stat.rdev,
            target: &link,
        };
        let copy = target.create(dir, name, &new, stat.btime)?;
        if stat.kind() == FileKind::Regular {
            self.copy_data(target, ino, copy, &stat)?;
        }
        Ok(copy)
    }

    fn copy_data<E: Disk>(
        &mut self,
        target: &mut Store<E>,
        ino: u64,
        copy: u64,
        stat: &Stat,
    ) -> Result<()> {
        let mut buf = zeros(PIECE)?;
        target.set_size(copy, stat.size, stat.mtime)?;
        let mut at = 0;
        while let Some(start) = self.seek_data(ino, at)? {
            let end = self.seek_hole(ino, start)?.unwrap_or(stat.size);
            let size = usize::try_from(end - start).map_or(PIECE, |size| size.min(PIECE));
            let count = self.read_at(ino, start, &mut buf[..size])?;
            target.write_at(copy, start, &buf[..count], stat.mtime)?;
            at = (start + count as u64).max(start + 1);
            debug_assert!(at.is_multiple_of(BLOCK as u64) || at == stat.size);
        }
        Ok(())
    }

    fn copy_attributes<E: Disk>(
        &mut self,
        target: &mut Store<E>,
        ino: u64,
        copy: u64,
    ) -> Result<()> {
        let stat = self.stat(ino)?;
        for name in self.xattr_names(ino)? {
            let value = self.xattr(ino, &name)?;
            target.set_xattr(copy, &name, &value, XattrMode::Any, stat.ctime)?;
        }
        target.set_opaque(copy, stat.is_opaque)?;
        target.set_origin(copy, stat.origin)?;
        let change = SetAttr {
            mode: Some(stat.mode & 0o7777),
            uid: Some(stat.uid),
            gid: Some(stat.gid),
            atime: Some(stat.atime),
            mtime: Some(stat.mtime),
        };
        target.set_attr(copy, &change, stat.ctime)
    }
}

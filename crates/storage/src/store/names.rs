//! Names: lookup, and all that changes directories.
//!
//! Each operation first looks at everything it needs and then changes things: what can be refused
//! is refused before the first change. A change that breaks off closes the store for writing.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::attributes::NewInode;
use super::commit::Purpose;
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::inode::{FileKind, ROOT, Stat, Time};
use super::item::{Item, Key, KeyKind, MAX_VALUE, NameEntry, WHITEOUT};
use super::opened::Store;
use super::siphash::siphash;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    File(FileKind),
    /// Hides a name of the layer below.
    Whiteout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 0 for a whiteout.
    pub ino: u64,
    pub kind: EntryKind,
}

/// One entry as `read_dir` shows it.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    pub name: &'a [u8],
    pub entry: Entry,
    /// Where a later `read_dir` goes on behind this entry; below 2^63.
    pub next: u64,
}

/// An inode lost a name. At `nlink` 0 it is an orphan until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    pub ino: u64,
    pub nlink: u32,
}

/// renameat2(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

/// What stays under a name that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Nothing,
    Whiteout,
}

/// One name of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub dir: u64,
    pub name: &'a [u8],
}

const MAX_LINKS: u32 = 1 << 30;
const MAX_NAME: usize = 255;
/// Names with one hash are told apart by the low bits of a cursor.
const HASH_MASK: u64 = 0x7fff_ffff_ffff_ff00;

impl<D: Disk> Store<D> {
    /// What `name` stands for, a whiteout included.
    pub fn lookup(&mut self, dir: u64, name: &[u8]) -> Result<Option<Entry>> {
        self.directory(dir)?;
        self.find(Name { dir, name })
    }

    /// Makes an inode with this name. A whiteout gives way.
    pub fn create(&mut self, dir: u64, name: &[u8], new: &NewInode<'_>, now: Time) -> Result<u64> {
        let kind = Self::check_new(new)?;
        let place = Name { dir, name };
        self.check_place(place)?;
        self.begin(0, Purpose::Add)?;
        let done = self.create_checked(place, new, kind, now);
        self.fail_if_broken(done)
    }

    /// Makes an inode without a name: an orphan.
    pub fn create_nameless(&mut self, new: &NewInode<'_>, now: Time) -> Result<u64> {
        Self::check_new(new)?;
        self.begin(0, Purpose::Add)?;
        let done = self.make_inode(new, 0, 0, now).and_then(|ino| {
            self.add_orphan(ino)?;
            Ok(ino)
        });
        self.fail_if_broken(done)
    }

    /// One name more for an inode that is no directory. An orphan is none any more.
    pub fn link(&mut self, dir: u64, name: &[u8], ino: u64, now: Time) -> Result<()> {
        let place = Name { dir, name };
        let stat = self.stat(ino)?;
        if stat.kind() == FileKind::Directory {
            return Err(StoreError::IsADirectory);
        }
        if stat.nlink >= MAX_LINKS {
            return Err(StoreError::TooManyLinks);
        }
        self.check_place(place)?;
        self.begin(0, Purpose::Add)?;
        let done = self.link_checked(place, ino, &stat, now);
        self.fail_if_broken(done)
    }

    /// Takes a name away that is no directory's.
    pub fn unlink(&mut self, dir: u64, name: &[u8], leave: Leave, now: Time) -> Result<Removed> {
        self.directory(dir)?;
        let place = Name { dir, name };
        let entry = self.file_at(place)?.ok_or(StoreError::NotFound)?;
        if entry.kind == EntryKind::File(FileKind::Directory) {
            return Err(StoreError::IsADirectory);
        }
        self.remove_checked(place, entry, leave, now)
    }

    /// Takes away a directory that has no names but whiteouts.
    pub fn rmdir(&mut self, dir: u64, name: &[u8], leave: Leave, now: Time) -> Result<Removed> {
        self.directory(dir)?;
        let place = Name { dir, name };
        let entry = self.file_at(place)?.ok_or(StoreError::NotFound)?;
        if entry.kind != EntryKind::File(FileKind::Directory) {
            return Err(StoreError::NotADirectory);
        }
        if !self.is_empty(entry.ino)? {
            return Err(StoreError::NotEmpty);
        }
        self.remove_checked(place, entry, leave, now)
    }

    /// Hides a name of the layer below. The name must not be here.
    pub fn set_whiteout(&mut self, dir: u64, name: &[u8], now: Time) -> Result<()> {
        let place = Name { dir, name };
        self.check_place(place)?;
        self.begin(0, Purpose::Add)?;
        let done = self
            .put_entry(place, 0, WHITEOUT)
            .and_then(|()| self.touch(dir, 0, now));
        self.fail_if_broken(done)
    }

    pub fn clear_whiteout(&mut self, dir: u64, name: &[u8], now: Time) -> Result<()> {
        self.directory(dir)?;
        let place = Name { dir, name };
        match self.find(place)? {
            Some(entry) if entry.kind == EntryKind::Whiteout => {}
            _ => return Err(StoreError::NotFound),
        }
        self.begin(0, Purpose::Remove)?;
        let done = self
            .drop_entry(place)
            .and_then(|()| self.touch(dir, 0, now));
        self.fail_if_broken(done)
    }

    /// Moves a name, as renameat2(2). Gives what lost its name at the new place.
    pub fn rename(
        &mut self,
        from: Name<'_>,
        to: Name<'_>,
        how: Rename,
        leave: Leave,
        now: Time,
    ) -> Result<Option<Removed>> {
        let moved = self.check_from(from, to)?;
        let target = self.file_at(to)?;
        match (how, target) {
            (Rename::Exchange, None) => return Err(StoreError::NotFound),
            (Rename::Exchange, Some(target)) => {
                self.check_cycle(to.dir, from.dir, target)?;
                self.begin(0, Purpose::Remove)?;
                let done = self.exchange(from, moved, to, target, now);
                return self.fail_if_broken(done).map(|()| None);
            }
            (Rename::NoReplace, Some(_)) => return Err(StoreError::Exists),
            _ => {}
        }
        if let Some(target) = target {
            if target.ino == moved.ino {
                return Ok(None);
            }
            self.check_replace(moved, target)?;
        }
        self.begin(0, Purpose::Add)?;
        let done = self.move_checked(from, moved, to, target, leave, now);
        self.fail_if_broken(done)
    }

    /// Shows the entries of a directory, whiteouts included, from `cursor` on (0 at first) until
    /// `visit` breaks.
    pub fn read_dir(
        &mut self,
        dir: u64,
        cursor: u64,
        mut visit: impl FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.directory(dir)?;
        let key = |offset| Key::new(dir, KeyKind::Names, offset);
        let (from, to) = (key(cursor & HASH_MASK), key(u64::MAX));
        let mut wrong = false;
        self.tree
            .scan(&mut self.vault, &from, &to, &mut |key, item| {
                let Item::Names(entries) = item else {
                    return ControlFlow::Continue(());
                };
                for (each, index) in entries.iter().zip(1..) {
                    let next = key.offset + index;
                    if next <= cursor {
                        continue;
                    }
                    let Some(entry) = Entry::of(each) else {
                        wrong = true;
                        return ControlFlow::Break(());
                    };
                    let name = &each.name;
                    visit(DirEntry { name, entry, next })?;
                }
                ControlFlow::Continue(())
            })?;
        match wrong {
            true => Err(StoreError::Malformed("a name stands for an unknown kind")),
            false => Ok(()),
        }
    }

    /// Whether the directory has no names but whiteouts.
    pub fn is_empty(&mut self, dir: u64) -> Result<bool> {
        let mut is_empty = true;
        self.read_dir(dir, 0, |each| match each.entry.kind {
            EntryKind::Whiteout => ControlFlow::Continue(()),
            EntryKind::File(_) => {
                is_empty = false;
                ControlFlow::Break(())
            }
        })?;
        Ok(is_empty)
    }

    fn directory(&mut self, ino: u64) -> Result<Stat> {
        let stat = self.stat(ino)?;
        match stat.kind() {
            FileKind::Directory => Ok(stat),
            _ => Err(StoreError::NotADirectory),
        }
    }

    fn names_key(&self, place: Name<'_>) -> Key {
        let hash = siphash(&self.name_key, place.name) & HASH_MASK;
        Key::new(place.dir, KeyKind::Names, hash)
    }

    fn find(&mut self, place: Name<'_>) -> Result<Option<Entry>> {
        let key = self.names_key(place);
        let Some(Item::Names(entries)) = self.tree.get(&mut self.vault, &key)? else {
            return Ok(None);
        };
        let found = entries.iter().find(|each| *each.name == *place.name);
        let wrong = StoreError::Malformed("a name stands for an unknown kind");
        found.map(|each| Entry::of(each).ok_or(wrong)).transpose()
    }

    /// As `find`, but a whiteout is nothing.
    fn file_at(&mut self, place: Name<'_>) -> Result<Option<Entry>> {
        let found = self.find(place)?;
        Ok(found.filter(|entry| entry.kind != EntryKind::Whiteout))
    }

    /// The name is possible, the directory lives, and no file is there.
    fn check_place(&mut self, place: Name<'_>) -> Result<()> {
        check_name(place.name)?;
        if self.directory(place.dir)?.nlink == 0 {
            return Err(StoreError::NotFound);
        }
        match self.file_at(place)? {
            Some(_) => Err(StoreError::Exists),
            None => Ok(()),
        }
    }

    fn create_checked(
        &mut self,
        place: Name<'_>,
        new: &NewInode<'_>,
        kind: FileKind,
        now: Time,
    ) -> Result<u64> {
        let is_dir = kind == FileKind::Directory;
        let (parent, nlink) = if is_dir { (place.dir, 2) } else { (0, 1) };
        let ino = self.make_inode(new, parent, nlink, now)?;
        self.put_entry(place, ino, kind as u8)?;
        self.touch(place.dir, i64::from(is_dir), now)?;
        Ok(ino)
    }

    fn link_checked(&mut self, place: Name<'_>, ino: u64, stat: &Stat, now: Time) -> Result<()> {
        self.put_entry(place, ino, stat.kind() as u8)?;
        self.touch(place.dir, 0, now)?;
        self.update_inode(ino, |stat| {
            stat.nlink += 1;
            stat.ctime = now;
        })?;
        if stat.nlink == 0 {
            self.remove_orphan(ino)?;
        }
        Ok(())
    }

    fn remove_checked(
        &mut self,
        place: Name<'_>,
        entry: Entry,
        leave: Leave,
        now: Time,
    ) -> Result<Removed> {
        self.begin(0, Purpose::Remove)?;
        let done = self.leave(place, leave).and_then(|()| {
            let is_dir = entry.kind == EntryKind::File(FileKind::Directory);
            self.touch(place.dir, -i64::from(is_dir), now)?;
            self.lose_name(entry, now)
        });
        self.fail_if_broken(done)
    }

    fn leave(&mut self, place: Name<'_>, leave: Leave) -> Result<()> {
        match leave {
            Leave::Nothing => self.drop_entry(place),
            Leave::Whiteout => self.put_entry(place, 0, WHITEOUT),
        }
    }

    /// One name fewer; a directory loses its last one with its `.`.
    fn lose_name(&mut self, entry: Entry, now: Time) -> Result<Removed> {
        let ino = entry.ino;
        let mut nlink = 0;
        self.update_inode(ino, |stat| {
            stat.nlink = match stat.kind() {
                FileKind::Directory => 0,
                _ => stat.nlink.saturating_sub(1),
            };
            stat.ctime = now;
            nlink = stat.nlink;
        })?;
        if nlink == 0 {
            self.add_orphan(ino)?;
        }
        Ok(Removed { ino, nlink })
    }

    /// A directory's names changed, and it has so many subdirectories more.
    fn touch(&mut self, dir: u64, subdirs: i64, now: Time) -> Result<()> {
        self.update_inode(dir, |stat| {
            let nlink = i64::from(stat.nlink) + subdirs;
            stat.nlink = u32::try_from(nlink).unwrap_or(stat.nlink);
            stat.mtime = now;
            stat.ctime = now;
        })
    }

    fn put_entry(&mut self, place: Name<'_>, ino: u64, kind: u8) -> Result<()> {
        let key = self.names_key(place);
        let name: Box<[u8]> = place.name.into();
        let new = || Item::Names(Vec::new());
        let done = self.tree.upsert(&mut self.vault, &key, new, |item| {
            let Item::Names(entries) = item else {
                return None;
            };
            let entry = NameEntry {
                ino,
                kind,
                name: name.clone(),
            };
            match entries.binary_search_by(|each| each.name.cmp(&name)) {
                Ok(at) => {
                    entries[at] = entry;
                    return Some(0);
                }
                Err(at) => entries.insert(at, entry),
            }
            Some(1)
        })?;
        let added = done.ok_or(StoreError::Malformed("names are something else"))?;
        self.count_entries(place.dir, added)
    }

    fn drop_entry(&mut self, place: Name<'_>) -> Result<()> {
        let key = self.names_key(place);
        let left = self.tree.update(&mut self.vault, &key, |item| {
            let Item::Names(entries) = item else {
                return 1;
            };
            entries.retain(|each| *each.name != *place.name);
            entries.len()
        })?;
        if left == Some(0) {
            self.tree.remove(&mut self.vault, &key)?;
        }
        self.count_entries(place.dir, -1)
    }

    fn count_entries(&mut self, dir: u64, added: i64) -> Result<()> {
        if added == 0 {
            return Ok(());
        }
        self.update_inode(dir, |stat| {
            stat.size = stat.size.saturating_add_signed(added);
        })
    }

    fn check_from(&mut self, from: Name<'_>, to: Name<'_>) -> Result<Entry> {
        check_name(to.name)?;
        self.directory(from.dir)?;
        if self.directory(to.dir)?.nlink == 0 {
            return Err(StoreError::NotFound);
        }
        let moved = self.file_at(from)?.ok_or(StoreError::NotFound)?;
        self.check_cycle(from.dir, to.dir, moved)?;
        Ok(moved)
    }

    /// A directory must not come below itself.
    fn check_cycle(&mut self, from_dir: u64, to_dir: u64, moved: Entry) -> Result<()> {
        if moved.kind != EntryKind::File(FileKind::Directory) || from_dir == to_dir {
            return Ok(());
        }
        let mut above = to_dir;
        loop {
            if above == moved.ino {
                return Err(StoreError::Invalid);
            }
            if above == ROOT {
                return Ok(());
            }
            above = self.stat(above)?.parent;
        }
    }

    fn check_replace(&mut self, moved: Entry, target: Entry) -> Result<()> {
        let is_dir = |entry: Entry| entry.kind == EntryKind::File(FileKind::Directory);
        match (is_dir(moved), is_dir(target)) {
            (true, false) => Err(StoreError::NotADirectory),
            (false, true) => Err(StoreError::IsADirectory),
            (true, true) if !self.is_empty(target.ino)? => Err(StoreError::NotEmpty),
            _ => Ok(()),
        }
    }

    fn move_checked(
        &mut self,
        from: Name<'_>,
        moved: Entry,
        to: Name<'_>,
        target: Option<Entry>,
        leave: Leave,
        now: Time,
    ) -> Result<Option<Removed>> {
        let removed = match target {
            Some(target) => Some(self.lose_name(target, now)?),
            None => None,
        };
        self.put_entry(to, moved.ino, moved.number())?;
        self.leave(from, leave)?;
        let is_dir = i64::from(moved.kind == EntryKind::File(FileKind::Directory));
        let lost = i64::from(is_dir == 1 && target.is_some());
        self.touch(from.dir, -is_dir, now)?;
        self.touch(to.dir, is_dir - lost, now)?;
        self.moved(moved, to.dir, now)?;
        Ok(removed)
    }

    fn exchange(
        &mut self,
        from: Name<'_>,
        moved: Entry,
        to: Name<'_>,
        target: Entry,
        now: Time,
    ) -> Result<()> {
        self.put_entry(to, moved.ino, moved.number())?;
        self.put_entry(from, target.ino, target.number())?;
        let is_dir = |entry: Entry| i64::from(entry.kind == EntryKind::File(FileKind::Directory));
        let gain = is_dir(moved) - is_dir(target);
        self.touch(from.dir, -gain, now)?;
        self.touch(to.dir, gain, now)?;
        self.moved(moved, to.dir, now)?;
        self.moved(target, from.dir, now)
    }

    fn moved(&mut self, entry: Entry, dir: u64, now: Time) -> Result<()> {
        self.update_inode(entry.ino, |stat| {
            if stat.kind() == FileKind::Directory {
                stat.parent = dir;
            }
            stat.ctime = now;
        })
    }
}

impl Entry {
    fn of(each: &NameEntry) -> Option<Entry> {
        let kind = match each.kind {
            WHITEOUT => EntryKind::Whiteout,
            number => EntryKind::File(FileKind::from_number(u32::from(number))?),
        };
        Some(Entry {
            ino: each.ino,
            kind,
        })
    }

    fn number(&self) -> u8 {
        match self.kind {
            EntryKind::File(kind) => kind as u8,
            EntryKind::Whiteout => WHITEOUT,
        }
    }
}

fn check_name(name: &[u8]) -> Result<()> {
    match name {
        [] => Err(StoreError::NameTooLong),
        b"." | b".." => Err(StoreError::Exists),
        _ if name.len() > MAX_NAME => Err(StoreError::NameTooLong),
        _ if name.iter().any(|byte| matches!(byte, b'/' | 0)) => Err(StoreError::Invalid),
        _ => Ok(()),
    }
}

/// Five names of any length have room in one value; that more have one hash of 55 secret bits
/// does not happen.
const _: () = assert!(MAX_VALUE >= 5 * (10 + MAX_NAME));

//! The names of one directory, here and below.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::ops::ControlFlow;

use super::node::Node;
use crate::error::{Errno, Result, err};
use crate::vfs::inode::{DirEntry, Visit};
use crate::vfs::{Inode, InodeRef};

/// Cursors of entries of the lower directory are below this, of own entries from here on.
const FIRST_OWN_CURSOR: u64 = 1 << 33;

/// The changes to a directory; what is not in here is as below.
pub struct Directory {
    slots: BTreeMap<Box<[u8]>, Slot>,
    /// Own names in the order they were made, for stable cursors.
    order: BTreeMap<u64, Box<[u8]>>,
    next_cursor: u64,
    lower: Option<InodeRef>,
    /// Removed: nothing may be made in it any more.
    is_dead: bool,
}

pub enum Slot {
    Own { node: Arc<Node>, cursor: u64 },
    /// Hides a name of the lower directory.
    Whiteout,
}

impl Directory {
    pub fn new(lower: Option<InodeRef>) -> Directory {
        Directory {
            slots: BTreeMap::new(),
            order: BTreeMap::new(),
            next_cursor: FIRST_OWN_CURSOR,
            lower,
            is_dead: false,
        }
    }

    pub fn find(&self, name: &[u8]) -> Result<Found> {
        match self.slots.get(name) {
            Some(Slot::Own { node, .. }) => Ok(Found::Own(node.clone())),
            Some(Slot::Whiteout) => err(Errno::ENOENT, "removed"),
            None => match &self.lower {
                Some(lower) => Ok(Found::Below(lower.lookup(name)?)),
                None => err(Errno::ENOENT, "no such name"),
            },
        }
    }

    /// Makes `name` mean `node`, whatever it meant.
    pub fn set(&mut self, name: &[u8], node: Arc<Node>) -> Result<()> {
        if self.is_dead {
            return err(Errno::ENOENT, "the directory was removed");
        }
        self.drop_slot(name);
        let cursor = self.next_cursor;
        self.next_cursor += 1;
        self.order.insert(cursor, name.into());
        self.slots.insert(name.into(), Slot::Own { node, cursor });
        Ok(())
    }

    pub fn remove(&mut self, name: &[u8]) {
        self.drop_slot(name);
        let is_below = self.lower.as_ref().is_some_and(|lower| lower.lookup(name).is_ok());
        if is_below {
            self.slots.insert(name.into(), Slot::Whiteout);
        }
    }

    fn drop_slot(&mut self, name: &[u8]) {
        if let Some(Slot::Own { cursor, .. }) = self.slots.remove(name) {
            self.order.remove(&cursor);
        }
    }

    /// Marks an empty directory as removed; ENOTEMPTY.
    pub fn kill(&mut self) -> Result<()> {
        if !self.order.is_empty() {
            return err(Errno::ENOTEMPTY, "directory not empty");
        }
        let mut is_empty = true;
        if let Some(lower) = &self.lower {
            lower.read_dir(0, &mut |entry| {
                is_empty = self.slots.contains_key(entry.name);
                if is_empty { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        if !is_empty {
            return err(Errno::ENOTEMPTY, "directory not empty");
        }
        self.is_dead = true;
        Ok(())
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    pub fn read(&self, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        if self.is_dead {
            return Ok(());
        }
        let mut is_over = false;
        if let Some(lower) = self.lower.as_ref().filter(|_| cursor < FIRST_OWN_CURSOR) {
            lower.read_dir(cursor, &mut |entry| {
                if self.slots.contains_key(entry.name) {
                    return ControlFlow::Continue(());
                }
                let flow = visit(entry);
                is_over = flow.is_break();
                flow
            })?;
        }
        if is_over {
            return Ok(());
        }
        for (&cursor, name) in self.order.range(cursor.max(FIRST_OWN_CURSOR)..) {
            let Some(Slot::Own { node, .. }) = self.slots.get(name) else { continue };
            let entry = DirEntry { name, ino: node.ino(), kind: node.kind(), next: cursor + 1 };
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Where a name leads.
pub enum Found {
    Own(Arc<Node>),
    Below(InodeRef),
}

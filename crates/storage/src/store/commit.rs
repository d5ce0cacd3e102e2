//! Making changes durable: log records and checkpoints.
//!
//! What happens when, and why it is enough, is in `docs/design/store.md`.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::disk::Disk;
use super::error::{Result, StoreError};
use super::item::{Group, Item, Key, KeyKind};
use super::log::{Commit, Draft, Place};
use super::opened::Store;
use super::pointer::{BLOCK, MountId, Pointer, Writing};
use super::seal::BlockKind;
use super::space::Run;
use super::superblock::{SLOTS, Superblock};
use super::vault::Vault;

/// Blocks of a log segment.
const SEGMENT_LEN: u64 = 64;
/// Blocks of log after which a checkpoint is due.
const LOG_LIMIT: u64 = 2048;
/// Data blocks that the last record may leave to be verified at the next open.
const UNSETTLED_LIMIT: u64 = 1024;
/// Blocks that are never given to data or names: the log, and nodes that one operation changes.
pub(super) const RESERVE: u64 = 128;
/// Blocks of zeros that are written behind the end of the file before small syncs need them: a host's
/// file system syncs what was there before twice as fast as what is new.
const AHEAD: u64 = 256;
/// A sync of fewer data blocks is small.
const SMALL_SYNC: u64 = 32;
/// Blocks that a checkpoint writes at once.
const BATCH: usize = 64;

/// The log since the last checkpoint.
#[derive(Default)]
pub struct Log {
    /// Where records go: the last segment.
    pub run: Run,
    /// The next record's block.
    pub next: u64,
    /// All segments.
    pub segments: Vec<Run>,
    /// Blocks of all records.
    pub len: u64,
}

impl Log {
    pub fn new(run: Run) -> Log {
        let segments = if run.len > 0 {
            Vec::from([run])
        } else {
            Vec::new()
        };
        Log {
            run,
            next: run.start,
            segments,
            len: 0,
        }
    }

    fn room(&self) -> u64 {
        (self.run.start + self.run.len).saturating_sub(self.next)
    }
}

impl<D: Disk> Store<D> {
    /// Everything that was done before is durable when this returns.
    pub fn sync(&mut self) -> Result<()> {
        self.check_writable()?;
        if !self.has_changes() {
            return Ok(());
        }
        let done = self.commit();
        self.fail_if_broken(done)
    }

    /// As `sync`, and empties the log: the next open has nothing to replay.
    pub fn checkpoint(&mut self) -> Result<()> {
        self.check_writable()?;
        if !self.has_changes() && self.log.len == 0 && !self.must_checkpoint {
            return Ok(());
        }
        let done = self.write_checkpoint();
        self.fail_if_broken(done)
    }

    pub(super) fn has_changes(&self) -> bool {
        self.tree.is_changed()
    }

    fn commit(&mut self) -> Result<()> {
        self.staging.flush(&mut self.vault, &mut self.space)?;
        if self.must_checkpoint || self.log.len >= LOG_LIMIT {
            return self.write_checkpoint();
        }
        if self.staging.unsynced() < SMALL_SYNC {
            self.fill_ahead(self.space.cursor() + 2 * SMALL_SYNC)?;
        }
        match self.draft_commit()? {
            Some(draft) => self.write_record(draft),
            None => self.write_checkpoint(),
        }
    }

    /// The record of all that changed; `None` if the log is no place for it.
    fn draft_commit(&mut self) -> Result<Option<Draft>> {
        if self.staging.unsynced() > UNSETTLED_LIMIT {
            self.vault.disk.sync()?;
            self.settled = self.vault.sealer.next_counter();
            self.staging.synced();
        }
        let Some(changed) = self.tree.take_changed() else {
            return Ok(None);
        };
        let head = Commit {
            settled: self.settled,
            next_ino: self.next_ino,
            block_count: self.space.high(),
            inode_count: self.inode_count,
            items: Vec::new(),
        };
        let mut draft = Draft::commit(&self.place, &head);
        for key in &changed {
            let item = self.tree.get(&mut self.vault, key)?;
            if !draft.add(key, item) {
                return Ok(None);
            }
        }
        let has_room = self.make_log_room(draft.blocks())?;
        Ok(has_room.then_some(draft))
    }

    /// Has room for a record, and behind it for one that leads to the next segment.
    fn make_log_room(&mut self, blocks: u64) -> Result<bool> {
        if blocks > LOG_LIMIT / 2 {
            return Ok(false);
        }
        if blocks < self.log.room() {
            return Ok(true);
        }
        let want = (blocks + 1).max(SEGMENT_LEN);
        if self.log.room() == 0 || self.space.free() < self.checkpoint_need() + want {
            return Ok(false);
        }
        let Some(run) = self.space.reserve(&mut self.vault, want)? else {
            return Ok(false);
        };
        if run.len <= blocks {
            return Ok(false);
        }
        self.use_run(run)?;
        self.fill_ahead(run.start + run.len)?;
        let (bytes, tag) = Draft::next_segment(&self.place, run).seal(&mut self.vault)?;
        self.vault.write(self.log.next, &bytes)?;
        self.place.tag = tag;
        self.log.segments.push(run);
        self.log.run = run;
        self.log.next = run.start;
        self.log.len += 1;
        Ok(true)
    }

    fn write_record(&mut self, draft: Draft) -> Result<()> {
        // A next segment may have been begun since the draft was made.
        let (bytes, tag) = draft.after(&self.place).seal(&mut self.vault)?;
        self.vault.write(self.log.next, &bytes)?;
        self.vault.disk.sync()?;
        let blocks = (bytes.len() / BLOCK) as u64;
        self.log.next += blocks;
        self.log.len += blocks;
        let seq = self.place.seq + 1;
        self.committed(Place { seq, tag });
        Ok(())
    }

    fn committed(&mut self, place: Place) {
        self.place = place;
        self.staging.synced();
        self.space.committed();
        self.settled = self.vault.sealer.next_counter();
        self.commit_counter = self.settled;
    }

    /// Writes all changed nodes and maps to new places, then the superblock that names them.
    fn write_checkpoint(&mut self) -> Result<()> {
        self.staging.flush(&mut self.vault, &mut self.space)?;
        let segments = core::mem::take(&mut self.log.segments);
        for run in segments {
            self.free_run(run)?;
        }
        self.space.prefer_low();
        let log = self.begin_log()?;
        let (groups, blocks) = self.plan_checkpoint()?;
        let mut output = Output::new(blocks);
        self.write_maps(&groups, &mut output)?;
        let vault = &mut self.vault;
        let root = self.tree.store(&mut |node| {
            output.push(vault, BlockKind::Node, &mut |bytes| node.encode(bytes))
        })?;
        output.flush(vault)?;
        let is_lower = self.fit_file()?;
        self.vault.disk.sync()?;
        self.write_superblock(root, log)?;
        if is_lower {
            self.vault.disk.set_size(self.space.high() * BLOCK as u64)?;
        }
        Ok(())
    }

    fn write_superblock(&mut self, root: Pointer, log: Run) -> Result<()> {
        let superblock = Superblock {
            store_id: self.store_id,
            seq: self.place.seq + 1,
            block_count: self.space.high(),
            next_ino: self.next_ino,
            name_key: self.name_key,
            log,
            root,
            inode_count: self.inode_count,
            used_blocks: self.space.limit() - self.space.free(),
        };
        let slot = (self.slot + 1) % SLOTS;
        let tag = superblock.write(&mut self.vault, slot)?;
        self.vault.disk.sync()?;
        self.slot = slot;
        self.tree.take_changed();
        self.log = Log::new(log);
        self.must_checkpoint = false;
        self.committed(Place {
            seq: superblock.seq,
            tag,
        });
        Ok(())
    }

    /// A segment for the new log. Without room there is none, and each sync is a checkpoint.
    fn begin_log(&mut self) -> Result<Run> {
        if self.space.free() < self.checkpoint_need() + SEGMENT_LEN {
            return Ok(Run::default());
        }
        let run = self.space.reserve(&mut self.vault, SEGMENT_LEN)?;
        let run = run.unwrap_or_default();
        self.use_run(run)?;
        self.fill_ahead(run.start + run.len)?;
        Ok(run)
    }

    /// If the file ends before block `until`, appends zeros up to some way behind it.
    fn fill_ahead(&mut self, until: u64) -> Result<()> {
        let end = self.vault.disk.size()?.div_ceil(BLOCK as u64);
        let new_end = (until + AHEAD).min(self.space.limit());
        if until <= end || new_end <= end || new_end - end > 4 * AHEAD {
            return Ok(());
        }
        let zeros = super::seal::zeros((new_end - end) as usize * BLOCK)?;
        match self.vault.write(end, &zeros) {
            // Only the head start is lost.
            Err(StoreError::NoSpace) => Ok(()),
            done => done,
        }
    }

    /// Finds blocks for all changed nodes and maps. To free an old block or use a new one changes a
    /// map, whose item is in the tree: so this goes round until nothing more changes.
    fn plan_checkpoint(&mut self) -> Result<(BTreeSet<u64>, Vec<u64>)> {
        let mut groups = BTreeSet::new();
        let mut left = BTreeSet::new();
        let mut blocks = Vec::new();
        loop {
            let mut is_settled = true;
            for index in self.space.dirty_groups() {
                if groups.insert(index) {
                    is_settled = false;
                    self.renew_group(index)?;
                }
            }
            for block in self.tree.left_behind() {
                if left.insert(block) {
                    is_settled = false;
                    self.space.mark_free(&mut self.vault, block)?;
                }
            }
            let need = self.tree.dirty_count() + groups.len();
            while blocks.len() < need {
                is_settled = false;
                let want = (need - blocks.len()) as u64;
                let run = self.space.reserve(&mut self.vault, want)?;
                let run = run.ok_or(StoreError::NoSpace)?;
                self.use_run(run)?;
                blocks.extend(run.start..run.start + run.len);
            }
            if is_settled {
                for block in blocks.drain(need..) {
                    self.space.mark_free(&mut self.vault, block)?;
                }
                return Ok((groups, blocks));
            }
        }
    }

    /// The group will have a new map: frees the old one, and has its item's nodes changed.
    fn renew_group(&mut self, index: u64) -> Result<()> {
        if let Some(block) = self.space.stored_map(index) {
            self.space.mark_free(&mut self.vault, block)?;
        }
        let writing = Writing {
            counter: 0,
            mount: MountId([0; 12]),
        };
        let map = Pointer {
            block: 0,
            writing,
            tag: [0; 16],
        };
        let item = Item::Group(Group { map, free: 0 });
        self.tree.put(&mut self.vault, group_key(index), item)?;
        Ok(())
    }

    fn write_maps(&mut self, groups: &BTreeSet<u64>, output: &mut Output) -> Result<()> {
        for &index in groups {
            let (vault, space) = (&mut self.vault, &self.space);
            let map = output.push(vault, BlockKind::Map, &mut |bytes| {
                space.encode(index, bytes);
            })?;
            let item = Item::Group(self.space.stored(index, map));
            self.tree.patch(&mut self.vault, &group_key(index), item)?;
        }
        Ok(())
    }

    /// The file has the size that the superblock will claim; true if it is larger by much.
    fn fit_file(&mut self) -> Result<bool> {
        self.space.lower_high();
        let size = self.space.high() * BLOCK as u64;
        let found = self.vault.disk.size()?;
        if found < size {
            self.vault.disk.set_size(size)?;
        }
        Ok(found > size + (AHEAD + SEGMENT_LEN) * BLOCK as u64)
    }

    fn use_run(&mut self, run: Run) -> Result<()> {
        for block in run.start..run.start + run.len {
            self.space.mark_used(&mut self.vault, block)?;
        }
        Ok(())
    }

    fn free_run(&mut self, run: Run) -> Result<()> {
        for block in run.start..run.start + run.len {
            self.space.mark_free(&mut self.vault, block)?;
        }
        Ok(())
    }

    /// Blocks that a checkpoint would need now.
    pub(super) fn checkpoint_need(&self) -> u64 {
        let dirty = self.tree.dirty_count() as u64;
        let groups = self
            .space
            .group_count()
            .min(dirty + self.space.dirty_count());
        dirty + 2 * groups + 16
    }

    /// Makes sure that an operation can end well: `data` blocks can be had, and behind them there
    /// is enough for a checkpoint. May write a checkpoint of what was done before.
    pub(super) fn begin(&mut self, data: u64, purpose: Purpose) -> Result<()> {
        self.check_writable()?;
        if self.tree.dirty_count() > self.limits.dirty_nodes {
            self.checkpoint()?;
        }
        self.tree.trim(self.limits.cached_nodes);
        let reserve = match purpose {
            Purpose::Add => RESERVE,
            Purpose::Remove => 0,
        };
        let is_short = |store: &Store<D>| {
            let nodes = data / 16 + 8 * u64::from(store.tree.root_level() + 1);
            store.space.free() < store.checkpoint_need() + reserve + nodes + data
        };
        if is_short(self) && (self.has_changes() || self.log.len > 0) {
            self.checkpoint()?;
        }
        match is_short(self) && purpose == Purpose::Add {
            true => Err(StoreError::NoSpace),
            false => Ok(()),
        }
    }
}

/// Whether an operation makes the store fuller. Removing must work when it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Add,
    Remove,
}

pub fn group_key(index: u64) -> Key {
    Key::new(0, KeyKind::Group, index)
}

/// Blocks of a checkpoint on their way to the places that were planned.
struct Output {
    places: alloc::vec::IntoIter<u64>,
    bytes: Vec<u8>,
    start: u64,
}

impl Output {
    fn new(places: Vec<u64>) -> Output {
        Output {
            places: places.into_iter(),
            bytes: Vec::new(),
            start: 0,
        }
    }

    fn push<D: Disk>(
        &mut self,
        vault: &mut Vault<D>,
        kind: BlockKind,
        encode: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<Pointer> {
        let place = self.places.next().ok_or(StoreError::Failed)?;
        let len = self.bytes.len() / BLOCK;
        if len == BATCH || place != self.start + len as u64 {
            self.flush(vault)?;
            self.start = place;
        }
        let at = self.bytes.len();
        self.bytes
            .try_reserve(BLOCK)
            .map_err(|_| StoreError::OutOfMemory)?;
        encode(&mut self.bytes);
        let mut sealed = None;
        vault.seal_blocks(
            kind,
            &mut self.bytes[at..],
            |_| place,
            |pointer| {
                sealed = Some(pointer);
            },
        )?;
        sealed.ok_or(StoreError::Failed)
    }

    fn flush<D: Disk>(&mut self, vault: &mut Vault<D>) -> Result<()> {
        if !self.bytes.is_empty() {
            vault.write(self.start, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

//! File data: reading, writing, holes.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::chunk::{CHUNK_LEN, Chunk};
use super::commit::Purpose;
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::inode::{FileKind, Stat, Time};
use super::item::{Item, Key, KeyKind};
use super::opened::Store;
use super::pointer::{BLOCK, Pointer};
use super::seal::{BlockKind, UnverifiedBlock, zero_block, zeros};

const BLOCK_U64: u64 = BLOCK as u64;
/// As `loff_t`.
const MAX_FILE: u64 = i64::MAX as u64;
/// Bytes that one step of a long write takes: between steps a checkpoint may make room.
const WRITE_STEP: usize = 4 << 20;

impl<D: Disk> Store<D> {
    /// Reads file data, as pread(2): the count is short only at the end of the file. Whole blocks
    /// are read and opened in `buf` itself.
    pub fn read_at(&mut self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let rest = self.file(ino)?.size.saturating_sub(offset);
        let size = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        let done = self.read_data(ino, offset, &mut buf[..size]);
        if done.is_err() {
            buf.fill(0);
        }
        done.map(|()| size)
    }

    /// Writes file data, as pwrite(2); the file grows if need be. After `NoSpace` a first part may
    /// have been written: the file's size then says how much of what was behind its end.
    pub fn write_at(&mut self, ino: u64, offset: u64, data: &[u8], now: Time) -> Result<()> {
        let size = self.file(ino)?.size;
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > MAX_FILE) {
            return Err(StoreError::FileTooLarge);
        }
        let mut done = 0;
        while done < data.len() {
            let step = (data.len() - done).min(WRITE_STEP);
            let part = &data[done..done + step];
            self.begin((step / BLOCK) as u64 + 2, Purpose::Add)?;
            let at = offset + done as u64;
            let written = self.write_step(ino, at, part, size, now);
            self.fail_if_broken(written)?;
            done += step;
        }
        Ok(())
    }

    /// ftruncate(2).
    pub fn set_size(&mut self, ino: u64, size: u64, now: Time) -> Result<()> {
        let old = self.file(ino)?.size;
        if size > MAX_FILE {
            return Err(StoreError::FileTooLarge);
        }
        let is_cut = size < old && !size.is_multiple_of(BLOCK_U64);
        self.begin(u64::from(is_cut), Purpose::Remove)?;
        let done = self.resize(ino, size, old, now);
        self.fail_if_broken(done)
    }

    /// Data becomes zeros and its space is free; the size stays.
    pub fn punch(&mut self, ino: u64, offset: u64, size: u64, now: Time) -> Result<()> {
        let end = offset.saturating_add(size).min(self.file(ino)?.size);
        if end <= offset {
            return Ok(());
        }
        self.begin(2, Purpose::Remove)?;
        let done = self.punch_range(ino, offset, end, now);
        self.fail_if_broken(done)
    }

    /// Takes a range out; what is behind moves down. Whole blocks, inside the file.
    pub fn collapse(&mut self, ino: u64, offset: u64, size: u64, now: Time) -> Result<()> {
        let old = self.file(ino)?.size;
        let end = range_end(offset, size)?;
        if end >= old {
            return Err(StoreError::Invalid);
        }
        self.begin(0, Purpose::Add)?;
        let done = self
            .shift(ino, offset, end, end, offset)
            .and_then(|()| self.update_inode(ino, |stat| stat.change_data(old - size, now)));
        self.fail_if_broken(done)
    }

    /// Puts a hole in; what was there moves up. Whole blocks, inside the file.
    pub fn insert(&mut self, ino: u64, offset: u64, size: u64, now: Time) -> Result<()> {
        let old = self.file(ino)?.size;
        let end = range_end(offset, size)?;
        if offset >= old {
            return Err(StoreError::Invalid);
        }
        let new = old.checked_add(size).filter(|new| *new <= MAX_FILE);
        let new = new.ok_or(StoreError::FileTooLarge)?;
        self.begin(0, Purpose::Add)?;
        let done = self
            .shift(ino, offset, offset, offset, end)
            .and_then(|()| self.update_inode(ino, |stat| stat.change_data(new, now)));
        self.fail_if_broken(done)
    }

    /// Where data begins, at `offset` or behind it; `None` if there is none.
    pub fn seek_data(&mut self, ino: u64, offset: u64) -> Result<Option<u64>> {
        let size = self.file(ino)?.size;
        let from = offset / BLOCK_U64;
        let mut found = None;
        self.each_block(ino, from, u64::MAX, &mut |block, _| {
            found = Some(block * BLOCK_U64);
            ControlFlow::Break(())
        })?;
        Ok(found.map(|at| at.max(offset)).filter(|at| *at < size))
    }

    /// Where a hole begins, at `offset` or behind it: the end of the file at the latest. `None` if
    /// `offset` is not in the file.
    pub fn seek_hole(&mut self, ino: u64, offset: u64) -> Result<Option<u64>> {
        let size = self.file(ino)?.size;
        if offset >= size {
            return Ok(None);
        }
        let from = offset / BLOCK_U64;
        let mut next = from;
        self.each_block(ino, from, u64::MAX, &mut |block, _| {
            if block != next {
                return ControlFlow::Break(());
            }
            next += 1;
            ControlFlow::Continue(())
        })?;
        Ok(Some((next * BLOCK_U64).max(offset).min(size)))
    }

    /// A data block is not referred to any more.
    pub(super) fn free_data(&mut self, pointer: &Pointer) -> Result<()> {
        self.space.mark_free(&mut self.vault, pointer.block)?;
        let is_new = pointer.writing.mount == self.vault.sealer.mount()
            && pointer.writing.counter >= self.commit_counter;
        if is_new {
            self.space.give_back(pointer.block);
        }
        Ok(())
    }

    fn file(&mut self, ino: u64) -> Result<Stat> {
        let stat = self.stat(ino)?;
        match stat.kind() {
            FileKind::Regular => Ok(stat),
            FileKind::Directory => Err(StoreError::IsADirectory),
            _ => Err(StoreError::NoData),
        }
    }

    fn read_data(&mut self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let skip = (at % BLOCK_U64) as usize;
            let size = if skip == 0 && rest.len() >= BLOCK {
                let size = rest.len() / BLOCK * BLOCK;
                self.read_blocks(ino, at / BLOCK_U64, &mut rest[..size])?;
                size
            } else {
                let size = rest.len().min(BLOCK - skip);
                let mut block = zero_block()?;
                self.read_blocks(ino, at / BLOCK_U64, &mut block[..])?;
                rest[..size].copy_from_slice(&block[skip..skip + size]);
                size
            };
            at += size as u64;
            rest = &mut rest[size..];
        }
        Ok(())
    }

    /// Whole blocks; holes are zeros.
    fn read_blocks(&mut self, ino: u64, first: u64, out: &mut [u8]) -> Result<()> {
        let count = out.len() / BLOCK;
        let mut plan: Vec<(usize, Pointer)> = Vec::new();
        plan.try_reserve_exact(count)
            .map_err(|_| StoreError::OutOfMemory)?;
        self.each_block(ino, first, first + count as u64, &mut |block, pointer| {
            plan.push(((block - first) as usize, *pointer));
            ControlFlow::Continue(())
        })?;
        let mut next = 0;
        for (index, _) in &plan {
            out[next * BLOCK..index * BLOCK].fill(0);
            next = index + 1;
        }
        out[next * BLOCK..].fill(0);
        for run in
            plan.chunk_by(|(a, left), (b, right)| a + 1 == *b && left.block + 1 == right.block)
        {
            self.fetch(run, out)?;
        }
        let keys = &mut self.vault.keys;
        self.vault.disk.with_vectors(|| {
            for (index, pointer) in &plan {
                let block = &mut out[index * BLOCK..(index + 1) * BLOCK];
                UnverifiedBlock::from_disk(block).verify(keys, BlockKind::Data, pointer)?;
            }
            Ok(())
        })
    }

    /// Blocks that stand together, from the disk or from where they wait for it.
    fn fetch(&mut self, run: &[(usize, Pointer)], out: &mut [u8]) -> Result<()> {
        let (first, pointer) = run[0];
        let end = first + run.len();
        let mut staged = 0;
        for (index, pointer) in run {
            let block = &mut out[index * BLOCK..(index + 1) * BLOCK];
            staged += usize::from(self.staging.copy_out(pointer.block, block));
        }
        if staged == run.len() {
            return Ok(());
        }
        // What waits stands behind what was written.
        let end = end - staged;
        let part = &mut out[first * BLOCK..end * BLOCK];
        Ok(self.vault.disk.read_at(pointer.block * BLOCK_U64, part)?)
    }

    /// Shows the blocks of a file that have data, from `first` to before `end`.
    fn each_block(
        &mut self,
        ino: u64,
        first: u64,
        end: u64,
        visit: &mut dyn FnMut(u64, &Pointer) -> ControlFlow<()>,
    ) -> Result<()> {
        if first >= end {
            return Ok(());
        }
        let from = chunk_key(ino, first / CHUNK_LEN);
        let to = chunk_key(ino, (end - 1) / CHUNK_LEN);
        self.tree
            .scan(&mut self.vault, &from, &to, &mut |key, item| {
                let Item::Chunk(chunk) = item else {
                    return ControlFlow::Continue(());
                };
                for (position, pointer) in chunk.slots() {
                    let block = key.offset.saturating_mul(CHUNK_LEN) + u64::from(*position);
                    if (first..end).contains(&block) {
                        visit(block, pointer)?;
                    }
                }
                ControlFlow::Continue(())
            })
    }

    /// Writes one piece; the file had `size` bytes at first.
    fn write_step(
        &mut self,
        ino: u64,
        offset: u64,
        data: &[u8],
        size: u64,
        now: Time,
    ) -> Result<()> {
        let mut added = 0;
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let skip = (at % BLOCK_U64) as usize;
            let taken = if skip == 0 && rest.len() >= BLOCK {
                let taken = rest.len() / BLOCK * BLOCK;
                added += self.write_blocks(ino, at / BLOCK_U64, &rest[..taken])?;
                taken
            } else {
                let taken = rest.len().min(BLOCK - skip);
                added += self.write_part(ino, at, &rest[..taken], size)?;
                taken
            };
            at += taken as u64;
            rest = &rest[taken..];
        }
        self.update_inode(ino, |stat| {
            let size = stat.size.max(at);
            stat.change_data(size, now);
            stat.blocks += added;
        })
    }

    /// Part of one block: what else is in it stays. The file has `size` bytes.
    fn write_part(&mut self, ino: u64, offset: u64, data: &[u8], size: u64) -> Result<u64> {
        let mut block = zero_block()?;
        let number = offset / BLOCK_U64;
        let skip = (offset % BLOCK_U64) as usize;
        let covers = skip == 0 && offset + data.len() as u64 >= size;
        if !covers {
            self.read_blocks(ino, number, &mut block[..])?;
        }
        block[skip..skip + data.len()].copy_from_slice(data);
        self.write_blocks(ino, number, &block[..])
    }

    /// Whole blocks; the count of blocks that were holes before.
    fn write_blocks(&mut self, ino: u64, first: u64, data: &[u8]) -> Result<u64> {
        let (mut next, mut added) = (first, 0);
        let mut rest = data;
        let mut pointers = Vec::new();
        while !rest.is_empty() {
            pointers.clear();
            let (vault, space) = (&mut self.vault, &mut self.space);
            let taken = self
                .staging
                .take(vault, space, rest, |pointer| pointers.push(pointer))?;
            if taken == 0 {
                return Err(StoreError::NoSpace);
            }
            added += self.put_pointers(ino, next, &pointers)?;
            next += pointers.len() as u64;
            rest = &rest[taken..];
        }
        Ok(added)
    }

    /// Blocks from `first` on are there now; the count of those that were holes before.
    fn put_pointers(&mut self, ino: u64, first: u64, pointers: &[Pointer]) -> Result<u64> {
        let (mut next, mut rest) = (first, pointers);
        let mut replaced = Vec::new();
        while !rest.is_empty() {
            let position = next % CHUNK_LEN;
            let (part, behind) = rest.split_at(rest.len().min((CHUNK_LEN - position) as usize));
            let key = chunk_key(ino, next / CHUNK_LEN);
            let new = || Item::Chunk(Chunk::default());
            self.tree.upsert(&mut self.vault, &key, new, |item| {
                if let Item::Chunk(chunk) = item {
                    for (pointer, at) in part.iter().zip(position as u8..) {
                        replaced.extend(chunk.set(at, *pointer));
                    }
                }
            })?;
            next += part.len() as u64;
            rest = behind;
        }
        for pointer in &replaced {
            self.free_data(pointer)?;
        }
        Ok((pointers.len() - replaced.len()) as u64)
    }

    fn resize(&mut self, ino: u64, size: u64, old: u64, now: Time) -> Result<()> {
        let mut freed = 0;
        if size < old {
            freed = self.clear_blocks(ino, size.div_ceil(BLOCK_U64), u64::MAX)?;
            let rest = size % BLOCK_U64;
            if rest != 0 {
                self.zero_in_block(ino, size, BLOCK - rest as usize)?;
            }
        }
        self.update_inode(ino, |stat| {
            stat.change_data(size, now);
            stat.blocks = stat.blocks.saturating_sub(freed);
        })
    }

    fn punch_range(&mut self, ino: u64, offset: u64, end: u64, now: Time) -> Result<()> {
        let first = offset.div_ceil(BLOCK_U64);
        let last = end / BLOCK_U64;
        let mut freed = 0;
        if first > last {
            self.zero_in_block(ino, offset, (end - offset) as usize)?;
        } else {
            self.zero_in_block(ino, offset, (first * BLOCK_U64 - offset) as usize)?;
            self.zero_in_block(ino, last * BLOCK_U64, (end % BLOCK_U64) as usize)?;
            freed = self.clear_blocks(ino, first, last)?;
        }
        self.update_inode(ino, |stat| {
            let size = stat.size;
            stat.change_data(size, now);
            stat.blocks = stat.blocks.saturating_sub(freed);
        })
    }

    /// Zeros in one block, if it has data.
    fn zero_in_block(&mut self, ino: u64, offset: u64, size: usize) -> Result<()> {
        let number = offset / BLOCK_U64;
        let mut has_data = false;
        self.each_block(ino, number, number + 1, &mut |_, _| {
            has_data = true;
            ControlFlow::Break(())
        })?;
        if size == 0 || !has_data {
            return Ok(());
        }
        let zeros = zeros(size)?;
        self.write_part(ino, offset, &zeros, u64::MAX).map(drop)
    }

    /// Blocks from `first` to before `end` become holes; the count of those that were none.
    fn clear_blocks(&mut self, ino: u64, first: u64, end: u64) -> Result<u64> {
        if first >= end {
            return Ok(0);
        }
        let (low, high) = (first.div_ceil(CHUNK_LEN), end / CHUNK_LEN);
        let mut freed = 0;
        if low > high {
            return self.clear_in_chunk(ino, first, end);
        }
        freed += self.clear_in_chunk(ino, first, low * CHUNK_LEN)?;
        if low < high {
            let (from, to) = (chunk_key(ino, low), chunk_key(ino, high - 1));
            freed += self.remove_items(&from, &to)?;
        }
        freed += self.clear_in_chunk(ino, high * CHUNK_LEN, end)?;
        Ok(freed)
    }

    /// As `clear_blocks`, for blocks of one chunk.
    fn clear_in_chunk(&mut self, ino: u64, first: u64, end: u64) -> Result<u64> {
        let key = chunk_key(ino, first / CHUNK_LEN);
        let mut freed = Vec::new();
        let is_empty = self.tree.update(&mut self.vault, &key, |item| {
            let Item::Chunk(chunk) = item else {
                return false;
            };
            for block in first..end {
                freed.extend(chunk.clear((block % CHUNK_LEN) as u8));
            }
            chunk.is_empty()
        })?;
        if is_empty == Some(true) {
            self.tree.remove(&mut self.vault, &key)?;
        }
        for pointer in &freed {
            self.free_data(pointer)?;
        }
        Ok(freed.len() as u64)
    }

    /// Frees `gone..gone_end` and moves what is at `from` or behind to `to`. All offsets are bytes
    /// of whole blocks.
    fn shift(&mut self, ino: u64, gone: u64, gone_end: u64, from: u64, to: u64) -> Result<()> {
        let [gone, gone_end, from, to] = [gone, gone_end, from, to].map(|at| at / BLOCK_U64);
        let freed = self.clear_blocks(ino, gone, gone_end)?;
        self.update_inode(ino, |stat| stat.blocks = stat.blocks.saturating_sub(freed))?;
        let mut moved = Vec::new();
        let mut is_short = false;
        self.each_block(ino, from, u64::MAX, &mut |block, pointer| {
            is_short = moved.try_reserve(1).is_err();
            if is_short {
                return ControlFlow::Break(());
            }
            moved.push((block - from + to, *pointer));
            ControlFlow::Continue(())
        })?;
        if is_short {
            return Err(StoreError::OutOfMemory);
        }
        self.forget_blocks(ino, from)?;
        for run in moved.chunk_by(|left, right| left.0 + 1 == right.0) {
            let pointers: Vec<Pointer> = run.iter().map(|(_, pointer)| *pointer).collect();
            self.put_pointers(ino, run[0].0, &pointers)?;
        }
        Ok(())
    }

    /// Takes the pointers from `first` on out of the tree; the blocks stay in use.
    fn forget_blocks(&mut self, ino: u64, first: u64) -> Result<()> {
        let mut keys = Vec::new();
        let (from, to) = (chunk_key(ino, first / CHUNK_LEN), chunk_key(ino, u64::MAX));
        self.tree.scan(&mut self.vault, &from, &to, &mut |key, _| {
            keys.push(*key);
            ControlFlow::Continue(())
        })?;
        for key in keys {
            let is_empty = self.tree.update(&mut self.vault, &key, |item| {
                let Item::Chunk(chunk) = item else {
                    return false;
                };
                for position in 0..CHUNK_LEN {
                    if key.offset * CHUNK_LEN + position >= first {
                        chunk.clear(position as u8);
                    }
                }
                chunk.is_empty()
            })?;
            if is_empty == Some(true) {
                self.tree.remove(&mut self.vault, &key)?;
            }
        }
        Ok(())
    }
}

impl Stat {
    fn change_data(&mut self, size: u64, now: Time) {
        self.size = size;
        self.mtime = now;
        self.ctime = now;
    }
}

fn chunk_key(ino: u64, chunk: u64) -> Key {
    Key::new(ino, KeyKind::Chunk, chunk)
}

fn range_end(offset: u64, size: u64) -> Result<u64> {
    let is_whole = offset.is_multiple_of(BLOCK_U64) && size.is_multiple_of(BLOCK_U64) && size > 0;
    let end = offset.checked_add(size).filter(|end| *end <= MAX_FILE);
    end.filter(|_| is_whole).ok_or(StoreError::Invalid)
}

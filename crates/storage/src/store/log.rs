//! Log records as bytes.
//!
//! ```text
//!    0  8  counter       body:  0  8  seq
//!    8 12  mount id             8 16  tag of the record or superblock before
//!   20  4  size of body
//!   24  1  type          commit:       24  8  settled      next segment: 24  8  start
//!   25  3  zero                        32  8  next_ino                   32  4  blocks
//!   28 16  tag                         40  8  block_count
//!   44     sealed body                 48  8  inode_count
//!                                      56  4  item count
//!                                      60     items: key (17), value length (2), value
//! ```

use alloc::vec::Vec;

use super::disk::Disk;
use super::error::{Result, StoreError};
use super::item::{Item, Key};
use super::pointer::{BLOCK, MAX_U48, MountId, TAG_SIZE, Tag, Writing};
use super::seal::zeros;
use super::space::Run;
use super::vault::Vault;
use super::wire::Fields;

const TAG_AT: usize = 28;
const BODY_AT: usize = TAG_AT + TAG_SIZE;
const COUNT_AT: usize = 56;
/// Largest body of a record that is written or believed.
pub const MAX_BODY: usize = 16 << 20;
const GONE: u16 = u16::MAX;

const TYPE_COMMIT: u8 = 1;
const TYPE_NEXT: u8 = 2;

/// Names the commit that a record comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub seq: u64,
    pub tag: Tag,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    pub place: Place,
    pub blocks: u64,
    pub writing: Writing,
    pub body: Body,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    Commit(Commit),
    Next(Run),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Commit {
    pub settled: u64,
    pub next_ino: u64,
    pub block_count: u64,
    pub inode_count: u64,
    /// `None`: the item is gone.
    pub items: Vec<(Key, Option<Item>)>,
}

/// A record that is being made.
pub struct Draft {
    bytes: Vec<u8>,
    count: u32,
}

impl Draft {
    pub fn commit(before: &Place, head: &Commit) -> Draft {
        let mut draft = Draft::new(TYPE_COMMIT, before.seq + 1, &before.tag);
        for field in [
            head.settled,
            head.next_ino,
            head.block_count,
            head.inode_count,
        ] {
            draft.bytes.extend_from_slice(&field.to_le_bytes());
        }
        draft.bytes.extend_from_slice(&[0; 4]);
        draft
    }

    pub fn next_segment(before: &Place, run: Run) -> Draft {
        let mut draft = Draft::new(TYPE_NEXT, before.seq, &before.tag);
        draft.bytes.extend_from_slice(&run.start.to_le_bytes());
        draft
            .bytes
            .extend_from_slice(&(run.len as u32).to_le_bytes());
        draft
    }

    fn new(kind: u8, seq: u64, tag: &Tag) -> Draft {
        let mut bytes = Vec::with_capacity(BLOCK);
        bytes.resize(BODY_AT, 0);
        bytes[24] = kind;
        bytes.extend_from_slice(&seq.to_le_bytes());
        bytes.extend_from_slice(tag);
        Draft { bytes, count: 0 }
    }

    /// Adds an item; false if the record would be too large.
    pub fn add(&mut self, key: &Key, item: Option<&Item>) -> bool {
        key.encode(&mut self.bytes);
        let length = self.bytes.len();
        self.bytes.extend_from_slice(&GONE.to_le_bytes());
        if let Some(item) = item {
            item.encode(&mut self.bytes);
            let size = (self.bytes.len() - length - 2) as u16;
            self.bytes[length..length + 2].copy_from_slice(&size.to_le_bytes());
        }
        self.count += 1;
        let count_at = BODY_AT + COUNT_AT;
        self.bytes[count_at..count_at + 4].copy_from_slice(&self.count.to_le_bytes());
        self.bytes.len() < MAX_BODY
    }

    /// Makes the record follow `before`.
    pub fn after(mut self, before: &Place) -> Draft {
        self.bytes[BODY_AT + 8..BODY_AT + 8 + TAG_SIZE].copy_from_slice(&before.tag);
        self
    }

    pub fn blocks(&self) -> u64 {
        self.bytes.len().div_ceil(BLOCK) as u64
    }

    /// Seals the record: whole blocks, to be written in one piece, and its tag.
    pub fn seal<D: Disk>(mut self, vault: &mut Vault<D>) -> Result<(Vec<u8>, Tag)> {
        let writing = vault.sealer.take(1)?;
        let size = (self.bytes.len() - BODY_AT) as u32;
        let (header, body) = self.bytes.split_at_mut(BODY_AT);
        header[..8].copy_from_slice(&writing.counter.to_le_bytes());
        header[8..20].copy_from_slice(&writing.mount.0);
        header[20..24].copy_from_slice(&size.to_le_bytes());
        let keys = &mut vault.keys;
        let tag = vault
            .disk
            .with_vectors(|| keys.seal(writing, &header[..TAG_AT], body));
        header[TAG_AT..].copy_from_slice(&tag);
        self.bytes
            .resize(self.bytes.len().div_ceil(BLOCK) * BLOCK, 0);
        Ok((self.bytes, tag))
    }
}

/// The record at `block`, if there is one that follows `before` and ends before `end`.
pub fn read<D: Disk>(
    vault: &mut Vault<D>,
    before: &Place,
    block: u64,
    end: u64,
) -> Result<Option<Record>> {
    let size_on_disk = vault.disk.size()?;
    if block >= end || (block + 1) * BLOCK as u64 > size_on_disk {
        return Ok(None);
    }
    let mut bytes = zeros(BLOCK)?;
    vault.disk.read_at(block * BLOCK as u64, &mut bytes)?;
    let Some((writing, size, kind)) = parse_header(&bytes)? else {
        return Ok(None);
    };
    let blocks = (BODY_AT + size).div_ceil(BLOCK) as u64;
    if block + blocks > end || (block + blocks) * BLOCK as u64 > size_on_disk {
        return Ok(None);
    }
    if blocks > 1 {
        let mut rest = zeros((blocks as usize - 1) * BLOCK)?;
        vault.disk.read_at((block + 1) * BLOCK as u64, &mut rest)?;
        bytes.append(&mut rest);
    }
    let mut tag = [0; TAG_SIZE];
    tag.copy_from_slice(&bytes[TAG_AT..BODY_AT]);
    let (header, rest) = bytes.split_at_mut(BODY_AT);
    let body = &mut rest[..size];
    let keys = &mut vault.keys;
    let is_open = vault
        .disk
        .with_vectors(|| keys.open(writing, &header[..TAG_AT], body, &tag));
    if !is_open {
        return Ok(None);
    }
    let Some((seq, body)) = parse_body(body, kind, before)? else {
        return Ok(None);
    };
    Ok(Some(Record {
        place: Place { seq, tag },
        blocks,
        writing,
        body,
    }))
}

/// Nobody vouches for these fields yet.
fn parse_header(bytes: &[u8]) -> Result<Option<(Writing, usize, u8)>> {
    let mut fields = Fields::new(bytes);
    let writing = Writing {
        counter: fields.u64()?,
        mount: MountId(fields.array()?),
    };
    let size = fields.u32()? as usize;
    let is_possible = writing.counter <= MAX_U48 && size <= MAX_BODY;
    Ok(is_possible.then_some((writing, size, fields.u8()?)))
}

/// The body of a record that verified; `None` if it follows another commit.
pub fn parse_body(body: &[u8], kind: u8, before: &Place) -> Result<Option<(u64, Body)>> {
    let mut fields = Fields::new(body);
    let seq = fields.u64()?;
    let tag: Tag = fields.array()?;
    let step = u64::from(kind == TYPE_COMMIT);
    if tag != before.tag || before.seq.checked_add(step) != Some(seq) {
        return Ok(None);
    }
    let body = match kind {
        TYPE_COMMIT => Body::Commit(parse_commit(&mut fields)?),
        TYPE_NEXT => Body::Next(Run {
            start: fields.u64()?,
            len: u64::from(fields.u32()?),
        }),
        _ => return Err(StoreError::Malformed("a log record has an unknown type")),
    };
    fields.end()?;
    Ok(Some((seq, body)))
}

fn parse_commit(fields: &mut Fields<'_>) -> Result<Commit> {
    let mut commit = Commit {
        settled: fields.u64()?,
        next_ino: fields.u64()?,
        block_count: fields.u64()?,
        inode_count: fields.u64()?,
        items: Vec::new(),
    };
    for _ in 0..fields.u32()? {
        let key = Key::parse(fields)?;
        let item = match fields.u16()? {
            GONE => None,
            size => Some(Item::parse(key.kind, fields.bytes(usize::from(size))?)?),
        };
        commit
            .items
            .try_reserve(1)
            .map_err(|_| StoreError::OutOfMemory)?;
        commit.items.push((key, item));
    }
    Ok(commit)
}

//! The superblock; two slots, blocks 0 and 1.
//!
//! ```text
//!    0  8  magic          68      sealed body:
//!    8  4  version              0 16  store id       64  4  log_blocks
//!   12  4  zero                16  8  seq            68  4  zero
//!   16 16  key check           24  8  block_count    72 40  root pointer
//!   32  8  counter             32  8  next_ino      112  8  inode_count
//!   40 12  mount id            40 16  name key      120  8  used_blocks
//!   52 16  tag                 56  8  log_start
//! ```

use alloc::vec::Vec;

use super::disk::Disk;
use super::error::{Result, StoreError};
use super::pointer::{BLOCK, MountId, Pointer, TAG_SIZE, Tag, Writing};
use super::seal::{KEY_CHECK_SIZE, KeyRing, zero_block};
use super::space::Run;
use super::vault::Vault;
use super::wire::Fields;

pub const SLOTS: u64 = 2;

const MAGIC: &[u8; 8] = b"OCCLUMST";
const VERSION: u32 = 1;
const TAG_AT: usize = 52;
const BODY_AT: usize = TAG_AT + TAG_SIZE;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub store_id: [u8; 16],
    pub seq: u64,
    pub block_count: u64,
    pub next_ino: u64,
    pub name_key: [u8; 16],
    pub log: Run,
    pub root: Pointer,
    pub inode_count: u64,
    pub used_blocks: u64,
}

impl Superblock {
    /// Seals and writes the slot; gives the tag.
    pub fn write<D: Disk>(&self, vault: &mut Vault<D>, slot: u64) -> Result<Tag> {
        let writing = vault.sealer.take(1)?;
        let mut block = Vec::with_capacity(BLOCK);
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&vault.keys.key_check());
        block.extend_from_slice(&writing.counter.to_le_bytes());
        block.extend_from_slice(&writing.mount.0);
        block.extend_from_slice(&[0; TAG_SIZE]);
        self.encode(&mut block);
        block.resize(BLOCK, 0);
        let (header, body) = block.split_at_mut(BODY_AT);
        let keys = &mut vault.keys;
        let tag = vault
            .disk
            .with_vectors(|| keys.seal(writing, &header[..TAG_AT], body));
        header[TAG_AT..].copy_from_slice(&tag);
        vault.write(slot, &block)?;
        Ok(tag)
    }

    /// The newest superblock that verifies, its tag and its slot.
    pub fn read<D: Disk>(disk: &D, keys: &mut KeyRing) -> Result<(Superblock, Tag, u64)> {
        let (first, second) = (read_slot(disk, keys, 0), read_slot(disk, keys, 1));
        let (best, slot) = match (first, second) {
            (Ok(first), Ok(second)) if first.0.seq > second.0.seq => (first, 0),
            (_, Ok(second)) => (second, 1),
            (Ok(first), _) => (first, 0),
            (Err(first), Err(second)) => return Err(worse(first, second)),
        };
        Ok((best.0, best.1, slot))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.store_id);
        for field in [self.seq, self.block_count, self.next_ino] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.name_key);
        out.extend_from_slice(&self.log.start.to_le_bytes());
        out.extend_from_slice(&(self.log.len as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.root.encode());
        out.extend_from_slice(&self.inode_count.to_le_bytes());
        out.extend_from_slice(&self.used_blocks.to_le_bytes());
    }

    pub fn parse(body: &[u8]) -> Result<Superblock> {
        let mut fields = Fields::new(body);
        let store_id = fields.array()?;
        let (seq, block_count, next_ino) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let name_key = fields.array()?;
        let log = Run {
            start: fields.u64()?,
            len: u64::from(fields.u32()?),
        };
        fields.u32()?;
        Ok(Superblock {
            store_id,
            seq,
            block_count,
            next_ino,
            name_key,
            log,
            root: fields.pointer()?,
            inode_count: fields.u64()?,
            used_blocks: fields.u64()?,
        })
    }
}

fn read_slot<D: Disk>(disk: &D, keys: &mut KeyRing, slot: u64) -> Result<(Superblock, Tag)> {
    let mut block = zero_block()?;
    disk.read_at(slot * BLOCK as u64, &mut block[..])?;
    let (header, body) = block.split_at_mut(BODY_AT);
    let (writing, tag) = parse_header(header, &keys.key_check())?;
    let is_open = disk.with_vectors(|| keys.open(writing, &header[..TAG_AT], body, &tag));
    if !is_open {
        return Err(StoreError::ChangedSuperblock);
    }
    Ok((Superblock::parse(body)?, tag))
}

/// Parts of a header that nobody vouches for yet.
pub fn parse_header(header: &[u8], key_check: &[u8; KEY_CHECK_SIZE]) -> Result<(Writing, Tag)> {
    let mut fields = Fields::new(header);
    if fields.bytes(MAGIC.len())? != MAGIC {
        return Err(StoreError::NotAStore);
    }
    match fields.u32()? {
        VERSION => {}
        version => return Err(StoreError::UnsupportedVersion(version)),
    }
    fields.u32()?;
    if fields.bytes(KEY_CHECK_SIZE)? != key_check {
        return Err(StoreError::WrongKey);
    }
    let writing = Writing {
        counter: fields.u64()?,
        mount: MountId(fields.array()?),
    };
    Ok((writing, fields.array()?))
}

/// Of two reasons the one that says more: a slot may be torn or not yet written.
fn worse(first: StoreError, second: StoreError) -> StoreError {
    let rank = |error: &StoreError| match error {
        StoreError::NotAStore => 0,
        StoreError::ChangedSuperblock => 2,
        StoreError::Disk => 3,
        _ => 1,
    };
    if rank(&second) > rank(&first) {
        second
    } else {
        first
    }
}

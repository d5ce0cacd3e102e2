//! Keys, and the step from bytes that were read to bytes that may be believed.
//!
//! Every message is sealed with AES-256-GCM under the key of a mount and a counter of that mount. A
//! [`Sealer`] is the only source of counters: none comes twice.

use alloc::boxed::Box;
use alloc::vec::Vec;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};

use super::disk::Disk;
use super::error::{Result, StoreError};
use super::pointer::{BLOCK, MAX_U48, MountId, Pointer, Tag, Writing};

pub const KEY_SIZE: usize = 32;
pub const KEY_CHECK_SIZE: usize = 16;

/// What a block is; goes into its associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BlockKind {
    Node = 1,
    Data = 2,
    Map = 3,
}

/// Keys of mounts that are kept at hand.
const MAX_KEYS: usize = 32;

/// The store key and the keys made from it.
pub struct KeyRing {
    store_key: [u8; KEY_SIZE],
    keys: Vec<(MountId, Box<Aes256Gcm>)>,
}

/// Seals messages of this mount.
pub struct Sealer {
    mount: MountId,
    next: u64,
}

/// Bytes as the disk gave them.
pub struct UnverifiedBlock<'a>(&'a mut [u8]);

impl KeyRing {
    pub fn new(store_key: &[u8; KEY_SIZE]) -> KeyRing {
        KeyRing {
            store_key: *store_key,
            keys: Vec::new(),
        }
    }

    /// Tells a wrong key from a changed store; proves nothing.
    pub fn key_check(&self) -> [u8; KEY_CHECK_SIZE] {
        let hash = blake3::keyed_hash(&self.store_key, b"occlum store 1: key check");
        let mut check = [0; KEY_CHECK_SIZE];
        check.copy_from_slice(&hash.as_bytes()[..KEY_CHECK_SIZE]);
        check
    }

    /// The cipher of a mount. The one used last stands first.
    fn cipher(&mut self, mount: MountId) -> &Aes256Gcm {
        match self.keys.iter().position(|(id, _)| *id == mount) {
            Some(0) => {}
            Some(at) => self.keys.swap(0, at),
            None => {
                self.keys.truncate(MAX_KEYS - 1);
                let cipher = Box::new(self.derive(mount));
                self.keys.insert(0, (mount, cipher));
            }
        }
        &self.keys[0].1
    }

    fn derive(&self, mount: MountId) -> Aes256Gcm {
        let mut hasher = blake3::Hasher::new_keyed(&self.store_key);
        hasher.update(b"occlum store 1: mount key");
        hasher.update(&mount.0);
        Aes256Gcm::new(hasher.finalize().as_bytes().into())
    }

    /// Seals `body` in place. Run it inside `Disk::with_vectors`.
    pub fn seal(&mut self, writing: Writing, associated: &[u8], body: &mut [u8]) -> Tag {
        self.cipher(writing.mount)
            .encrypt_inout_detached(&nonce(writing.counter).into(), associated, body.into())
            .expect("a message is far below the limit of GCM")
            .into()
    }

    /// Opens `body` in place if the tag is right; else wipes it.
    #[must_use]
    pub fn open(
        &mut self,
        writing: Writing,
        associated: &[u8],
        body: &mut [u8],
        tag: &Tag,
    ) -> bool {
        let opened = self.cipher(writing.mount).decrypt_inout_detached(
            &nonce(writing.counter).into(),
            associated,
            (&mut *body).into(),
            tag.into(),
        );
        if opened.is_err() {
            body.fill(0);
        }
        opened.is_ok()
    }

    pub fn seal_block(&mut self, writing: Writing, kind: BlockKind, body: &mut [u8]) -> Tag {
        self.seal(writing, &[kind as u8], body)
    }
}

impl<'a> UnverifiedBlock<'a> {
    /// One block that is already in `bytes`, as the disk gave it.
    pub fn from_disk(bytes: &'a mut [u8]) -> UnverifiedBlock<'a> {
        UnverifiedBlock(bytes)
    }

    /// The plaintext, if this is the writing that `pointer` names.
    pub fn verify(
        self,
        keys: &mut KeyRing,
        kind: BlockKind,
        pointer: &Pointer,
    ) -> Result<&'a mut [u8]> {
        if keys.open(pointer.writing, &[kind as u8], self.0, &pointer.tag) {
            return Ok(self.0);
        }
        Err(StoreError::Changed {
            block: pointer.block,
        })
    }
}

/// Reads and verifies one block.
pub fn read_block<D: Disk>(
    disk: &D,
    keys: &mut KeyRing,
    kind: BlockKind,
    pointer: &Pointer,
) -> Result<Box<[u8; BLOCK]>> {
    let mut block = zero_block()?;
    disk.read_at(pointer.block * BLOCK as u64, &mut block[..])?;
    disk.with_vectors(|| UnverifiedBlock::from_disk(&mut block[..]).verify(keys, kind, pointer))?;
    Ok(block)
}

pub fn zero_block() -> Result<Box<[u8; BLOCK]>> {
    let bytes = zeros(BLOCK)?.into_boxed_slice();
    bytes.try_into().map_err(|_| StoreError::OutOfMemory)
}

/// A vector of zeros, or an error where memory is short.
pub fn zeros(size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(size)
        .map_err(|_| StoreError::OutOfMemory)?;
    bytes.resize(size, 0);
    Ok(bytes)
}

impl Sealer {
    pub fn new(mount: MountId) -> Sealer {
        Sealer { mount, next: 0 }
    }

    pub fn mount(&self) -> MountId {
        self.mount
    }

    /// What the next message would get.
    pub fn next_counter(&self) -> u64 {
        self.next
    }

    /// Counters for `count` messages; the first one.
    pub fn take(&mut self, count: u64) -> Result<Writing> {
        let counter = self.next;
        let next = counter.checked_add(count).filter(|next| *next <= MAX_U48);
        self.next = next.ok_or(StoreError::Failed)?;
        Ok(Writing {
            counter,
            mount: self.mount,
        })
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&counter.to_le_bytes());
    nonce
}

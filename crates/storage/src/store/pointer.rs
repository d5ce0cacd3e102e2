//! [`Pointer`]: names one writing of one block.
//!
//! ```text
//!    0  6  block number
//!    6  6  counter
//!   12 12  mount id
//!   24 16  tag
//! ```

pub const BLOCK: usize = 4096;
pub const POINTER_SIZE: usize = 40;
pub const TAG_SIZE: usize = 16;

/// Bound of block numbers and counters: six bytes.
pub const MAX_U48: u64 = (1 << 48) - 1;

pub type Tag = [u8; TAG_SIZE];

/// Drawn at random for each mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountId(pub [u8; 12]);

/// What makes a message's key and nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writing {
    pub counter: u64,
    pub mount: MountId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    pub block: u64,
    pub writing: Writing,
    pub tag: Tag,
}

impl Pointer {
    pub fn parse(bytes: &[u8; POINTER_SIZE]) -> Pointer {
        let mut mount = [0; 12];
        let mut tag = [0; TAG_SIZE];
        mount.copy_from_slice(&bytes[12..24]);
        tag.copy_from_slice(&bytes[24..]);
        let writing = Writing {
            counter: get_u48(&bytes[6..12]),
            mount: MountId(mount),
        };
        Pointer {
            block: get_u48(&bytes[..6]),
            writing,
            tag,
        }
    }

    pub fn encode(&self) -> [u8; POINTER_SIZE] {
        let mut bytes = [0; POINTER_SIZE];
        bytes[..6].copy_from_slice(&put_u48(self.block));
        bytes[6..12].copy_from_slice(&put_u48(self.writing.counter));
        bytes[12..24].copy_from_slice(&self.writing.mount.0);
        bytes[24..].copy_from_slice(&self.tag);
        bytes
    }

    /// Whether `next` was written right behind this block, in the same breath.
    pub fn continues_as(&self, next: &Pointer, distance: u64) -> bool {
        self.writing.mount == next.writing.mount
            && self.block + distance == next.block
            && self.writing.counter + distance == next.writing.counter
    }
}

pub fn get_u48(bytes: &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[..6].copy_from_slice(&bytes[..6]);
    u64::from_le_bytes(wide)
}

pub fn put_u48(value: u64) -> [u8; 6] {
    let wide = value.to_le_bytes();
    [wide[0], wide[1], wide[2], wide[3], wide[4], wide[5]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_survives_its_bytes() {
        let writing = Writing {
            counter: MAX_U48 - 1,
            mount: MountId([7; 12]),
        };
        let pointer = Pointer {
            block: MAX_U48,
            writing,
            tag: [9; 16],
        };
        assert_eq!(Pointer::parse(&pointer.encode()), pointer);
    }
}

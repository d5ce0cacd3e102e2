//! The shape of the hash tree: how many levels, and where each node and leaf stands in the file.

use super::hash::HASH_SIZE;
use super::record::{LEAF_SIZE, MAX_LEAF_COUNT, NODE_SIZE, SUPERBLOCK_SIZE};

/// Hashes in one node.
pub const FAN_OUT: u64 = (NODE_SIZE / HASH_SIZE) as u64;

/// Levels of the largest tree: 128^6 >= 2^40.
const MAX_LEVELS: usize = 6;

const _: () = assert!(FAN_OUT.pow(MAX_LEVELS as u32) >= MAX_LEAF_COUNT);

/// Level 0 holds the leaf hashes; the last level has one node, the root node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeShape {
    leaf_count: u64,
    level_count: usize,
    /// Nodes of each level; the entries behind `level_count` are 0.
    node_counts: [u64; MAX_LEVELS],
}

impl TreeShape {
    /// `leaf_count` is 1 to `MAX_LEAF_COUNT`.
    pub fn new(leaf_count: u64) -> TreeShape {
        let mut node_counts = [0; MAX_LEVELS];
        let mut below = leaf_count;
        let mut level_count = 0;
        for count in &mut node_counts {
            *count = below.div_ceil(FAN_OUT);
            below = *count;
            level_count += 1;
            if below == 1 {
                break;
            }
        }
        TreeShape {
            leaf_count,
            level_count,
            node_counts,
        }
    }

    pub fn leaf_count(&self) -> u64 {
        self.leaf_count
    }

    pub fn root_level(&self) -> usize {
        self.level_count - 1
    }

    /// Bytes of the whole image file.
    pub fn image_size(&self) -> u64 {
        self.node_offset(0, self.node_counts[0])
    }

    pub fn leaf_offset(&self, index: u64) -> u64 {
        SUPERBLOCK_SIZE as u64 + index * LEAF_SIZE as u64
    }

    /// Higher levels stand before lower ones.
    pub fn node_offset(&self, level: usize, index: u64) -> u64 {
        let before: u64 = self.node_counts[level + 1..].iter().sum();
        self.leaf_offset(self.leaf_count) + (before + index) * NODE_SIZE as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leaf_has_one_node() {
        let shape = TreeShape::new(1);
        assert_eq!(shape.root_level(), 0);
        assert_eq!(shape.image_size(), 4096 + 16384 + 4096);
    }

    #[test]
    fn a_level_is_added_when_a_node_overflows() {
        assert_eq!(TreeShape::new(128).root_level(), 0);
        assert_eq!(TreeShape::new(129).root_level(), 1);
        assert_eq!(TreeShape::new(128 * 128).root_level(), 1);
        assert_eq!(TreeShape::new(128 * 128 + 1).root_level(), 2);
        assert_eq!(TreeShape::new(MAX_LEAF_COUNT).root_level(), 5);
    }

    #[test]
    fn the_root_node_follows_the_leaves_and_level_0_ends_the_file() {
        let shape = TreeShape::new(129);
        let leaves_end = 4096 + 129 * 16384;
        assert_eq!(shape.node_offset(1, 0), leaves_end);
        assert_eq!(shape.node_offset(0, 0), leaves_end + 4096);
        assert_eq!(shape.image_size(), leaves_end + 3 * 4096);
    }
}

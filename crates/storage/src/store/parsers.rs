//! The parsers of this module for whoever wants to try them with bytes of his own: `fuzz/`.

use alloc::vec::Vec;

use super::log::{self, Place};
use super::node::Node;
use super::pointer::BLOCK;
use super::superblock::{Superblock, parse_header};

/// A tree node; what was understood must give the same bytes again, up to reserved fields.
pub fn node(bytes: &[u8]) {
    let Ok(node) = Node::parse(bytes, None) else {
        return;
    };
    let mut again = Vec::new();
    node.encode(&mut again);
    assert_eq!(again.len(), BLOCK);
    let parsed = Node::parse(&again, None).expect("our own bytes");
    let mut third = Vec::new();
    parsed.encode(&mut third);
    assert!(again == third);
}

/// Body and header of a superblock.
pub fn superblock(bytes: &[u8]) {
    let parsed = (Superblock::parse(bytes), parse_header(bytes, &[0; 16]));
    core::hint::black_box(&parsed);
}

/// The body of a log record, which follows whatever it says it follows.
pub fn log_body(bytes: &[u8]) {
    let [kind, rest @ ..] = bytes else {
        return;
    };
    let Some((seq, behind)) = rest.split_first_chunk::<8>() else {
        return;
    };
    let mut tag = [0; 16];
    let known = behind.len().min(tag.len());
    tag[..known].copy_from_slice(&behind[..known]);
    let step = u64::from(*kind == 1);
    let seq = u64::from_le_bytes(*seq).wrapping_sub(step);
    core::hint::black_box(&log::parse_body(rest, *kind, &Place { seq, tag }));
}

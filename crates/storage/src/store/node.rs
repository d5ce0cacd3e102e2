//! Tree nodes: in memory, and as the plaintext of a block.
//!
//! ```text
//!    0  1  level: 0 for a leaf      inner entry: smallest key (17), pointer (40)
//!    1  1  zero                     leaf entry:  key (17), value length (2), value
//!    2  2  count
//!    4  4  zero
//!    8     entries, sorted by key
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::error::{Result, StoreError};
use super::item::{Item, KEY_BYTES, Key};
use super::pointer::{BLOCK, POINTER_SIZE, Pointer};
use super::wire::Fields;

const HEADER: usize = 8;
const INNER_ENTRY: usize = KEY_BYTES + POINTER_SIZE;
/// A tree of this height would hold more than any disk.
const MAX_LEVEL: u8 = 16;

pub struct Node {
    /// Where it was last written; `None` if it never was.
    pub at: Option<Pointer>,
    /// Differs from what is written there. So do then all nodes above it.
    pub is_dirty: bool,
    /// Used since the last look for nodes to forget.
    pub is_recent: bool,
    /// Bytes when encoded.
    pub size: usize,
    pub body: Body,
}

pub enum Body {
    Leaf(Vec<(Key, Item)>),
    Inner { level: u8, children: Vec<Child> },
}

/// `first` is at most the smallest key below.
pub struct Child {
    pub first: Key,
    pub link: Link,
}

pub enum Link {
    Stored(Pointer),
    Loaded(Box<Node>),
}

impl Node {
    pub fn new_leaf(entries: Vec<(Key, Item)>) -> Box<Node> {
        let size = HEADER + entries.iter().map(leaf_entry_size).sum::<usize>();
        Node::fresh(size, Body::Leaf(entries))
    }

    pub fn new_inner(level: u8, children: Vec<Child>) -> Box<Node> {
        let size = HEADER + children.len() * INNER_ENTRY;
        Node::fresh(size, Body::Inner { level, children })
    }

    fn fresh(size: usize, body: Body) -> Box<Node> {
        Box::new(Node {
            at: None,
            is_dirty: true,
            is_recent: true,
            size,
            body,
        })
    }

    pub fn level(&self) -> u8 {
        match &self.body {
            Body::Leaf(_) => 0,
            Body::Inner { level, .. } => *level,
        }
    }

    pub fn is_empty(&self) -> bool {
        match &self.body {
            Body::Leaf(entries) => entries.is_empty(),
            Body::Inner { children, .. } => children.is_empty(),
        }
    }

    pub fn is_too_large(&self) -> bool {
        self.size > BLOCK
    }

    pub fn is_small(&self) -> bool {
        self.size < BLOCK / 3
    }

    /// Takes the upper part away. `is_append`: the last entry is new, so leave the rest together.
    pub fn split(&mut self, is_append: bool) -> (Key, Box<Node>) {
        let (first, upper) = match &mut self.body {
            Body::Leaf(entries) => {
                let upper = entries.split_off(leaf_middle(entries, is_append));
                (upper[0].0, Node::new_leaf(upper))
            }
            Body::Inner { level, children } => {
                let middle = if is_append {
                    children.len() - 1
                } else {
                    children.len() / 2
                };
                let upper = children.split_off(middle);
                (upper[0].first, Node::new_inner(*level, upper))
            }
        };
        self.size -= upper.size - HEADER;
        (first, upper)
    }

    /// Takes over all entries of `next`, the node behind this one on the same level.
    pub fn merge(&mut self, next: &mut Node) {
        match (&mut self.body, &mut next.body) {
            (Body::Leaf(entries), Body::Leaf(more)) => entries.append(more),
            (Body::Inner { children, .. }, Body::Inner { children: more, .. }) => {
                children.append(more);
            }
            _ => unreachable!("nodes of one parent have one level"),
        }
        self.size += next.size - HEADER;
    }

    pub fn can_merge(&self, next: &Node) -> bool {
        self.size + next.size - HEADER <= BLOCK * 3 / 4
    }

    pub fn child_inserted(&mut self) {
        self.size += INNER_ENTRY;
    }

    pub fn child_removed(&mut self) {
        self.size -= INNER_ENTRY;
    }

    /// The plaintext, `BLOCK` bytes. All children are stored.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let count = match &self.body {
            Body::Leaf(entries) => entries.len(),
            Body::Inner { children, .. } => children.len(),
        };
        let count = u16::try_from(count).expect("a block holds far fewer entries");
        out.extend_from_slice(&[self.level(), 0]);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        match &self.body {
            Body::Leaf(entries) => entries.iter().for_each(|entry| encode_entry(entry, out)),
            Body::Inner { children, .. } => {
                for child in children {
                    child.first.encode(out);
                    out.extend_from_slice(&child.pointer().encode());
                }
            }
        }
        debug_assert_eq!(out.len() - start, self.size);
        out.resize(start + BLOCK, 0);
    }

    pub fn parse(bytes: &[u8], at: Option<Pointer>) -> Result<Box<Node>> {
        let mut fields = Fields::new(bytes);
        let level = fields.u8()?;
        fields.u8()?;
        let count = fields.u16()?;
        fields.u32()?;
        if level > MAX_LEVEL {
            return Err(StoreError::Malformed("a tree node is too high"));
        }
        let mut node = if level == 0 {
            Node::new_leaf(parse_leaf(&mut fields, count)?)
        } else {
            Node::new_inner(level, parse_inner(&mut fields, count)?)
        };
        node.at = at;
        node.is_dirty = false;
        Ok(node)
    }
}

impl Child {
    /// Where a stored child is.
    fn pointer(&self) -> Pointer {
        match &self.link {
            Link::Stored(pointer) => *pointer,
            Link::Loaded(node) => node.at.expect("children are written before their parent"),
        }
    }
}

pub fn leaf_entry_size(entry: &(Key, Item)) -> usize {
    KEY_BYTES + 2 + entry.1.encoded_size()
}

fn leaf_middle(entries: &[(Key, Item)], is_append: bool) -> usize {
    if is_append {
        return entries.len() - 1;
    }
    let total: usize = entries.iter().map(leaf_entry_size).sum();
    let mut below = 0;
    let middle = entries.iter().position(|entry| {
        below += leaf_entry_size(entry);
        below >= total / 2
    });
    middle.unwrap_or(0).clamp(1, entries.len() - 1)
}

fn encode_entry(entry: &(Key, Item), out: &mut Vec<u8>) {
    entry.0.encode(out);
    let length = out.len();
    out.extend_from_slice(&[0; 2]);
    entry.1.encode(out);
    let size = (out.len() - length - 2) as u16;
    out[length..length + 2].copy_from_slice(&size.to_le_bytes());
}

fn parse_leaf(fields: &mut Fields<'_>, count: u16) -> Result<Vec<(Key, Item)>> {
    let mut entries: Vec<(Key, Item)> = Vec::new();
    for _ in 0..count {
        let key = Key::parse(fields)?;
        let size = fields.u16()?;
        let item = Item::parse(key.kind, fields.bytes(usize::from(size))?)?;
        if entries.last().is_some_and(|last| last.0 >= key) {
            return Err(StoreError::Malformed("a leaf's keys are out of order"));
        }
        push(&mut entries, (key, item))?;
    }
    Ok(entries)
}

fn parse_inner(fields: &mut Fields<'_>, count: u16) -> Result<Vec<Child>> {
    let mut children: Vec<Child> = Vec::new();
    for _ in 0..count {
        let first = Key::parse(fields)?;
        let link = Link::Stored(fields.pointer()?);
        if children.last().is_some_and(|last| last.first >= first) {
            return Err(StoreError::Malformed("a node's keys are out of order"));
        }
        push(&mut children, Child { first, link })?;
    }
    if children.is_empty() {
        return Err(StoreError::Malformed("an inner node is empty"));
    }
    Ok(children)
}

fn push<T>(list: &mut Vec<T>, value: T) -> Result<()> {
    list.try_reserve(1).map_err(|_| StoreError::OutOfMemory)?;
    list.push(value);
    Ok(())
}

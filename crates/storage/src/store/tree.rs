//! The B+ tree of all items, as far as it is in memory.
//!
//! A node that is changed stays in memory, with all nodes above it, until a checkpoint writes it
//! to a new place. Nodes that are not changed may be forgotten.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::disk::Disk;
use super::error::{Result, StoreError};
use super::item::{Item, Key, KeyKind};
use super::node::{Body, Child, Link, Node, leaf_entry_size};
use super::pointer::Pointer;
use super::seal::BlockKind;
use super::vault::Vault;

pub struct Tree {
    root: Box<Node>,
    counts: Counts,
    /// Keys whose items changed since the last commit; `None` if there are too many to remember.
    changed: Option<BTreeSet<Key>>,
    /// Blocks of nodes that are gone: free at the next checkpoint.
    retired: Vec<Pointer>,
}

#[derive(Default)]
struct Counts {
    loaded: usize,
    dirty: usize,
}

/// Changed keys that are remembered.
const MAX_CHANGED: usize = 40_000;

type Edit<'a, R> = &'a mut dyn FnMut(&mut Vec<(Key, Item)>, usize, bool) -> R;

impl Tree {
    /// An empty tree.
    pub fn new() -> Tree {
        Tree {
            root: Node::new_leaf(Vec::new()),
            counts: Counts {
                loaded: 1,
                dirty: 1,
            },
            changed: Some(BTreeSet::new()),
            retired: Vec::new(),
        }
    }

    pub fn open<D: Disk>(vault: &mut Vault<D>, root: &Pointer) -> Result<Tree> {
        let root = load(vault, root)?;
        Ok(Tree {
            root,
            counts: Counts {
                loaded: 1,
                dirty: 0,
            },
            changed: Some(BTreeSet::new()),
            retired: Vec::new(),
        })
    }

    pub fn get<D: Disk>(&mut self, vault: &mut Vault<D>, key: &Key) -> Result<Option<&Item>> {
        let mut node = &mut *self.root;
        loop {
            node.is_recent = true;
            match &mut node.body {
                Body::Leaf(entries) => {
                    let found = entries.binary_search_by(|entry| entry.0.cmp(key));
                    return Ok(found.ok().map(|at| &entries[at].1));
                }
                Body::Inner { level, children } => {
                    let at = child_of(children, key);
                    node = loaded(vault, &mut self.counts, &mut children[at].link, *level)?;
                }
            }
        }
    }

    /// Shows the items from `from` to `to`, both included, until `visit` breaks.
    pub fn scan<D: Disk>(
        &mut self,
        vault: &mut Vault<D>,
        from: &Key,
        to: &Key,
        visit: &mut dyn FnMut(&Key, &Item) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut range = Range {
            from,
            to,
            counts: &mut self.counts,
            visit,
        };
        range.scan(vault, &mut self.root).map(drop)
    }

    /// Puts an item; gives the one it replaces.
    pub fn put<D: Disk>(
        &mut self,
        vault: &mut Vault<D>,
        key: Key,
        item: Item,
    ) -> Result<Option<Item>> {
        let mut item = Some(item);
        self.edit(vault, &key, &mut |entries, at, is_there| {
            let new = item.take()?;
            if is_there {
                return Some(core::mem::replace(&mut entries[at].1, new));
            }
            entries.insert(at, (key, new));
            None
        })
    }

    pub fn remove<D: Disk>(&mut self, vault: &mut Vault<D>, key: &Key) -> Result<Option<Item>> {
        self.edit(vault, key, &mut |entries, at, is_there| {
            is_there.then(|| entries.remove(at).1)
        })
    }

    /// Changes an item in place; `None` if there is none.
    pub fn update<D: Disk, R>(
        &mut self,
        vault: &mut Vault<D>,
        key: &Key,
        mut change: impl FnMut(&mut Item) -> R,
    ) -> Result<Option<R>> {
        self.edit(vault, key, &mut |entries, at, is_there| {
            is_there.then(|| change(&mut entries[at].1))
        })
    }

    /// Changes an item in place, after it was made of `new` if there was none.
    pub fn upsert<D: Disk, R>(
        &mut self,
        vault: &mut Vault<D>,
        key: &Key,
        new: impl Fn() -> Item,
        mut change: impl FnMut(&mut Item) -> R,
    ) -> Result<R> {
        self.edit(vault, key, &mut |entries, at, is_there| {
            if !is_there {
                entries.insert(at, (*key, new()));
            }
            change(&mut entries[at].1)
        })
    }

    /// Changes an item on nodes that are changed already, to one of the same size: no node comes or
    /// goes.
    pub fn patch<D: Disk>(&mut self, vault: &mut Vault<D>, key: &Key, item: Item) -> Result<()> {
        let mut node = &mut *self.root;
        loop {
            debug_assert!(node.is_dirty);
            match &mut node.body {
                Body::Leaf(entries) => {
                    let found = entries.binary_search_by(|entry| entry.0.cmp(key));
                    entries[found.map_err(|_| StoreError::NotFound)?].1 = item;
                    return Ok(());
                }
                Body::Inner { level, children } => {
                    let at = child_of(children, key);
                    node = loaded(vault, &mut self.counts, &mut children[at].link, *level)?;
                }
            }
        }
    }

    fn edit<D: Disk, R>(
        &mut self,
        vault: &mut Vault<D>,
        key: &Key,
        edit: Edit<'_, R>,
    ) -> Result<R> {
        self.remember(key);
        let mut descent = Descent {
            key,
            counts: &mut self.counts,
            retired: &mut self.retired,
        };
        let (result, split) = descent.edit(vault, &mut self.root, edit)?;
        if let Some((first, upper)) = split {
            self.grow(first, upper);
        }
        self.shrink();
        Ok(result)
    }

    fn remember(&mut self, key: &Key) {
        // Space maps follow from the rest; only checkpoints write them.
        if key.kind == KeyKind::Group {
            return;
        }
        if let Some(changed) = &mut self.changed {
            changed.insert(*key);
            if changed.len() > MAX_CHANGED {
                self.changed = None;
            }
        }
    }

    fn grow(&mut self, first: Key, upper: Box<Node>) {
        let level = self.root.level() + 1;
        let lower = core::mem::replace(&mut self.root, Node::new_inner(level, Vec::new()));
        let children = [(Key::FIRST, lower), (first, upper)].map(|(first, node)| Child {
            first,
            link: Link::Loaded(node),
        });
        self.root = Node::new_inner(level, Vec::from(children));
        self.counts.loaded += 1;
        self.counts.dirty += 1;
    }

    /// A root with one child gives way to it.
    fn shrink(&mut self) {
        while let Body::Inner { children, .. } = &mut self.root.body {
            let [
                Child {
                    link: Link::Loaded(_),
                    ..
                },
            ] = children.as_slice()
            else {
                return;
            };
            let Some(Child {
                link: Link::Loaded(child),
                ..
            }) = children.pop()
            else {
                return;
            };
            let old = core::mem::replace(&mut self.root, child);
            self.counts.forget(&old, &mut self.retired);
        }
    }

    pub fn dirty_count(&self) -> usize {
        self.counts.dirty
    }

    pub fn root_level(&self) -> u8 {
        self.root.level()
    }

    /// The keys that changed since the last time; `None` if they were too many.
    pub fn take_changed(&mut self) -> Option<BTreeSet<Key>> {
        self.changed.replace(BTreeSet::new())
    }

    pub fn is_changed(&self) -> bool {
        self.changed
            .as_ref()
            .is_none_or(|changed| !changed.is_empty())
    }

    /// Blocks that the next checkpoint leaves behind: those of changed nodes and of nodes that are
    /// gone.
    pub fn left_behind(&self) -> Vec<u64> {
        let mut blocks: Vec<u64> = self.retired.iter().map(|pointer| pointer.block).collect();
        each_dirty(&self.root, &mut |node| {
            blocks.extend(node.at.map(|at| at.block));
        });
        blocks
    }

    /// Shows each changed node, children before parents; `write` says where it is now. Then
    /// nothing is changed any more.
    pub fn store(&mut self, write: &mut dyn FnMut(&Node) -> Result<Pointer>) -> Result<Pointer> {
        let root = store(&mut self.root, write)?;
        self.counts.dirty = 0;
        self.retired.clear();
        Ok(root)
    }

    /// Forgets unchanged nodes that were not used lately, if more than `limit` are in memory.
    pub fn trim(&mut self, limit: usize) {
        if self.counts.loaded <= limit {
            return;
        }
        let target = limit * 3 / 4;
        for _ in 0..2 {
            sweep(&mut self.root, &mut self.counts, target);
        }
    }
}

impl Counts {
    fn forget(&mut self, node: &Node, retired: &mut Vec<Pointer>) {
        self.loaded -= 1;
        if node.is_dirty {
            self.dirty -= 1;
        }
        retired.extend(node.at);
    }
}

/// An edit on its way down and up again.
struct Descent<'a> {
    key: &'a Key,
    counts: &'a mut Counts,
    retired: &'a mut Vec<Pointer>,
}

type Split = Option<(Key, Box<Node>)>;

impl Descent<'_> {
    fn edit<D: Disk, R>(
        &mut self,
        vault: &mut Vault<D>,
        node: &mut Node,
        edit: Edit<'_, R>,
    ) -> Result<(R, Split)> {
        node.is_recent = true;
        let (result, is_append) = match &mut node.body {
            Body::Leaf(_) => self.edit_leaf(node, edit),
            Body::Inner { level, children } => {
                let at = child_of(children, self.key);
                let child = loaded(vault, self.counts, &mut children[at].link, *level)?;
                let (result, split) = self.edit(vault, child, edit)?;
                self.mark(node);
                let is_append = self.tidy(node, at, split);
                (result, is_append)
            }
        };
        if !node.is_too_large() {
            return Ok((result, None));
        }
        self.counts.loaded += 1;
        self.counts.dirty += 1;
        Ok((result, Some(node.split(is_append))))
    }

    fn edit_leaf<R>(&mut self, node: &mut Node, edit: Edit<'_, R>) -> (R, bool) {
        self.mark(node);
        let Body::Leaf(entries) = &mut node.body else {
            unreachable!("the caller looked")
        };
        let (at, is_there) = match entries.binary_search_by(|entry| entry.0.cmp(self.key)) {
            Ok(at) => (at, true),
            Err(at) => (at, false),
        };
        let size_at = |entries: &[(Key, Item)]| match entries.get(at) {
            Some(entry) if entry.0 == *self.key => leaf_entry_size(entry),
            _ => 0,
        };
        let before = size_at(entries);
        let result = edit(entries, at, is_there);
        node.size = node.size - before + size_at(entries);
        (result, at + 1 == entries.len() && !is_there)
    }

    fn mark(&mut self, node: &mut Node) {
        if !node.is_dirty {
            node.is_dirty = true;
            self.counts.dirty += 1;
        }
    }

    /// After the child `at` changed: takes in its new sibling, or lets it go, or merges it.
    fn tidy(&mut self, node: &mut Node, at: usize, split: Split) -> bool {
        let Body::Inner { children, .. } = &mut node.body else {
            unreachable!("leaves have no children")
        };
        if let Some((first, upper)) = split {
            let link = Link::Loaded(upper);
            children.insert(at + 1, Child { first, link });
            let is_append = at + 2 == children.len();
            node.child_inserted();
            return is_append;
        }
        let Link::Loaded(child) = &children[at].link else {
            return false;
        };
        if child.is_empty() && children.len() > 1 {
            self.drop_child(children, at);
            node.child_removed();
        } else if child.is_small() && self.merge(children, at) {
            node.child_removed();
        }
        false
    }

    /// Merges the child with a neighbour that is in memory.
    fn merge(&mut self, children: &mut Vec<Child>, at: usize) -> bool {
        for left in [at.wrapping_sub(1), at] {
            let Some([lower, upper]) = children
                .get_mut(left..left.saturating_add(2))
                .and_then(|pair| <&mut [Child; 2]>::try_from(pair).ok())
            else {
                continue;
            };
            let (Link::Loaded(lower), Link::Loaded(upper)) = (&mut lower.link, &mut upper.link)
            else {
                continue;
            };
            if lower.can_merge(upper) {
                self.mark(lower);
                lower.merge(upper);
                self.drop_child(children, left + 1);
                return true;
            }
        }
        false
    }

    fn drop_child(&mut self, children: &mut Vec<Child>, at: usize) {
        let gone = children.remove(at);
        // What lies in front of the first child's keys is the first child's.
        if at == 0 {
            children[0].first = gone.first;
        }
        if let Link::Loaded(node) = gone.link {
            self.counts.forget(&node, self.retired);
        }
    }
}

struct Range<'a> {
    from: &'a Key,
    to: &'a Key,
    counts: &'a mut Counts,
    visit: &'a mut dyn FnMut(&Key, &Item) -> ControlFlow<()>,
}

impl Range<'_> {
    fn scan<D: Disk>(&mut self, vault: &mut Vault<D>, node: &mut Node) -> Result<ControlFlow<()>> {
        node.is_recent = true;
        match &mut node.body {
            Body::Leaf(entries) => Ok(self.scan_leaf(entries)),
            Body::Inner { level, children } => {
                for at in child_of(children, self.from)..children.len() {
                    if children[at].first > *self.to {
                        break;
                    }
                    let child = loaded(vault, self.counts, &mut children[at].link, *level)?;
                    if self.scan(vault, child)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn scan_leaf(&mut self, entries: &[(Key, Item)]) -> ControlFlow<()> {
        let start = entries.partition_point(|entry| entry.0 < *self.from);
        for (key, item) in &entries[start..] {
            if key > self.to {
                return ControlFlow::Break(());
            }
            (self.visit)(key, item)?;
        }
        ControlFlow::Continue(())
    }
}

/// The child that holds `key`, if any does.
fn child_of(children: &[Child], key: &Key) -> usize {
    children
        .partition_point(|child| child.first <= *key)
        .saturating_sub(1)
}

fn loaded<'a, D: Disk>(
    vault: &mut Vault<D>,
    counts: &mut Counts,
    link: &'a mut Link,
    parent_level: u8,
) -> Result<&'a mut Node> {
    if let Link::Stored(pointer) = link {
        let node = load(vault, pointer)?;
        if node.level() + 1 != parent_level {
            return Err(StoreError::Malformed("a tree node has a wrong level"));
        }
        counts.loaded += 1;
        *link = Link::Loaded(node);
    }
    match link {
        Link::Loaded(node) => Ok(node),
        Link::Stored(_) => unreachable!("it was just loaded"),
    }
}

fn load<D: Disk>(vault: &mut Vault<D>, pointer: &Pointer) -> Result<Box<Node>> {
    let block = vault.read_block(BlockKind::Node, pointer)?;
    Node::parse(&block[..], Some(*pointer))
}

fn each_dirty(node: &Node, visit: &mut dyn FnMut(&Node)) {
    if !node.is_dirty {
        return;
    }
    visit(node);
    let Body::Inner { children, .. } = &node.body else {
        return;
    };
    for child in children {
        if let Link::Loaded(child) = &child.link {
            each_dirty(child, visit);
        }
    }
}

fn store(node: &mut Node, write: &mut dyn FnMut(&Node) -> Result<Pointer>) -> Result<Pointer> {
    if let Body::Inner { children, .. } = &mut node.body {
        for child in children {
            if let Link::Loaded(child) = &mut child.link
                && child.is_dirty
            {
                store(child, write)?;
            }
        }
    }
    if node.is_dirty {
        node.at = Some(write(node)?);
        node.is_dirty = false;
    }
    Ok(node.at.expect("it was just written, or has been before"))
}

fn sweep(node: &mut Node, counts: &mut Counts, target: usize) {
    let Body::Inner { children, .. } = &mut node.body else {
        return;
    };
    for child in children {
        if counts.loaded <= target {
            return;
        }
        let Link::Loaded(loaded) = &mut child.link else {
            continue;
        };
        if !loaded.is_recent
            && !loaded.is_dirty
            && let Some(at) = loaded.at
        {
            counts.loaded -= count(loaded);
            child.link = Link::Stored(at);
            continue;
        }
        loaded.is_recent = false;
        sweep(loaded, counts, target);
    }
}

fn count(node: &Node) -> usize {
    let Body::Inner { children, .. } = &node.body else {
        return 1;
    };
    let loaded = children.iter().filter_map(|child| match &child.link {
        Link::Loaded(node) => Some(count(node)),
        Link::Stored(_) => None,
    });
    1 + loaded.sum::<usize>()
}

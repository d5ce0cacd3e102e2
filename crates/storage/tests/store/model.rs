//! The store as it should be: a file system in plain memory, and a stream of random operations that
//! go to both.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use occlum_storage::store::{
    Disk, EntryKind, FileKind, Leave, Name, NewInode, ROOT, Rename, Store, StoreError, Time,
    XattrMode,
};

/// xorshift64*: the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    pub mode: u32,
    pub nlink: u32,
    pub data: Vec<u8>,
    pub names: BTreeMap<Vec<u8>, u64>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Inode numbers are the store's. A whiteout is inode 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Model {
    pub nodes: BTreeMap<u64, Node>,
}

const DIRECTORY: u32 = 0o040755;
const REGULAR: u32 = 0o100644;

pub fn now(tick: u64) -> Time {
    Time {
        s: tick as i64,
        ns: (tick % 1000) as u32,
    }
}

impl Model {
    pub fn new() -> Model {
        let root = Node {
            mode: DIRECTORY,
            nlink: 2,
            ..Node::default()
        };
        Model {
            nodes: BTreeMap::from([(ROOT, root)]),
        }
    }

    /// What a store holds.
    pub fn of<D: Disk>(store: &mut Store<D>) -> Result<Model, StoreError> {
        let mut model = Model {
            nodes: BTreeMap::new(),
        };
        let mut todo = vec![ROOT];
        while let Some(ino) = todo.pop() {
            let node = read_node(store, ino)?;
            let below = node.names.values().filter(|ino| **ino != 0);
            todo.extend(below.filter(|ino| !model.nodes.contains_key(ino)));
            model.nodes.insert(ino, node);
        }
        Ok(model)
    }

    fn pick(&self, random: &mut Random, is_right: impl Fn(&Node) -> bool) -> Option<u64> {
        let fit: Vec<u64> = self
            .nodes
            .iter()
            .filter(|(_, node)| is_right(node))
            .map(|(ino, _)| *ino)
            .collect();
        match fit.len() {
            0 => None,
            len => Some(fit[random.below(len as u64) as usize]),
        }
    }

    fn is_below(&self, ino: u64, above: u64) -> bool {
        ino == above
            || self.nodes[&above]
                .names
                .values()
                .any(|each| *each != 0 && self.is_below(ino, *each))
    }

    fn lose(&mut self, ino: u64) -> bool {
        let node = self.nodes.get_mut(&ino).unwrap();
        node.nlink = if node.mode == DIRECTORY {
            0
        } else {
            node.nlink - 1
        };
        let is_gone = node.nlink == 0;
        if is_gone {
            self.nodes.remove(&ino);
        }
        is_gone
    }
}

fn read_node<D: Disk>(store: &mut Store<D>, ino: u64) -> Result<Node, StoreError> {
    let stat = store.stat(ino)?;
    let mut node = Node {
        mode: stat.mode,
        nlink: stat.nlink,
        ..Node::default()
    };
    match stat.kind() {
        FileKind::Directory => {
            store.read_dir(ino, 0, |each| {
                node.names.insert(each.name.to_vec(), each.entry.ino);
                ControlFlow::Continue(())
            })?;
            assert_eq!(stat.size, node.names.len() as u64);
        }
        FileKind::Regular => {
            node.data = vec![0xee; stat.size as usize];
            assert_eq!(store.read_at(ino, 0, &mut node.data)? as u64, stat.size);
        }
        FileKind::Symlink => node.data = store.read_link(ino)?,
        _ => {}
    }
    for name in store.xattr_names(ino)? {
        let value = store.xattr(ino, &name)?;
        node.xattrs.insert(name.to_vec(), value);
    }
    Ok(node)
}

/// One random operation on both. The store's answer must be the model's.
pub fn step<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    match random.below(20) {
        0..=3 => create(store, model, random, tick),
        4..=9 => write(store, model, random, tick),
        10 => truncate(store, model, random, tick),
        11 => punch(store, model, random, tick),
        12 => shift(store, model, random, tick),
        13..=14 => remove(store, model, random, tick),
        15..=16 => rename(store, model, random, tick),
        17 => link(store, model, random, tick),
        18 => xattr(store, model, random, tick),
        _ => whiteout(store, model, random, tick),
    }
}

fn name(random: &mut Random) -> Vec<u8> {
    let number = random.below(12);
    let long = if number == 0 {
        "long".repeat(50)
    } else {
        String::new()
    };
    format!("{long}{number}").into_bytes()
}

fn is_dir(node: &Node) -> bool {
    node.mode == DIRECTORY
}

fn is_file(node: &Node) -> bool {
    node.mode == REGULAR
}

fn create<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let dir = model.pick(random, is_dir).unwrap();
    let name = name(random);
    let target = vec![b't'; 1 + random.below(3000) as usize];
    let (mode, target) = match random.below(6) {
        0..=3 => (REGULAR, &[][..]),
        4 => (DIRECTORY, &[][..]),
        _ => (0o120777, &target[..]),
    };
    let new = NewInode {
        mode,
        uid: 1,
        gid: 2,
        rdev: 0,
        target,
    };
    let made = store.create(dir, &name, &new, now(tick));
    let names = &mut model.nodes.get_mut(&dir).unwrap().names;
    if names.get(&name).is_some_and(|ino| *ino != 0) {
        return refused(made, StoreError::Exists);
    }
    let ino = made?;
    names.insert(name, ino);
    let node = Node {
        mode,
        nlink: if mode == DIRECTORY { 2 } else { 1 },
        data: target.to_vec(),
        ..Node::default()
    };
    if mode == DIRECTORY {
        model.nodes.get_mut(&dir).unwrap().nlink += 1;
    }
    model.nodes.insert(ino, node);
    Ok(())
}

fn range(random: &mut Random) -> (u64, u64) {
    let offset = random.below(200_000);
    let size = match random.below(4) {
        0 => 1 + random.below(100),
        1 => 4096,
        2 => random.below(20_000) + 1,
        _ => random.below(150_000) + 1,
    };
    match random.below(2) {
        0 => (offset / 4096 * 4096, size),
        _ => (offset, size),
    }
}

fn write<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let Some(ino) = model.pick(random, is_file) else {
        return Ok(());
    };
    let (offset, size) = range(random);
    let fill = (tick % 251) as u8 + 1;
    let bytes: Vec<u8> = (0..size).map(|at| fill ^ (at >> 9) as u8).collect();
    store.write_at(ino, offset, &bytes, now(tick))?;
    let data = &mut model.nodes.get_mut(&ino).unwrap().data;
    let end = offset as usize + bytes.len();
    data.resize(data.len().max(end), 0);
    data[offset as usize..end].copy_from_slice(&bytes);
    Ok(())
}

fn truncate<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let Some(ino) = model.pick(random, is_file) else {
        return Ok(());
    };
    let (size, _) = range(random);
    store.set_size(ino, size, now(tick))?;
    model
        .nodes
        .get_mut(&ino)
        .unwrap()
        .data
        .resize(size as usize, 0);
    Ok(())
}

fn punch<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let Some(ino) = model.pick(random, is_file) else {
        return Ok(());
    };
    let (offset, size) = range(random);
    store.punch(ino, offset, size, now(tick))?;
    let data = &mut model.nodes.get_mut(&ino).unwrap().data;
    let end = data.len().min((offset + size) as usize);
    if let Some(part) = data.get_mut(offset as usize..end) {
        part.fill(0);
    }
    Ok(())
}

fn shift<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let Some(ino) = model.pick(random, is_file) else {
        return Ok(());
    };
    let offset = random.below(40) * 4096;
    let size = (1 + random.below(10)) * 4096;
    let data = &mut model.nodes.get_mut(&ino).unwrap().data;
    let (from, count) = (offset as usize, size as usize);
    if random.below(2) == 0 {
        let done = store.collapse(ino, offset, size, now(tick));
        if from + count >= data.len() {
            return refused(done, StoreError::Invalid);
        }
        data.drain(from..from + count);
        return done;
    }
    let done = store.insert(ino, offset, size, now(tick));
    if from >= data.len() {
        return refused(done, StoreError::Invalid);
    }
    data.splice(from..from, std::iter::repeat_n(0, count));
    done
}

fn remove<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let dir = model.pick(random, is_dir).unwrap();
    let name = name(random);
    let ino = model.nodes[&dir].names.get(&name).copied().unwrap_or(0);
    if ino == 0 {
        let answer = store.unlink(dir, &name, Leave::Nothing, now(tick));
        return refused(answer, StoreError::NotFound);
    }
    let node = model.nodes[&ino].clone();
    let answer = if is_dir(&node) {
        let answer = store.rmdir(dir, &name, Leave::Nothing, now(tick));
        if node.names.values().any(|ino| *ino != 0) {
            return refused(answer, StoreError::NotEmpty);
        }
        model.nodes.get_mut(&dir).unwrap().nlink -= 1;
        answer?
    } else {
        store.unlink(dir, &name, Leave::Nothing, now(tick))?
    };
    model.nodes.get_mut(&dir).unwrap().names.remove(&name);
    let is_gone = model.lose(ino);
    assert_eq!((answer.ino, answer.nlink == 0), (ino, is_gone));
    release(store, answer.ino, is_gone, random)
}

/// At once or, as for a file that is still open, never in this mount.
fn release<D: Disk>(
    store: &mut Store<D>,
    ino: u64,
    is_gone: bool,
    random: &mut Random,
) -> Result<(), StoreError> {
    if is_gone && random.below(4) != 0 {
        store.release(ino)?;
    }
    Ok(())
}

fn rename<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let dirs = [0; 2].map(|_| model.pick(random, is_dir).unwrap());
    let names = [(); 2].map(|()| name(random));
    let how = [Rename::Replace, Rename::NoReplace, Rename::Exchange][random.below(3) as usize];
    let ends = [0, 1].map(|at| Name {
        dir: dirs[at],
        name: &names[at],
    });
    let answer = store.rename(ends[0], ends[1], how, Leave::Nothing, now(tick));
    let [from, to] = [0, 1].map(|at| {
        let ino = model.nodes[&dirs[at]].names.get(&names[at]).copied();
        ino.unwrap_or(0)
    });
    if let Some(error) = model.rename_error(dirs, from, to, how) {
        return refused(answer, error);
    }
    let removed = answer?;
    if from == to {
        return Ok(());
    }
    let dir_of = |model: &Model, ino: u64| u32::from(ino != 0 && is_dir(&model.nodes[&ino]));
    let (from_dir, to_dir) = (dir_of(model, from), dir_of(model, to));
    let source = model.nodes.get_mut(&dirs[0]).unwrap();
    source.nlink -= from_dir;
    source.names.remove(&names[0]);
    if how == Rename::Exchange {
        source.nlink += to_dir;
        source.names.insert(names[0].clone(), to);
    }
    let sink = model.nodes.get_mut(&dirs[1]).unwrap();
    sink.nlink = sink.nlink + from_dir - to_dir;
    sink.names.insert(names[1].clone(), from);
    if to != 0 && how != Rename::Exchange {
        let is_gone = model.lose(to);
        return release(store, removed.unwrap().ino, is_gone, random);
    }
    Ok(())
}

impl Model {
    fn rename_error(&self, dirs: [u64; 2], from: u64, to: u64, how: Rename) -> Option<StoreError> {
        if from == 0 {
            return Some(StoreError::NotFound);
        }
        let node = &self.nodes[&from];
        if is_dir(node) && dirs[0] != dirs[1] && self.is_below(dirs[1], from) {
            return Some(StoreError::Invalid);
        }
        match how {
            Rename::Exchange if to == 0 => return Some(StoreError::NotFound),
            Rename::Exchange => {
                let target = &self.nodes[&to];
                let is_loop = dirs[0] != dirs[1] && is_dir(target) && self.is_below(dirs[0], to);
                return is_loop.then_some(StoreError::Invalid);
            }
            Rename::NoReplace if to != 0 => return Some(StoreError::Exists),
            _ => {}
        }
        if to == 0 || to == from {
            return None;
        }
        let target = &self.nodes[&to];
        match (is_dir(node), is_dir(target)) {
            (true, false) => Some(StoreError::NotADirectory),
            (false, true) => Some(StoreError::IsADirectory),
            (true, true) if target.names.values().any(|ino| *ino != 0) => {
                Some(StoreError::NotEmpty)
            }
            _ => None,
        }
    }
}

fn link<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let Some(ino) = model.pick(random, |node| !is_dir(node)) else {
        return Ok(());
    };
    let dir = model.pick(random, is_dir).unwrap();
    let name = name(random);
    let done = store.link(dir, &name, ino, now(tick));
    let names = &mut model.nodes.get_mut(&dir).unwrap().names;
    if names.get(&name).is_some_and(|ino| *ino != 0) {
        return refused(done, StoreError::Exists);
    }
    names.insert(name, ino);
    model.nodes.get_mut(&ino).unwrap().nlink += 1;
    done
}

fn xattr<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let ino = model.pick(random, |_| true).unwrap();
    let name = format!("user.{}", random.below(4)).into_bytes();
    let xattrs = &mut model.nodes.get_mut(&ino).unwrap().xattrs;
    if random.below(3) == 0 {
        let done = store.remove_xattr(ino, &name, now(tick));
        return match xattrs.remove(&name) {
            Some(_) => done,
            None => refused(done, StoreError::NoXattr),
        };
    }
    let value = vec![tick as u8; random.below(4000) as usize];
    store.set_xattr(ino, &name, &value, XattrMode::Any, now(tick))?;
    xattrs.insert(name, value);
    Ok(())
}

fn whiteout<D: Disk>(
    store: &mut Store<D>,
    model: &mut Model,
    random: &mut Random,
    tick: u64,
) -> Result<(), StoreError> {
    let dir = model.pick(random, is_dir).unwrap();
    let name = name(random);
    let found = store.lookup(dir, &name)?;
    let names = &mut model.nodes.get_mut(&dir).unwrap().names;
    match found.map(|entry| entry.kind) {
        Some(EntryKind::Whiteout) => {
            store.clear_whiteout(dir, &name, now(tick))?;
            assert_eq!(names.remove(&name), Some(0));
        }
        Some(_) => refused(
            store.set_whiteout(dir, &name, now(tick)),
            StoreError::Exists,
        )?,
        None => {
            store.set_whiteout(dir, &name, now(tick))?;
            assert_eq!(names.insert(name, 0), None);
        }
    }
    Ok(())
}

/// The store had to refuse. What is wrong with the store itself is the caller's matter.
fn refused<T: std::fmt::Debug>(
    answer: Result<T, StoreError>,
    why: StoreError,
) -> Result<(), StoreError> {
    match answer {
        Err(error) if error == why => Ok(()),
        Err(error) if error.is_about_the_store() => Err(error),
        other => panic!("expected {why:?}, got {other:?}"),
    }
}

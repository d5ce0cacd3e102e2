//! The table of processes and threads: ids, parents and children, zombies.
//!
//! One spin lock guards it; what is taken out is dropped after the lock is released.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use occlum_abi::Errno;
use spin::Mutex;

use super::{Process, Thread};
use crate::error::{Error, Result, err};
use crate::signal::Signal;

/// The kernel's own process: parent of orphans and of the first program.
pub const INIT: u32 = 1;

/// Ids are below this (Linux: PID_MAX_LIMIT on 64 bits).
const ID_END: u32 = 1 << 22;

static TREE: Mutex<Tree> = Mutex::new(Tree::new());

/// Threads that have not ended.
static THREADS: AtomicUsize = AtomicUsize::new(0);
/// The most of them at once.
static PEAK_THREADS: AtomicUsize = AtomicUsize::new(0);
static MAX_THREADS: AtomicUsize = AtomicUsize::new(1024);
static MADE: AtomicU64 = AtomicU64::new(0);

struct Tree {
    threads: BTreeMap<u32, Arc<Thread>>,
    nodes: BTreeMap<u32, Node>,
    next_id: u32,
    has_wrapped: bool,
}

/// A process in the tree.
pub(super) struct Node {
    pub process: Arc<Process>,
    pub parent: u32,
    /// Oldest first.
    pub children: Vec<u32>,
    /// The wait status of a process that has ended.
    pub zombie: Option<u32>,
    /// A waiter has the status and is about to take the zombie out.
    pub is_collected: bool,
    pub report: Option<Report>,
}

/// News for the parent that is not the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// By this signal.
    Stopped(i32),
    Continued,
}

/// Sets how many threads may live at once.
pub fn set_max_threads(count: u32) {
    MAX_THREADS.store(count as usize, Ordering::Relaxed);
}

pub fn max_threads() -> usize {
    MAX_THREADS.load(Ordering::Relaxed)
}

/// Threads alive in all processes.
pub fn thread_count() -> usize {
    THREADS.load(Ordering::Relaxed)
}

/// The most threads that were alive at once.
pub fn peak_thread_count() -> usize {
    PEAK_THREADS.load(Ordering::Relaxed)
}

/// The process with this id, zombies included.
pub fn find_process(pid: u32) -> Option<Arc<Process>> {
    TREE.lock().nodes.get(&pid).map(|node| node.process.clone())
}

/// The thread with this id, if it has not ended.
pub fn find_thread(tid: u32) -> Option<Arc<Thread>> {
    TREE.lock().threads.get(&tid).cloned()
}

/// All processes by id, zombies included.
pub fn processes() -> Vec<Arc<Process>> {
    TREE.lock().nodes.values().map(|node| node.process.clone()).collect()
}

/// Threads alive whose real user is `uid`.
pub fn threads_of(uid: u32) -> usize {
    TREE.lock().threads.values().filter(|thread| thread.credentials().user.real == uid).count()
}

/// The processes of a group that have not been waited for.
pub fn group(pgid: u32) -> Vec<Arc<Process>> {
    let tree = TREE.lock();
    tree.nodes.values().map(|node| &node.process).filter(|p| p.pgid() == pgid).cloned().collect()
}

/// Whether a process of the session `sid` is in the group `pgid`.
pub fn is_group_in_session(pgid: u32, sid: u32) -> bool {
    let tree = TREE.lock();
    tree.nodes.values().any(|node| node.process.pgid() == pgid && node.process.sid() == sid)
}

/// Whether a living member of the group, `ending` left aside, has a parent in the session but in another group.
pub(super) fn has_outside_parent(pgid: u32, ending: Option<u32>) -> bool {
    let tree = TREE.lock();
    tree.nodes.values().any(|node| {
        let process = &node.process;
        let is_member = process.pgid() == pgid && node.zombie.is_none() && ending != Some(process.pid());
        is_member
            && tree.nodes.get(&node.parent).is_some_and(|parent| {
                parent.process.pgid() != pgid && parent.process.sid() == process.sid()
            })
    })
}

/// The children of a process, oldest first.
pub fn children(pid: u32) -> Vec<u32> {
    TREE.lock().nodes.get(&pid).map(|node| node.children.clone()).unwrap_or_default()
}

/// The groups of a process's children.
pub(super) fn child_groups(pid: u32) -> Vec<u32> {
    let tree = TREE.lock();
    let children = tree.nodes.get(&pid).map_or(&[][..], |node| &node.children);
    children.iter().filter_map(|child| tree.nodes.get(child)).map(|node| node.process.pgid()).collect()
}

/// Whether a process has ended and waits to be waited for (or is gone).
pub fn is_zombie(pid: u32) -> bool {
    TREE.lock().nodes.get(&pid).is_none_or(|node| node.zombie.is_some())
}

/// A fresh id for a thread. It is not taken until something is inserted under it, and ids come round
/// only after four million others.
pub(super) fn new_id() -> Result<u32> {
    let mut tree = TREE.lock();
    for _ in 0..ID_END {
        let id = tree.next_id;
        tree.next_id += 1;
        if tree.next_id == ID_END {
            tree.next_id = INIT + 1;
            tree.has_wrapped = true;
        }
        if !tree.has_wrapped || !tree.is_used(id) {
            return Ok(id);
        }
    }
    err(Errno::EAGAIN, "all ids are taken")
}

pub fn is_possible_id(id: u32) -> bool {
    (INIT + 1..ID_END).contains(&id)
}

/// The id given last.
pub fn last_id() -> u32 {
    TREE.lock().next_id.saturating_sub(1).max(INIT)
}

/// Processes and threads made since the start.
pub fn made() -> u64 {
    MADE.load(Ordering::Relaxed)
}

/// Takes an id that was chosen; EEXIST.
pub(super) fn claim_id(id: u32) -> Result<u32> {
    let mut tree = TREE.lock();
    if tree.is_used(id) {
        return err(Errno::EEXIST, "the id is taken");
    }
    // From now on ids may be met before they come round.
    tree.has_wrapped = true;
    Ok(id)
}

/// Counts a new thread against the limit; [`release_thread`] undoes it.
pub(super) fn reserve_thread() -> Result<()> {
    let limit = max_threads();
    let claim = |count| (count < limit).then_some(count + 1);
    match THREADS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim) {
        Ok(before) => {
            PEAK_THREADS.fetch_max(before + 1, Ordering::Relaxed);
            MADE.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        Err(_) => err(Errno::EAGAIN, "resource_limits.max_num_of_threads reached"),
    }
}

pub(super) fn release_thread() {
    THREADS.fetch_sub(1, Ordering::Relaxed);
}

/// Enters a process with its first thread as the youngest child of `parent`.
pub(super) fn insert_process(process: Arc<Process>, thread: Arc<Thread>, parent: u32) {
    let pid = process.pid();
    process.ppid.store(parent, Ordering::Relaxed);
    let mut tree = TREE.lock();
    tree.threads.insert(pid, thread);
    tree.nodes.insert(pid, Node::new(process, parent));
    if let Some(parent) = tree.nodes.get_mut(&parent) {
        parent.children.push(pid);
    }
}

pub(super) fn insert_thread(thread: Arc<Thread>) {
    let old = TREE.lock().threads.insert(thread.tid(), thread);
    drop(old);
}

pub(super) fn remove_thread(tid: u32) {
    let old = TREE.lock().threads.remove(&tid);
    drop(old);
}

/// The real parent of a process; none for the first program and orphans.
pub(super) fn parent_of(pid: u32) -> Option<Arc<Process>> {
    let tree = TREE.lock();
    let parent = tree.nodes.get(&pid)?.parent;
    tree.nodes.get(&parent).map(|node| node.process.clone())
}

pub(crate) fn set_report(pid: u32, report: Option<Report>) {
    if let Some(node) = TREE.lock().nodes.get_mut(&pid) {
        node.report = report;
    }
}

pub(super) fn report(pid: u32) -> Option<Report> {
    TREE.lock().nodes.get(&pid)?.report
}

/// Makes a process a zombie with `status`.
pub(super) fn set_zombie(pid: u32, status: u32) {
    if let Some(node) = TREE.lock().nodes.get_mut(&pid) {
        node.zombie = Some(status);
        node.report = None;
    }
}

/// Takes a zombie out of the tree.
pub(super) fn reap(pid: u32) {
    let node = TREE.lock().remove_node(pid);
    drop(node);
}

/// Gives the children of a process that ends to its nearest ancestor that collects orphans, or to
/// init, which forgets zombies at once. Returns the orphans that live, and the new parent.
pub(super) fn orphan_children(pid: u32) -> (Vec<Arc<Process>>, Option<Arc<Process>>) {
    let mut forgotten = Vec::new();
    let mut tree = TREE.lock();
    let heir = tree.heir_of(pid);
    let children = tree.nodes.get_mut(&pid).map(|node| core::mem::take(&mut node.children));
    let mut orphans = Vec::new();
    for child in children.unwrap_or_default() {
        let Some(node) = tree.nodes.get_mut(&child) else { continue };
        node.parent = heir;
        node.process.ppid.store(heir, Ordering::Relaxed);
        // The new parent did not ask for another signal.
        node.process.exit_signal.store(Signal::CHLD.number(), Ordering::Relaxed);
        let is_zombie = node.zombie.is_some();
        if is_zombie && heir == INIT {
            forgotten.push(tree.remove_node(child));
            continue;
        }
        if !is_zombie {
            orphans.push(node.process.clone());
        }
        if let Some(heir) = tree.nodes.get_mut(&heir) {
            heir.children.push(child);
        }
    }
    let heir = tree.nodes.get(&heir).map(|node| node.process.clone());
    drop(tree);
    drop(forgotten);
    (orphans, heir)
}

/// Calls `visit` with the children of a process, oldest first, until it gives something. Runs under
/// the tree's lock.
pub(super) fn find_child<R>(pid: u32, mut visit: impl FnMut(&mut Node) -> Option<R>) -> Option<R> {
    let mut tree = TREE.lock();
    let count = tree.nodes.get(&pid)?.children.len();
    for index in 0..count {
        let Some(&child) = tree.nodes.get(&pid)?.children.get(index) else { break };
        if let Some(found) = tree.nodes.get_mut(&child).and_then(&mut visit) {
            return Some(found);
        }
    }
    None
}

impl Node {
    fn new(process: Arc<Process>, parent: u32) -> Node {
        Node { process, parent, children: Vec::new(), zombie: None, is_collected: false, report: None }
    }
}

impl Tree {
    const fn new() -> Tree {
        Tree { threads: BTreeMap::new(), nodes: BTreeMap::new(), next_id: INIT + 1, has_wrapped: false }
    }

    fn is_used(&self, id: u32) -> bool {
        self.threads.contains_key(&id)
            || self.nodes.contains_key(&id)
            || self.nodes.values().any(|node| node.process.pgid() == id || node.process.sid() == id)
    }

    fn remove_node(&mut self, pid: u32) -> Option<Node> {
        let node = self.nodes.remove(&pid)?;
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.children.retain(|&child| child != pid);
        }
        Some(node)
    }

    fn heir_of(&self, pid: u32) -> u32 {
        let mut ancestor = self.nodes.get(&pid).map_or(INIT, |node| node.parent);
        while let Some(node) = self.nodes.get(&ancestor) {
            if node.process.is_subreaper() && node.zombie.is_none() {
                return ancestor;
            }
            ancestor = node.parent;
        }
        INIT
    }
}

/// ESRCH, with the usual reason.
pub fn no_such_process() -> Error {
    Error::new(Errno::ESRCH, "no such process")
}

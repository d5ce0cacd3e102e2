//! New threads and processes (clone(2), vfork(2)).
//!
//! A child shares its parent's memory (CLONE_VM): a thread, a vfork child, or what posix_spawn makes. Or
//! it gets a copy at the same addresses (fork), which it takes turns at with its parent
//! (`mm/overlay/`).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use occlum_abi::Errno;
use occlum_enclave::user::UserContext;

use super::thread::VforkGate;
use super::tree;
use super::user_loop;
use super::credentials::Capability;
use super::{Limit, Process, Resource, Thread, ThreadState, cpu_limit};
use crate::error::{Error, Result, err};
use crate::sched::run;
use crate::signal::{Dispositions, Signal};
use crate::user::{self, UserAddr};
use crate::vfs::{FileTable, FsContext};

pub const CSIGNAL: u64 = 0xff;
pub const CLONE_VM: u64 = 0x100;
pub const CLONE_FS: u64 = 0x200;
pub const CLONE_FILES: u64 = 0x400;
pub const CLONE_SIGHAND: u64 = 0x800;
pub const CLONE_PIDFD: u64 = 0x1000;
pub const CLONE_VFORK: u64 = 0x4000;
pub const CLONE_PARENT: u64 = 0x8000;
pub const CLONE_THREAD: u64 = 0x1_0000;
pub const CLONE_NEWNS: u64 = 0x2_0000;
pub const CLONE_SETTLS: u64 = 0x8_0000;
pub const CLONE_PARENT_SETTID: u64 = 0x10_0000;
pub const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
pub const CLONE_DETACHED: u64 = 0x40_0000;
pub const CLONE_CHILD_SETTID: u64 = 0x100_0000;
/// NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWNS, NEWTIME.
pub const CLONE_NAMESPACES: u64 = 0x7e00_0000 | CLONE_NEWNS | 0x80;
pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What clone and clone3 ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// `CLONE_*`, without the exit signal.
    pub flags: u64,
    /// 0 for none.
    pub exit_signal: i32,
    /// Stack pointer of the child; 0 = the parent's.
    pub stack: u64,
    pub tls: u64,
    pub parent_tid: UserAddr,
    pub child_tid: UserAddr,
    pub pidfd: UserAddr,
    /// The child's id, if it is chosen.
    pub set_tid: Option<u32>,
}

impl Request {
    fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// Makes a thread or process; gives its id.
pub fn clone(parent: &Arc<Thread>, context: &mut UserContext, request: &Request) -> Result<u32> {
    check(parent, request)?;
    check_count(parent)?;
    tree::reserve_thread()?;
    match clone_reserved(parent, context, request) {
        Ok(child) => Ok(child),
        Err(error) => {
            tree::release_thread();
            Err(error)
        }
    }
}

fn check(parent: &Thread, request: &Request) -> Result<()> {
    if request.has(CLONE_THREAD) && !request.has(CLONE_SIGHAND) {
        return err(Errno::EINVAL, "CLONE_THREAD without CLONE_SIGHAND");
    }
    if request.has(CLONE_SIGHAND) && !request.has(CLONE_VM) {
        return err(Errno::EINVAL, "CLONE_SIGHAND without CLONE_VM");
    }
    if request.has(CLONE_SIGHAND) && request.has(CLONE_CLEAR_SIGHAND) {
        return err(Errno::EINVAL, "CLONE_SIGHAND with CLONE_CLEAR_SIGHAND");
    }
    if request.has(CLONE_PIDFD) && request.has(CLONE_THREAD | CLONE_DETACHED) {
        return err(Errno::EINVAL, "CLONE_PIDFD of a thread");
    }
    if request.has(CLONE_NEWNS) && request.has(CLONE_FS) {
        return err(Errno::EINVAL, "CLONE_NEWNS with CLONE_FS");
    }
    if request.has(CLONE_NAMESPACES | CLONE_INTO_CGROUP) {
        return Err(no_namespaces(parent, request.flags));
    }
    if request.has(CLONE_SETTLS) && request.tls >= USER_ADDRESS_END {
        return err(Errno::EPERM, "thread pointer out of range");
    }
    Ok(())
}

/// Who may not have namespaces on Linux is told so; the others, that there are none (or no cgroups).
pub fn no_namespaces(thread: &Thread, flags: u64) -> Error {
    const CLONE_NEWUSER: u64 = 0x1000_0000;
    let is_allowed = thread.credentials().has(Capability::SysAdmin) || flags & CLONE_NEWUSER != 0;
    let errno = if is_allowed { Errno::EINVAL } else { Errno::EPERM };
    Error::new(errno, "no namespaces or cgroups")
}

/// RLIMIT_NPROC, which does not bind root and those it trusts.
fn check_count(parent: &Thread) -> Result<()> {
    let who = parent.credentials();
    let limit = parent.process().limit(Resource::NPROC).soft;
    if who.user.real == 0 || who.has(Capability::SysResource) || who.has(Capability::SysAdmin) {
        return Ok(());
    }
    match (tree::threads_of(who.user.real) as u64) < limit {
        true => Ok(()),
        false => err(Errno::EAGAIN, "RLIMIT_NPROC"),
    }
}

const USER_ADDRESS_END: u64 = 1 << 47;

fn clone_reserved(parent: &Arc<Thread>, context: &mut UserContext, request: &Request) -> Result<u32> {
    let tid = match request.set_tid {
        Some(tid) => tree::claim_id(tid)?,
        None => tree::new_id()?,
    };
    let process = match request.has(CLONE_THREAD) {
        true => parent.process().clone(),
        false => new_process(parent, tid, request),
    };
    let state = Arc::new(ThreadState::new(tid, process.clone(), parent.to_inherit()));
    if request.has(CLONE_CHILD_CLEARTID) {
        state.clear_tid.store(request.child_tid.0, Ordering::Relaxed);
    }
    if !request.has(CLONE_VM) || request.has(CLONE_VFORK) {
        *state.signals().alt_stack.lock() = *parent.signals().alt_stack.lock();
    }
    let gate = request.has(CLONE_VFORK).then(|| Arc::new(VforkGate::default()));
    *state.vfork.lock() = gate.clone();

    let space = match request.has(CLONE_VM) {
        true => parent.space().clone(),
        false => parent.space().fork()?,
    };
    if !request.has(CLONE_VM) && request.has(CLONE_CHILD_SETTID) {
        state.set_tid.store(request.child_tid.0, Ordering::Relaxed);
    }
    let child = Thread::new(
        state,
        space,
        files_for(parent, request),
        fs_for(parent, request),
    );
    let mut child_context = context.duplicate();
    child_context.regs.rax = 0;
    if request.stack != 0 {
        child_context.regs.rsp = request.stack;
    }
    if request.has(CLONE_SETTLS) {
        child_context.set_fs_base(request.tls);
    }
    write_ids(request, tid)?;
    if request.has(CLONE_PIDFD) {
        let fd = super::pidfd::open(parent, process.clone(), super::pidfd::Blocking::Yes)?;
        user::write(request.pidfd, &fd)?;
    }
    enter_tree(parent, &process, &child, request)?;
    if let Err(error) = user_loop::start(child.clone(), child_context) {
        leave_tree(&process, &child);
        return Err(error);
    }
    if let Some(gate) = gate {
        wait_for_vfork(parent, &gate);
    }
    Ok(tid)
}

fn new_process(parent: &Thread, pid: u32, request: &Request) -> Arc<Process> {
    let old = parent.process();
    let dispositions = old.signals().dispositions();
    let dispositions = if request.has(CLONE_SIGHAND) {
        dispositions
    } else if request.has(CLONE_CLEAR_SIGHAND) {
        Arc::new(dispositions.without_handlers())
    } else {
        Arc::new(Dispositions::duplicate(&dispositions))
    };
    let process = Process::new(pid, dispositions, old.limits());
    // A sibling ends as its maker does: the parent of both did not ask for anything else.
    let exit_signal = match request.has(CLONE_PARENT) {
        true => old.exit_signal.load(Ordering::Relaxed),
        false => request.exit_signal,
    };
    process.exit_signal.store(exit_signal, Ordering::Relaxed);
    process.pgid.store(old.pgid(), Ordering::Relaxed);
    process.sid.store(old.sid(), Ordering::Relaxed);
    process.set_program(old.program());
    process.set_dumpable(old.is_dumpable());
    process.oom_score_adj.store(old.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
    process.mdwe.store(old.mdwe.load(Ordering::Relaxed), Ordering::Relaxed);
    process.no_huge_pages.store(old.no_huge_pages.load(Ordering::Relaxed), Ordering::Relaxed);
    process.personality.store(old.personality.load(Ordering::Relaxed), Ordering::Relaxed);
    if request.has(CLONE_VM) {
        // Both lose the right to clear it: nobody counts who lives in a space.
        process.set_shares_space(true);
        if !request.has(CLONE_VFORK) {
            old.set_shares_space(true);
        }
    }
    Arc::new(process)
}

fn files_for(parent: &Thread, request: &Request) -> Arc<FileTable> {
    match request.has(CLONE_FILES) {
        true => parent.files().clone(),
        false => Arc::new(parent.files().copy()),
    }
}

fn fs_for(parent: &Thread, request: &Request) -> Arc<FsContext> {
    match request.has(CLONE_FS) {
        true => parent.fs().clone(),
        false => Arc::new(parent.fs().copy()),
    }
}

/// The new id, for the parent and a child that shares its memory. What Linux ignores is ignored: a child that
/// can't be told its id runs all the same.
fn write_ids(request: &Request, tid: u32) -> Result<()> {
    if request.has(CLONE_PARENT_SETTID) {
        user::write(request.parent_tid, &tid)?;
    }
    if request.has(CLONE_VM) && request.has(CLONE_CHILD_SETTID) {
        let _ = user::write(request.child_tid, &tid);
    }
    Ok(())
}

fn enter_tree(
    parent: &Thread,
    process: &Arc<Process>,
    child: &Arc<Thread>,
    request: &Request,
) -> Result<()> {
    process.add_thread(child.clone())?;
    if request.has(CLONE_THREAD) {
        tree::insert_thread(child.clone());
        return Ok(());
    }
    let parent = parent.process();
    let real_parent = if request.has(CLONE_PARENT) { parent.ppid() } else { parent.pid() };
    tree::insert_process(process.clone(), child.clone(), real_parent);
    if process.limit(Resource::CPU) != Limit::NONE {
        cpu_limit::watch(process);
    }
    Ok(())
}

fn leave_tree(process: &Process, child: &Thread) {
    tree::remove_thread(child.tid());
    process.remove_thread(child, 0);
    if process.pid() == child.tid() {
        tree::reap(process.pid());
    }
}

/// Until the child no longer uses the caller's memory. Only the caller's own end comes before.
fn wait_for_vfork(parent: &Thread, gate: &VforkGate) {
    loop {
        let waited = gate.waiters.wait_until(None, true, || gate.is_open().then_some(()));
        if waited.is_ok() || parent.is_dying() {
            break;
        }
        // Other signals wait: the way back to user code looks again.
        run::clear_interrupt();
    }
    parent.set_work(super::Work::SIGNAL);
}

/// Gives the thread descriptors (CLONE_FILES) and directories (CLONE_FS) of its own, when the system call
/// returns.
pub fn unshare(thread: &Arc<Thread>, flags: u64) {
    let files = match flags & CLONE_FILES != 0 && Arc::strong_count(thread.files()) > 1 {
        true => Arc::new(thread.files().copy()),
        false => thread.files().clone(),
    };
    let fs = match flags & CLONE_FS != 0 && Arc::strong_count(thread.fs()) > 1 {
        true => Arc::new(thread.fs().copy()),
        false => thread.fs().clone(),
    };
    go_on_with(thread, files, fs);
}

/// Gives the thread the descriptors `files` when the system call returns.
pub fn use_files(thread: &Arc<Thread>, files: Arc<FileTable>) {
    go_on_with(thread, files, thread.fs().clone());
}

fn go_on_with(thread: &Arc<Thread>, files: Arc<FileTable>, fs: Arc<FsContext>) {
    let successor = Thread::new(thread.state().clone(), thread.space().clone(), files, fs);
    thread.process().replace_thread(&successor);
    tree::insert_thread(successor.clone());
    thread.replace_with(successor);
}

/// The exit signal in clone's flags; EINVAL for what is no signal.
pub fn exit_signal(number: u64) -> Result<i32> {
    match i32::try_from(number) {
        Ok(0) => Ok(0),
        Ok(number) if Signal::new(number).is_some() => Ok(number),
        _ => err(Errno::EINVAL, "no such exit signal"),
    }
}

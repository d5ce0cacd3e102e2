//! Replacing the program of a process (execve(2)).
//!
//! Order: find and check the new program (most failures end here, with nothing changed); end the other
//! threads; fill a fresh address space; then give up the old one. A program that must be at fixed
//! addresses may find them taken by the one it replaces: only then the old memory goes first, and a
//! failure after that kills the process, as on Linux.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use occlum_abi::Errno;
use occlum_enclave::rand;
use occlum_enclave::user::{Regs, UserContext};
use spin::Once;

use super::credentials::Ids;
use super::group::Program;
use super::load::{Image, Loaded};
use super::stack::{self, Contents, Facts, Layout};
use super::{Credentials, Process, Resource, Thread, exit, tree};
use crate::error::{Error, Result, err};
use crate::mm::{self, AddressSpace, Backing, FileIdentity, MapRequest, Prot};
use crate::signal::state::AltStack;
use crate::signal::{Signal, frame};
use crate::vfs::access::{S_ISGID, S_ISUID};
use crate::vfs::mount::MS_NOSUID;
use crate::vfs::{Path, mounts};

/// What to execute.
pub struct Request {
    pub path: Path,
    /// As the caller named it: AT_EXECFN, and what scripts get.
    pub name: Vec<u8>,
    pub args: Vec<Vec<u8>>,
    pub env: Vec<Vec<u8>>,
}

/// A program in memory, ready to run.
pub(super) struct Prepared {
    pub space: Arc<AddressSpace>,
    pub start: usize,
    pub sp: usize,
    pub program: Program,
}

static HWCAP: Once<[u64; 2]> = Once::new();

/// Sets AT_HWCAP and AT_HWCAP2 for all programs.
pub fn set_hwcap(hwcap: [u64; 2]) {
    HWCAP.call_once(|| hwcap);
}

/// Makes the thread's process run another program when the system call returns.
pub fn exec(thread: &Arc<Thread>, context: &mut UserContext, request: Request) -> Result<()> {
    let process = thread.process();
    let stack_limit = process.limit(Resource::STACK).soft;
    let credentials = thread.credentials();
    let identity = credentials.identity();
    let Request { path, name, args, env } = request;
    let image = Image::find(thread.fs(), &identity, path, &name, args)?;
    stack::check_size(&image.args, &env, stack_limit)?;
    let credentials = new_credentials(thread, &credentials, &image);

    end_other_threads(thread)?;
    let is_cleared = image.is_fixed() && clear_if_own(thread);
    match prepare(process, &image, &name, &env, &credentials) {
        Ok(prepared) => {
            commit(thread, context, prepared, credentials, &name);
            Ok(())
        }
        Err(error) if is_cleared => {
            process.begin_exit(exit::killed(Signal::SEGV));
            Err(error)
        }
        Err(error) => {
            process.end_exec();
            Err(error)
        }
    }
}

/// Fills a fresh space with the program and its stack.
pub(super) fn prepare(
    process: &Process,
    image: &Image,
    name: &[u8],
    env: &[Vec<u8>],
    credentials: &Credentials,
) -> Result<Prepared> {
    let attr = image.attr();
    let program = FileIdentity { dev: attr.dev, ino: attr.ino };
    let space = match image.fixed_range()? {
        None => AddressSpace::new(program)?,
        Some(range) => AddressSpace::for_fixed(program, range)?,
    };
    space.set_limits(process.limits().memory());
    let (loaded, layout) = mm::within(&space, || -> Result<(Loaded, Layout)> {
        let loaded = image.map(&space)?;
        let layout = fill_stack(process, &space, image, &loaded, name, env, credentials)?;
        space.close_standing()?;
        Ok((loaded, layout))
    })?;
    let path = image.path().map(|path| path.name(&mounts::root()).text.to_vec());
    let program = Program {
        path: Arc::new(path.unwrap_or_default()),
        command: Arc::new(command(&image.args)),
        args: layout.args,
        env: layout.env,
        auxv: Arc::new(layout.auxv),
        stack: layout.sp,
        running: Some(image.running().clone()),
    };
    Ok(Prepared { space, start: loaded.start, sp: layout.sp, program })
}

/// The arguments as they are shown to people, cut to what they look at.
fn command(args: &[Vec<u8>]) -> Vec<u8> {
    const MAX: usize = 512;
    let mut text = Vec::new();
    for arg in args {
        text.extend(arg.iter().take(MAX - text.len().min(MAX)));
        text.push(0);
        if text.len() >= MAX {
            break;
        }
    }
    text
}

/// Largest stack that is reserved: RLIMIT_STACK may be infinite.
const STACK_MAX: u64 = 1 << 30;
const STACK_MIN: u64 = 256 * 1024;

fn fill_stack(
    process: &Process,
    space: &AddressSpace,
    image: &Image,
    loaded: &Loaded,
    name: &[u8],
    env: &[Vec<u8>],
    credentials: &Credentials,
) -> Result<Layout> {
    let limit = process.limit(Resource::STACK).soft.clamp(STACK_MIN, STACK_MAX);
    let size = (limit as usize).next_multiple_of(crate::mm::PAGE_SIZE);
    let executable = if loaded.wants_executable_stack { Prot::EXEC } else { Prot::NONE };
    let base = space.map(MapRequest {
        backing: Backing::Stack,
        grows_down: true,
        is_stack: true,
        is_unreserved: true,
        ..MapRequest::anonymous(size, Prot::READ_WRITE.union(executable))
    })?;
    let mut random = [0; 16];
    random[..8].copy_from_slice(&rand::hardware_u64().to_le_bytes());
    random[8..].copy_from_slice(&rand::hardware_u64().to_le_bytes());
    let contents = Contents { args: &image.args, env, path: name, random, facts: facts(loaded, credentials) };
    stack::write(base + size, &contents)
}

fn facts(loaded: &Loaded, credentials: &Credentials) -> Facts {
    let (user, group) = (credentials.user, credentials.group);
    Facts {
        headers: loaded.headers,
        header_count: loaded.header_count,
        base: loaded.base,
        entry: loaded.entry,
        uid: user.real,
        euid: user.effective,
        gid: group.real,
        egid: group.effective,
        is_secure: user.real != user.effective || group.real != group.effective,
        hwcap: HWCAP.get().copied().unwrap_or_default(),
        vdso: mm::vdso::base().unwrap_or(0),
        min_signal_stack: frame::max_size(),
    }
}

fn new_credentials(thread: &Thread, old: &Credentials, image: &Image) -> Credentials {
    let attr = image.attr();
    let mut new = old.clone();
    let is_nosuid = image.path().is_some_and(|path| path.mount.has(MS_NOSUID));
    if !is_nosuid && !thread.no_new_privs.load(Ordering::Relaxed) {
        if attr.mode & S_ISUID != 0 {
            new = new.with_user(Ids { effective: attr.uid, ..new.user });
        }
        if attr.mode & S_ISGID != 0 {
            new.group.effective = attr.gid;
        }
    }
    new.after_exec()
}

/// Ends all other threads of the process and waits until they are gone.
fn end_other_threads(thread: &Arc<Thread>) -> Result<()> {
    let process = thread.process();
    process.begin_exec(thread)?;
    let wait = || (process.thread_count() == 1 || process.is_ending()).then_some(());
    // Not interruptible: it takes no longer than the others need to leave the kernel.
    let gone = process.thread_gone.wait_until(None, false, wait);
    if gone.is_err() || process.is_ending() {
        process.end_exec();
        return err(Errno::EINTR, "the process is ending");
    }
    Ok(())
}

/// Drops the old program's memory, if no other process (a vfork parent) lives in it.
fn clear_if_own(thread: &Thread) -> bool {
    if thread.process().shares_space() {
        return false;
    }
    exit::release_user_memory(thread);
    thread.space().unmap_everything().is_ok()
}

/// The point of no return: the thread goes on in the new program, alone, as the leader.
fn commit(
    thread: &Arc<Thread>,
    context: &mut UserContext,
    prepared: Prepared,
    credentials: Credentials,
    name: &[u8],
) {
    let process = thread.process();
    exit::release_user_memory(thread);
    let old_tid = thread.tid();
    if old_tid != process.pid() {
        tree::remove_thread(old_tid);
        thread.set_tid(process.pid());
    }
    reset_state(thread, credentials, name);
    process.set_program(prepared.program);
    process.set_shares_space(false);
    process.has_executed.store(true, Ordering::Relaxed);

    let files = match Arc::strong_count(thread.files()) {
        1 => thread.files().clone(),
        _ => Arc::new(thread.files().copy()),
    };
    files.close_on_exec();
    let successor = Thread::new(thread.state().clone(), prepared.space, files, thread.fs().clone());
    process.replace_thread(&successor);
    tree::insert_thread(successor.clone());
    process.end_exec();
    enter(context, prepared.start, prepared.sp);
    thread.replace_with(successor);
}

fn reset_state(thread: &Thread, credentials: Credentials, name: &[u8]) {
    let process = thread.process();
    let changes_user = credentials.user != thread.credentials().user;
    if changes_user {
        thread.parent_death_signal.store(0, Ordering::Relaxed);
    }
    process.set_dumpable(!changes_user);
    process.exit_signal.store(Signal::CHLD.number(), Ordering::Relaxed);
    thread.set_credentials(credentials);
    thread.set_name(base_name(name));
    let signals = process.signals();
    signals.set_dispositions(Arc::new(signals.dispositions().after_exec()));
    *thread.signals().alt_stack.lock() = AltStack::default();
    process.timers().cancel_posix();
}

/// The registers a program starts with.
pub(super) fn enter(context: &mut UserContext, start: usize, sp: usize) {
    context.reset_vector_state();
    context.set_fs_base(0);
    context.regs = Regs { rip: start as u64, rsp: sp as u64, rflags: 0x202, ..Regs::default() };
}

/// The last component of a path.
pub(super) fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// E2BIG, for lists the kernel refuses to read.
pub fn too_many_args() -> Error {
    Error::new(Errno::E2BIG, "argument list too long")
}

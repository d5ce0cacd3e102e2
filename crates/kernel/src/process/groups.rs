//! Process groups and sessions (setpgid(2), setsid(2)).

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{Process, programs, tree};
use crate::error::{Errno, Result, err};
use crate::signal::{deliver, SigInfo, Signal, send_to_process};

/// setpgid: moves `target`, the caller or one of its children, into the group `pgid` (0: its own).
pub fn set_group(caller: &Process, target: &Process, pgid: u32) -> Result<()> {
    let pgid = if pgid == 0 { target.pid() } else { pgid };
    if target.pid() != caller.pid() {
        if target.ppid() != caller.pid() {
            return err(Errno::ESRCH, "not a child");
        }
        if target.sid() != caller.sid() {
            return err(Errno::EPERM, "a child in another session");
        }
        if target.has_executed.load(Ordering::Relaxed) {
            return err(Errno::EACCES, "the child has executed a program");
        }
    }
    if target.sid() == target.pid() {
        return err(Errno::EPERM, "a session leader");
    }
    if pgid != target.pid() && !tree::is_group_in_session(pgid, caller.sid()) {
        return err(Errno::EPERM, "no such group in the session");
    }
    target.pgid.store(pgid, Ordering::Relaxed);
    Ok(())
}

/// setsid: a new session with the caller as its leader; gives its id.
pub fn new_session(caller: &Process) -> Result<u32> {
    let pid = caller.pid();
    if caller.pgid() == pid || !tree::group(pid).is_empty() {
        return err(Errno::EPERM, "a group leader");
    }
    caller.sid.store(pid, Ordering::Relaxed);
    caller.pgid.store(pid, Ordering::Relaxed);
    Ok(pid)
}

/// Whether nobody outside the group but in its session is parent of one of its members: then nobody could
/// continue it, so it is not stopped by the terminal. `ending` counts as gone. The group of a program that the
/// host started on a terminal has the host's shell to continue it.
pub fn is_orphaned(pgid: u32, ending: Option<u32>) -> bool {
    let has_host_shell = ending != Some(pgid) && programs::has_terminal(pgid);
    !has_host_shell && !tree::has_outside_parent(pgid, ending)
}

/// The groups that the end of a process may orphan: its own, and its children's.
pub(super) struct Watched {
    groups: Vec<u32>,
}

impl Watched {
    /// Those that are not orphaned yet.
    pub fn before_end(process: &Process) -> Watched {
        if !deliver::has_ever_stopped() {
            return Watched { groups: Vec::new() };
        }
        let mut groups = tree::child_groups(process.pid());
        groups.push(process.pgid());
        groups.sort_unstable();
        groups.dedup();
        groups.retain(|&pgid| !is_orphaned(pgid, None));
        Watched { groups }
    }

    /// SIGHUP and SIGCONT for those that are orphaned now, if a member is stopped (POSIX, exit).
    pub fn tell_orphaned(self) {
        for pgid in self.groups.into_iter().filter(|&pgid| is_orphaned(pgid, None)) {
            let members = tree::group(pgid);
            if !members.iter().any(|member| member.signals().lock().stop.is_some()) {
                continue;
            }
            for member in members {
                // Classic signals are never refused.
                let _ = send_to_process(&member, Signal::HUP, SigInfo::kernel(Signal::HUP));
                let _ = send_to_process(&member, Signal::CONT, SigInfo::kernel(Signal::CONT));
            }
        }
    }
}

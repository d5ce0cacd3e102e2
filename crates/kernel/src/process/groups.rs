//! Process groups and sessions (setpgid(2), setsid(2)).

use core::sync::atomic::Ordering;

use super::{Process, tree};
use crate::error::{Errno, Result, err};

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

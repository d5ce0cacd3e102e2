//! Job control: which processes a terminal's signals reach, and who may use it.

use alloc::sync::Arc;

use super::pair;
use crate::error::{self, Errno, Result, err};
use crate::fs::console;
use crate::process::{self, Process, Thread, tree};
use crate::signal::{self, SigInfo, Signal};
use crate::user::{self, UserAddr};

/// Whose controlling terminal something is: a session, and its foreground group; 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ownership {
    pub session: u32,
    pub foreground: u32,
}

/// What can be a controlling terminal.
pub trait Owned {
    /// Acts on the ownership under its lock.
    fn ownership<R>(&self, act: impl FnOnce(&mut Ownership) -> R) -> R;
}

fn has_terminal(session: u32) -> bool {
    pair::of_session(session).is_some() || console::of_session(session).is_some()
}

/// Sends a signal from the terminal to a process group; 0 is nobody.
pub fn signal_group(group: u32, signal: Signal) {
    if group == 0 {
        return;
    }
    for process in tree::group(group) {
        // Classic signals are never refused.
        let _ = signal::send_to_process(&process, signal, SigInfo::kernel(signal));
    }
}

/// Whether the calling process is of the terminal's session, but not in its foreground.
pub fn is_background(terminal: &impl Owned) -> bool {
    let Ownership { session, foreground } = terminal.ownership(|owner| *owner);
    let Some(thread) = process::current() else { return false };
    session == thread.process().sid() && foreground != 0 && foreground != thread.process().pgid()
}

/// Stops a background process that uses its controlling terminal: SIGTTIN for reading, SIGTTOU for
/// writing and changing. The call runs again when the process continues.
pub fn check_foreground(terminal: &impl Owned, signal: Signal) -> Result<()> {
    let Some(thread) = process::current() else { return Ok(()) };
    if !is_background(terminal) {
        return Ok(());
    }
    let process = thread.process();
    let action = process.signals().dispositions().get(signal);
    let is_unwanted = thread.signals().blocked().contains(signal) || action.ignores(signal) && !stops(&action);
    match (is_unwanted, signal) {
        (true, Signal::TTOU) => Ok(()),
        (true, _) => err(Errno::EIO, "a background process that ignores SIGTTIN reads"),
        (false, _) => {
            signal_group(process.pgid(), signal);
            Err(error::interrupted())
        }
    }
}

/// The default action of SIGTTIN and SIGTTOU is to stop, which is not ignoring.
fn stops(action: &signal::Action) -> bool {
    action.handler != signal::action::SIG_IGN
}

/// A session leader without terminal that opens one gets it as its controlling terminal.
pub fn adopt_at_open(terminal: &impl Owned) {
    let Some(thread) = process::current() else { return };
    let process = thread.process();
    if process.sid() == process.pid() && !has_terminal(process.sid()) {
        adopt(terminal, process);
    }
}

fn adopt(terminal: &impl Owned, process: &Process) {
    terminal.ownership(|owner| {
        if owner.session == 0 {
            *owner = Ownership { session: process.sid(), foreground: process.pgid() };
        }
    });
}

/// TIOCSCTTY. EPERM unless the caller leads a session without terminal and nobody else has this one.
pub fn set_controlling(terminal: &impl Owned) -> Result<usize> {
    let thread = caller()?;
    let process = thread.process();
    let session = terminal.ownership(|owner| owner.session);
    if session == process.sid() {
        return Ok(0);
    }
    if process.sid() != process.pid() || has_terminal(process.sid()) {
        return err(Errno::EPERM, "not a session leader without terminal");
    }
    if session != 0 && !tree::is_zombie(session) {
        return err(Errno::EPERM, "the terminal of another session");
    }
    terminal.ownership(|owner| owner.session = 0);
    adopt(terminal, process);
    Ok(0)
}

/// A session's leader has ended: its terminal is free, and the foreground group hears of it.
pub fn session_ended(session: u32) {
    let Some(pair) = pair::of_session(session) else { return };
    let group = pair.with(|state| {
        state.ownership.session = 0;
        core::mem::take(&mut state.ownership.foreground)
    });
    signal_group(group, Signal::HUP);
    signal_group(group, Signal::CONT);
}

/// TIOCNOTTY.
pub fn give_up(terminal: &impl Owned) -> Result<usize> {
    let thread = caller()?;
    let process = thread.process();
    let Ownership { session, foreground: group } = terminal.ownership(|owner| *owner);
    if session != process.sid() {
        return err(Errno::ENOTTY, "not the controlling terminal");
    }
    if process.pid() == session {
        terminal.ownership(core::mem::take);
        signal_group(group, Signal::HUP);
        signal_group(group, Signal::CONT);
    }
    Ok(0)
}

/// The terminal is gone: the session that had it learns it, and the foreground group.
pub fn hang_up(terminal: &impl Owned) {
    let Ownership { session, foreground } = terminal.ownership(core::mem::take);
    signal_group(session, Signal::HUP);
    signal_group(session, Signal::CONT);
    if foreground != session {
        signal_group(foreground, Signal::HUP);
        signal_group(foreground, Signal::CONT);
    }
}

/// TIOCGPGRP, TIOCGSID: of the session whose terminal it is.
pub fn tell(terminal: &impl Owned, value: u32, arg: UserAddr, side: Side) -> Result<usize> {
    let session = terminal.ownership(|owner| owner.session);
    if side == Side::Slave && (session == 0 || session != caller()?.process().sid()) {
        return err(Errno::ENOTTY, "not the controlling terminal");
    }
    user::write(arg, &value)?;
    Ok(0)
}

/// TIOCSPGRP.
pub fn set_foreground(terminal: &impl Owned, arg: UserAddr) -> Result<usize> {
    let thread = caller()?;
    let sid = thread.process().sid();
    if terminal.ownership(|owner| owner.session) != sid {
        return err(Errno::ENOTTY, "not the controlling terminal");
    }
    check_foreground(terminal, Signal::TTOU)?;
    let group = user::read::<i32>(arg)?;
    let Ok(group) = u32::try_from(group) else { return err(Errno::EINVAL, "negative group") };
    if tree::group(group).is_empty() {
        return err(Errno::ESRCH, "no such group");
    }
    if !tree::is_group_in_session(group, sid) {
        return err(Errno::EPERM, "a group of another session");
    }
    terminal.ownership(|owner| owner.foreground = group);
    Ok(0)
}

/// Which end of a pseudo-terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Master,
    Slave,
}

fn caller() -> Result<Arc<Thread>> {
    process::current().ok_or(crate::error::Error::new(Errno::ENOTTY, "no calling thread"))
}

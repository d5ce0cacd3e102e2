//! Job control: which processes a terminal's signals reach, and who may use it.

use alloc::sync::Arc;

use super::pair::{self, Pair};
use crate::error::{self, Errno, Result, err};
use crate::process::{self, Process, Thread, tree};
use crate::signal::{self, SigInfo, Signal};
use crate::user::{self, UserAddr};

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

/// Stops a background process that uses its controlling terminal: SIGTTIN for reading, SIGTTOU for
/// writing and changing. The call runs again when the process continues.
pub fn check_foreground(pair: &Pair, signal: Signal) -> Result<()> {
    let Some(thread) = process::current() else { return Ok(()) };
    let process = thread.process();
    let (session, foreground) = pair.with(|state| (state.session, state.foreground));
    if session != process.sid() || foreground == 0 || foreground == process.pgid() {
        return Ok(());
    }
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
pub fn adopt_at_open(pair: &Arc<Pair>) {
    let Some(thread) = process::current() else { return };
    let process = thread.process();
    if process.sid() == process.pid() && pair::of_session(process.sid()).is_none() {
        adopt(pair, process);
    }
}

fn adopt(pair: &Pair, process: &Process) {
    pair.with(|state| {
        if state.session == 0 {
            state.session = process.sid();
            state.foreground = process.pgid();
        }
    });
}

/// TIOCSCTTY. EPERM unless the caller leads a session without terminal and nobody else has this one.
pub fn set_controlling(pair: &Pair) -> Result<usize> {
    let thread = caller()?;
    let process = thread.process();
    let session = pair.with(|state| state.session);
    if session == process.sid() {
        return Ok(0);
    }
    if process.sid() != process.pid() || pair::of_session(process.sid()).is_some() {
        return err(Errno::EPERM, "not a session leader without terminal");
    }
    if session != 0 && !tree::is_zombie(session) {
        return err(Errno::EPERM, "the terminal of another session");
    }
    pair.with(|state| state.session = 0);
    adopt(pair, process);
    Ok(0)
}

/// TIOCNOTTY.
pub fn give_up(pair: &Pair) -> Result<usize> {
    let thread = caller()?;
    let process = thread.process();
    let (session, group) = pair.with(|state| (state.session, state.foreground));
    if session != process.sid() {
        return err(Errno::ENOTTY, "not the controlling terminal");
    }
    if process.pid() == session {
        pair.with(|state| (state.session, state.foreground) = (0, 0));
        signal_group(group, Signal::HUP);
        signal_group(group, Signal::CONT);
    }
    Ok(0)
}

/// TIOCGPGRP, TIOCGSID: of the session whose terminal it is.
pub fn tell(pair: &Pair, value: u32, arg: UserAddr, side: Side) -> Result<usize> {
    let session = pair.with(|state| state.session);
    if side == Side::Slave && (session == 0 || session != caller()?.process().sid()) {
        return err(Errno::ENOTTY, "not the controlling terminal");
    }
    user::write(arg, &value)?;
    Ok(0)
}

/// TIOCSPGRP.
pub fn set_foreground(pair: &Pair, arg: UserAddr) -> Result<usize> {
    let thread = caller()?;
    let sid = thread.process().sid();
    if pair.with(|state| state.session) != sid {
        return err(Errno::ENOTTY, "not the controlling terminal");
    }
    check_foreground(pair, Signal::TTOU)?;
    let group = user::read::<i32>(arg)?;
    let Ok(group) = u32::try_from(group) else { return err(Errno::EINVAL, "negative group") };
    if tree::group(group).is_empty() {
        return err(Errno::ESRCH, "no such group");
    }
    if !tree::is_group_in_session(group, sid) {
        return err(Errno::EPERM, "a group of another session");
    }
    pair.with(|state| state.foreground = group);
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

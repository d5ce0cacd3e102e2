//! Waiting for children: what wait4(2) and waitid(2) share.

use core::sync::atomic::Ordering;

use occlum_abi::Errno;

use super::tree::{self, Node, Report};
use super::usage::Usage;
use super::{ThreadState, exit};
use crate::error::{self, Result, err};
use crate::signal::info::{CLD_CONTINUED, CLD_STOPPED};
use crate::signal::Signal;

pub const WNOHANG: u32 = 1;
pub const WUNTRACED: u32 = 2;
pub const WSTOPPED: u32 = 2;
pub const WEXITED: u32 = 4;
pub const WCONTINUED: u32 = 8;
pub const WNOWAIT: u32 = 0x0100_0000;
pub const WNOTHREAD: u32 = 0x2000_0000;
pub const WALL: u32 = 0x4000_0000;
pub const WCLONE: u32 = 0x8000_0000;

/// Which children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Any,
    Process(u32),
    Group(u32),
}

/// What a child did.
#[derive(Clone, Copy, Debug)]
pub struct ChildEvent {
    pub pid: u32,
    pub uid: u32,
    /// As wait4 stores it.
    pub status: u32,
    /// `CLD_*`, and exit code or signal, as waitid stores them.
    pub code: i32,
    pub detail: i32,
    pub usage: Usage,
}

/// Waits for news of the children `which`; `None` if there are none yet and `options` has WNOHANG.
pub fn wait(thread: &ThreadState, which: Which, options: u32) -> Result<Option<ChildEvent>> {
    let process = thread.process();
    let look = || match look_for(process.pid(), which, options) {
        Search::Found(event) => Some(Ok(Some(event))),
        Search::NoChild => Some(err(Errno::ECHILD, "no such child")),
        Search::NothingYet if options & WNOHANG != 0 => Some(Ok(None)),
        Search::NothingYet => None,
    };
    let found = process.child_change.wait_until(None, true, look);
    let event = found.map_err(|_| error::interrupted())??;
    if let Some(event) = &event
        && event.code != CLD_STOPPED
        && event.code != CLD_CONTINUED
        && options & WNOWAIT == 0
    {
        collect(process, event);
    }
    Ok(event)
}

enum Search {
    Found(ChildEvent),
    NothingYet,
    NoChild,
}

fn look_for(parent: u32, which: Which, options: u32) -> Search {
    let mut has_child = false;
    let found = tree::find_child(parent, |node| {
        if !is_wanted(node, which, options) {
            return None;
        }
        has_child = true;
        take_event(node, options)
    });
    match found {
        Some(event) => Search::Found(event),
        None if has_child => Search::NothingYet,
        None => Search::NoChild,
    }
}

fn is_wanted(node: &Node, which: Which, options: u32) -> bool {
    let process = &node.process;
    let is_named = match which {
        Which::Any => true,
        Which::Process(pid) => process.pid() == pid,
        Which::Group(pgid) => process.pgid() == pgid,
    };
    let is_clone = process.exit_signal.load(Ordering::Relaxed) != Signal::CHLD.number();
    is_named && (options & WALL != 0 || is_clone == (options & WCLONE != 0))
}

/// What the child has to tell. Taken from it, so that only one waiter hears of it: a zombie's status
/// is left in place by WNOWAIT only.
fn take_event(node: &mut Node, options: u32) -> Option<ChildEvent> {
    if let Some(status) = node.zombie {
        if options & WEXITED == 0 || node.is_collected {
            return None;
        }
        node.is_collected = options & WNOWAIT == 0;
        let (code, detail) = exit::describe(status);
        return Some(event(node, status, code, detail));
    }
    let report = node.report?;
    let (wanted, status, code, detail) = match report {
        Report::Stopped(signal) => {
            (WSTOPPED, (signal as u32) << 8 | 0x7f, CLD_STOPPED, signal)
        }
        Report::Continued => (WCONTINUED, 0xffff, CLD_CONTINUED, Signal::CONT.number()),
    };
    if options & wanted == 0 {
        return None;
    }
    if options & WNOWAIT == 0 {
        node.report = None;
    }
    Some(event(node, status, code, detail))
}

fn event(node: &Node, status: u32, code: i32, detail: i32) -> ChildEvent {
    let mut usage = node.process.usage();
    usage.add(&node.process.children_usage());
    ChildEvent { pid: node.process.pid(), uid: node.process.real_uid(), status, code, detail, usage }
}

/// The child is gone for good.
fn collect(parent: &super::Process, event: &ChildEvent) {
    parent.add_children_usage(&event.usage);
    tree::reap(event.pid);
}

//! Programs that the host asked to start: who is told what becomes of them.
//!
//! The first program of `occlum run` is one of them, under the number `FIRST_PROGRAM`: with its end the
//! instance ends.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use occlum_abi::control::{Answer, FIRST_PROGRAM};
use occlum_enclave::{HeapUsage, host, log};

use super::tree;
use crate::fs::console::Console;
use crate::fs::pty::job::{self, Owned};
use crate::mm;
use crate::outside;
use crate::sched::SpinLock;
use crate::signal::info::{CLD_CONTINUED, CLD_STOPPED};
use crate::vfs::mounts;

/// Where a program came from.
#[derive(Clone)]
pub struct Program {
    /// Of the request to start it.
    pub number: u64,
    pub terminal: Option<Arc<Console>>,
}

/// By process id.
static PROGRAMS: SpinLock<BTreeMap<u32, Program>> = SpinLock::new(BTreeMap::new());

/// Enters a program that is about to run, and gives it its terminal.
pub(super) fn add(pid: u32, program: Program) {
    if let Some(terminal) = &program.terminal {
        terminal.give_to(pid);
    }
    PROGRAMS.lock().insert(pid, program);
}

/// The process a request started, if it has not ended.
pub fn find(number: u64) -> Option<u32> {
    PROGRAMS.lock().iter().find(|(_, program)| program.number == number).map(|(&pid, _)| pid)
}

/// The foreground process group of the terminal of the program `pid`; its own group without terminal.
pub fn foreground(pid: u32) -> u32 {
    let terminal = PROGRAMS.lock().get(&pid).and_then(|program| program.terminal.clone());
    let group = terminal.map_or(0, |terminal| terminal.ownership(|owner| owner.foreground));
    match (group, tree::find_process(pid)) {
        (0, Some(process)) => process.pgid(),
        (group, _) => group,
    }
}

/// Whether the host started the process on a terminal.
pub fn has_terminal(pid: u32) -> bool {
    PROGRAMS.lock().get(&pid).is_some_and(|program| program.terminal.is_some())
}

/// A process without parent has stopped or goes on; `detail` is the signal.
pub(super) fn changed(pid: u32, code: i32, detail: i32) {
    let Some(program) = PROGRAMS.lock().get(&pid).cloned() else { return };
    match code {
        CLD_STOPPED => {
            let everybody = is_everybody_stopped();
            outside::answer(program.number, &Answer::Stopped { signal: detail, everybody });
        }
        CLD_CONTINUED => outside::answer(program.number, &Answer::Continued),
        _ => {}
    }
}

fn is_everybody_stopped() -> bool {
    let living: Vec<_> = tree::processes().into_iter().filter(|process| process.thread_count() > 0).collect();
    living.iter().all(|process| process.signals().lock().stop.is_some())
}

/// A process has ended; does not return if it was the first program.
pub(super) fn ended(pid: u32, status: u32) {
    let Some(program) = PROGRAMS.lock().remove(&pid) else { return };
    if program.number == FIRST_PROGRAM {
        outside::report_unsupported();
        mounts::sync_all();
        tell_peaks();
        host::exit(status);
    }
    if let Some(terminal) = &program.terminal {
        job::hang_up(terminal.as_ref());
    }
    outside::answer(program.number, &Answer::Ended { status });
}

/// What the limits of the configuration could have been; `occlum config suggest` reads the line.
fn tell_peaks() {
    let user = mm::peak_usage();
    let heap = HeapUsage::now().size;
    let threads = tree::peak_thread_count();
    log!(Info, "peaks: user_space {user} kernel_heap {heap} threads {threads}");
}

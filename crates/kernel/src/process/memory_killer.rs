//! Out of memory: the process that has most of it is killed, so that the others, and the enclave, go on.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use occlum_enclave::log;

use super::{Process, Thread, exit, tree};
use crate::mm::Usage;
use crate::sched::{WaitQueue, timer};
use crate::signal::Signal;

/// /proc/PID/oom_score_adj of a process that is never chosen.
const NEVER: i32 = -1000;
/// How long the end of a process may take before the next one is chosen.
const PATIENCE_NS: u64 = 2_000_000_000;
const STEP_NS: u64 = 1_000_000;

/// A page that `thread` touched can't be had. Returns when memory was freed, or the thread's own process ends.
pub fn make_room(thread: &Thread) {
    let before = Usage::now().granted;
    if !is_any_ending_with_memory() {
        kill_largest(thread);
    }
    let deadline = timer::now_ns().saturating_add(PATIENCE_NS);
    let never = WaitQueue::new();
    while timer::now_ns() < deadline {
        if thread.is_dying() || Usage::now().granted < before {
            return;
        }
        // Only time ends this wait.
        let _ = never.wait_until(Some(timer::now_ns() + STEP_NS), false, || None::<()>);
    }
    log!(Error, "out of memory: process {} is killed, nobody else gave way", thread.process().pid());
    exit::kill_process(thread.process(), Signal::KILL);
}

fn is_any_ending_with_memory() -> bool {
    tree::processes().iter().any(|process| process.is_ending() && process.thread_count() > 0)
}

fn kill_largest(asking: &Thread) {
    let candidates = tree::processes();
    let scored = candidates.iter().filter_map(|process| Some((score(process)?, process)));
    let Some((size, victim)) = scored.max_by_key(|(score, _)| *score) else {
        return exit::kill_process(asking.process(), Signal::KILL);
    };
    log!(
        Error,
        "out of memory (resource_limits.user_space_size): process {}, with {} KiB, is killed",
        victim.pid(),
        size / 1024
    );
    exit::kill_process(victim, Signal::KILL);
}

/// Bytes, moved by oom_score_adj thousandths of all there is. `None`: not to be killed.
fn score(process: &Arc<Process>) -> Option<u64> {
    let adjust = process.oom_score_adj.load(Ordering::Relaxed);
    if adjust == NEVER || process.is_ending() {
        return None;
    }
    let resident = process.main_thread()?.space().resident() as u64;
    let whole = Usage::now().limit as u64 / 1000;
    Some(match adjust {
        0.. => resident.saturating_add(whole.saturating_mul(u64::from(adjust.unsigned_abs()))),
        _ => resident.saturating_sub(whole.saturating_mul(u64::from(adjust.unsigned_abs()))),
    })
}

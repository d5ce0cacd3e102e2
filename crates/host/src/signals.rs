//! Signals to this process are signals to the program inside: a thread takes them and asks the kernel to
//! deliver them. Those that were ignored at the start stay so, as a program would inherit it.
//!
//! A terminal's signals go to the terminal's foreground process group, which only the kernel knows.

use crate::instance::Instance;
use crate::requests::die_by;
use crate::sys::{self, SignalSet};
use occlum_abi::control::{Answer, FIRST_PROGRAM, Request, Target};
use rustix::process::{Signal, getpid, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const FORWARDED: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGTSTP,
    libc::SIGCONT,
    libc::SIGWINCH,
    libc::SIGUSR1,
    libc::SIGUSR2,
];
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

const FOREGROUND: Target = Target::Foreground(FIRST_PROGRAM);
const PROGRAM: Target = Target::Program(FIRST_PROGRAM);

/// Keeps the signals for [`forward`]. Before any other thread is started.
pub fn take_forwarded() -> SignalSet {
    sys::take_signals(&not_ignored(&FORWARDED))
}

/// Keeps the signals for [`end_instance`].
pub fn take_ending() -> SignalSet {
    sys::take_signals(&not_ignored(&ENDING))
}

fn not_ignored(signals: &[i32]) -> Vec<i32> {
    let wanted = |signal: &&i32| !sys::is_ignored(**signal).unwrap_or(false);
    signals.iter().filter(wanted).copied().collect()
}

/// Gives signals to the program, for as long as it runs.
pub fn forward(instance: &Arc<Instance>, signals: &SignalSet) -> ! {
    loop {
        let signal = signals.wait();
        let told = match signal {
            libc::SIGHUP | libc::SIGCONT => {
                let both = [FOREGROUND, PROGRAM].map(|to| send(instance, to, signal));
                both.contains(&true)
            }
            libc::SIGTERM | libc::SIGUSR1 | libc::SIGUSR2 => send(instance, PROGRAM, signal),
            _ => send(instance, FOREGROUND, signal),
        };
        match signal {
            _ if told => {}
            libc::SIGCONT | libc::SIGWINCH => {}
            libc::SIGTSTP => drop(kill_process(getpid(), Signal::STOP)),
            // There is no program, yet or any more.
            _ => {
                signals.release();
                die_by(signal)
            }
        }
    }
}

fn send(instance: &Instance, to: Target, signal: i32) -> bool {
    instance.ask_once(Request::Signal { to, signal }) == Some(Answer::Done)
}

/// Shuts the instance down when a signal comes; at the second it ends at once.
pub fn end_instance(instance: &Arc<Instance>, signals: &SignalSet, grace_ms: u64) -> ! {
    let is_ending = AtomicBool::new(false);
    loop {
        let signal = signals.wait();
        let is_second = is_ending.swap(true, Ordering::Relaxed);
        if is_second || instance.ask(Request::Shutdown { grace_ms }).is_err() {
            signals.release();
            die_by(signal);
        }
    }
}

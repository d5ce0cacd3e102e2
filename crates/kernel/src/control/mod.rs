//! Requests of the host: one task takes them as they come and answers.
//!
//! - [`launch`]: starting programs, under the builder's rules for entry points and environment
//! - [`report`]: processes and metrics
//! - [`transfer`]: files in and out
//!
//! What the host may ask for is what it could do to a container; what it learns is what it needs for that.
//! More (command lines, files) only if the builder says `metadata.debuggable`.

pub mod launch;
mod report;
mod transfer;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use occlum_abi::boot::BootConfig;
use occlum_abi::control::{Answer, FIRST_PROGRAM, Numbered, Request, Target};
use occlum_enclave::host;
use occlum_enclave::log;

use crate::error::Result;
use crate::outside;
use crate::process::{self, Process, exit, programs};
use crate::sched::{self, events, timer};
use crate::signal::{self, SigInfo, Signal};
use crate::vfs::mounts;

/// Starts the task that serves requests.
pub fn start(config: Arc<BootConfig>) -> Result<()> {
    let task = sched::spawn(String::from("requests"), Box::new(move || serve(&config)))?;
    sched::unpark(&task);
    Ok(())
}

fn serve(config: &Arc<BootConfig>) {
    report::start_clock();
    outside::answer(FIRST_PROGRAM, &Answer::Ready);
    loop {
        while let Some(Numbered { number, request }) = outside::take_request() {
            if let Some(answer) = handle(config, number, request) {
                outside::answer(number, &answer);
            }
        }
        let look = || host::has_requests().then_some(());
        // Nothing interrupts a task of the kernel, and there is no deadline.
        let _ = events::REQUESTS.wait_until(None, false, look);
    }
}

/// Gives the answer, unless it comes later.
fn handle(config: &Arc<BootConfig>, number: u64, request: Request) -> Option<Answer> {
    Some(match request {
        Request::Start(start) => launch::start_for(config, number, start),
        Request::Signal { to, signal } => send(to, signal),
        Request::Processes => Answer::Processes(report::processes(config.debuggable)),
        Request::Metrics => Answer::Metrics(report::metrics()),
        Request::SetLogLevel(level) => {
            log::set_level(occlum_enclave::permitted_level(config, level));
            Answer::Done
        }
        Request::Shutdown { grace_ms } => in_background("shutdown", move || shut_down(grace_ms)),
        Request::Copy(copy) if !config.debuggable => {
            transfer::close(&copy);
            refused(
                "the enclave is not debuggable, so its files stay inside",
                "use a hostfs mount to exchange files",
            )
        }
        Request::Copy(copy) => {
            return transfer::start(number, copy).err().map(|_| no_memory());
        }
    })
}

fn in_background(name: &str, body: impl FnOnce() + Send + 'static) -> Answer {
    match sched::spawn(String::from(name), Box::new(body)) {
        Ok(task) => {
            sched::unpark(&task);
            Answer::Done
        }
        Err(_) => no_memory(),
    }
}

fn refused(message: &str, hint: &str) -> Answer {
    Answer::Refused { message: String::from(message), hint: String::from(hint), code: 1 }
}

fn no_memory() -> Answer {
    refused("no memory in the kernel", "raise resource_limits.kernel_space_heap_size")
}

fn send(to: Target, number: i32) -> Answer {
    let signal = match number {
        0 => None,
        number => match Signal::new(number) {
            Some(signal) => Some(signal),
            None => return refused("no such signal", "1 to 64, or 0 to ask whether the process is there"),
        },
    };
    let targets = match to {
        Target::Foreground(number) => {
            programs::find(number).map(programs::foreground).map(process::tree::group).unwrap_or_default()
        }
        Target::Program(number) => programs::find(number).and_then(process::find_process).into_iter().collect(),
        Target::Process(pid) => process::find_process(pid).into_iter().collect(),
        Target::Everybody => process::processes(),
    };
    let mut living = targets.iter().filter(|process| process.thread_count() > 0).peekable();
    if living.peek().is_none() {
        return refused("no such process", "occlum ps lists the processes");
    }
    living.for_each(|process| signal.into_iter().for_each(|signal| send_to(process, signal)));
    Answer::Done
}

fn send_to(process: &Process, signal: Signal) {
    // A full queue loses a real-time signal, as on Linux.
    let _ = signal::send_to_process(process, signal, SigInfo::kernel(signal));
}

/// How often it looks whether all are gone.
const LOOK_NS: u64 = 20_000_000;
/// After SIGKILL; what does not end by then is a bug, but no reason to stay.
const KILL_NS: u64 = 5_000_000_000;

fn shut_down(grace_ms: u64) {
    let everybody = |signal| process::processes().iter().for_each(|process| send_to(process, signal));
    everybody(Signal::TERM);
    // Who is stopped must run to end.
    everybody(Signal::CONT);
    if !wait_for_all(grace_ms.saturating_mul(1_000_000)) {
        everybody(Signal::KILL);
        wait_for_all(KILL_NS);
    }
    mounts::sync_all();
    host::exit(exit::exited(0));
}

fn wait_for_all(limit_ns: u64) -> bool {
    let end = timer::now_ns().saturating_add(limit_ns);
    loop {
        if process::processes().iter().all(|process| process.thread_count() == 0) {
            return true;
        }
        let now = timer::now_ns();
        if now >= end {
            return false;
        }
        // Nobody wakes it; it is for the deadline.
        let _ = sched::Waiter::new().wait(Some(end.min(now + LOOK_NS)), false);
    }
}

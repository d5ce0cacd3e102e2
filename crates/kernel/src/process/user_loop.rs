//! The life of a thread: run user code, serve what it traps for, look at signals, repeat.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use occlum_abi::layout::MAX_VCPUS;
use occlum_enclave::user::{Exception, Trap, UserContext};
use occlum_enclave::{host, log, vcpu};

use super::{Thread, Work, cpuid, debug, exit, thread};
use crate::error::{Restart, Result};
use crate::mm::{FaultOutcome, residency};
use crate::outside;
use crate::sched::{self, run};
use crate::signal::deliver::{self, Interrupted, Next};
use crate::signal::{Signal, fault};
use crate::syscall;
use crate::user::{self, UserAddr};

/// Starts a task that lives the thread's life from `context` on.
pub(super) fn start(thread: Arc<Thread>, context: Box<UserContext>) -> Result<()> {
    let name = format!("thread {}", thread.tid());
    let body = thread.clone();
    let task = sched::spawn(name, Box::new(move || live(body, context)))?;
    thread::attach(&task, &thread);
    thread.set_task(task.clone());
    sched::unpark(&task);
    Ok(())
}

/// The debugger knows this function by its name: its caller is the program.
#[inline(never)]
fn live(mut thread: Arc<Thread>, mut context: Box<UserContext>) {
    let on_stack = 0u8;
    let (registers, stack) = ((&raw const context.regs).addr(), (&raw const on_stack).addr());
    let _seen = debug::show(thread.tid(), registers, stack);
    // A signal may have come before the task existed.
    thread.set_work(Work::SIGNAL);
    let set_tid = UserAddr(thread.set_tid.load(Ordering::Relaxed));
    if !set_tid.is_null() {
        // As on Linux a child that can't be told its id runs all the same.
        let _ = user::write(set_tid, &thread.tid());
    }
    let mut interrupted = None;
    loop {
        while thread.has_work() || interrupted.is_some() {
            match prepare(&mut thread, &mut context, interrupted.take()) {
                Next::Run => {}
                Next::Again(call) => interrupted = serve_again(&thread, &mut context, call),
                Next::End => return exit::finish(thread),
            }
        }
        if !residency::is_here() {
            // It may wait long, so there may be new work.
            put_in_place(&thread);
            continue;
        }
        run::before_user();
        if outside::is_debugged() {
            host::publish_running(thread.process().pid());
        }
        interrupted = match context.run() {
            Trap::Syscall => serve(&thread, &mut context),
            Trap::Cpuid => {
                cpuid::answer(&mut context.regs);
                None
            }
            Trap::Exception(exception) => serve_exception(&thread, &mut context, exception),
            Trap::Interrupt => {
                tick();
                None
            }
        };
    }
}

/// Looks at what the thread has to do before user code may run.
fn prepare(thread: &mut Arc<Thread>, context: &mut UserContext, call: Option<Interrupted>) -> Next {
    run::clear_interrupt();
    let work = thread.take_work();
    if work & Work::REPLACED != 0
        && let Some(successor) = thread.take_successor()
    {
        residency::leave();
        thread::attach(&sched::current(), &successor);
        *thread = successor;
    }
    deliver::before_user(thread, context, work, call)
}

/// Serves a system call. Tells what is to be known if a signal interrupted it.
#[inline]
fn serve(thread: &Arc<Thread>, context: &mut UserContext) -> Option<Interrupted> {
    let number = context.regs.rax;
    let measured = thread.begin_call();
    let restart = syscall::dispatch(thread, context);
    if let Some(begin) = measured {
        thread.end_call(begin);
    }
    match restart {
        Restart::Never => None,
        restart => Some(Interrupted { number, restart }),
    }
}

/// Runs an interrupted system call again, with what it knew about its time-out.
fn serve_again(thread: &Arc<Thread>, context: &mut UserContext, call: Interrupted) -> Option<Interrupted> {
    context.regs.rax = call.number;
    thread.set_restarting(true);
    let interrupted = serve(thread, context);
    thread.set_restarting(false);
    interrupted
}

/// How often user code on each vCPU was interrupted.
static INTERRUPTS: [AtomicU32; MAX_VCPUS] = [const { AtomicU32::new(0) }; MAX_VCPUS];

/// A count that grows when user code on a vCPU was interrupted (and has gone through a serialising exit).
pub(crate) fn interrupts(vcpu: usize) -> u32 {
    INTERRUPTS[vcpu].load(Ordering::SeqCst)
}

/// No user code runs on this vCPU now, and memory is ordered: as good as an interruption.
pub(crate) fn count_interrupt() {
    INTERRUPTS[vcpu::index()].fetch_add(1, Ordering::SeqCst);
}

fn tick() {
    count_interrupt();
    vcpu::take_pending();
    run::tick();
}

/// Puts the thread's memory in place; ends its process if that can't be done.
fn put_in_place(thread: &Thread) {
    if residency::enter() != FaultOutcome::Resolved {
        log!(Error, "process {} ends: its memory can't be put in place", thread.process().pid());
        exit::kill_process(thread.process(), Signal::KILL);
    }
}

const SYSCALL_INSTRUCTION: [u8; 2] = [0x0f, 0x05];
const CPUID_INSTRUCTION: [u8; 2] = [0x0f, 0xa2];

fn serve_exception(
    thread: &Arc<Thread>,
    context: &mut UserContext,
    exception: Exception,
) -> Option<Interrupted> {
    if exception.vector == Exception::INVALID_OPCODE {
        let mut code = [0; 2];
        let has_code = user::read_bytes(UserAddr(context.regs.rip as usize), &mut code).is_ok();
        if has_code && code == SYSCALL_INSTRUCTION {
            return serve_trapped(thread, context);
        }
        if has_code && code == CPUID_INSTRUCTION {
            context.regs.rip += CPUID_INSTRUCTION.len() as u64;
            cpuid::answer(&mut context.regs);
            return None;
        }
    }
    fault::raise(thread, context, exception);
    None
}

/// A `syscall` instruction that was not patched: behaves as the instruction does.
fn serve_trapped(thread: &Arc<Thread>, context: &mut UserContext) -> Option<Interrupted> {
    let regs = &mut context.regs;
    regs.rip += SYSCALL_INSTRUCTION.len() as u64;
    regs.rcx = regs.rip;
    regs.r11 = regs.rflags;
    serve(thread, context)
}

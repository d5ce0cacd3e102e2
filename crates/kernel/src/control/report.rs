//! What the host is told about the running system: processes and metrics.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use occlum_abi::control;
use occlum_enclave::HeapUsage;

use crate::fs::cache;
use crate::mm;
use crate::outside;
use crate::process::{self, Process, tree};
use crate::sched::timer;

/// Most processes told of: what fits into the host's buffer.
const PROCESSES_MAX: usize = 1000;

static STARTED_NS: AtomicU64 = AtomicU64::new(0);

/// The kernel runs from now on.
pub fn start_clock() {
    STARTED_NS.store(timer::now_ns(), Ordering::Relaxed);
}

pub fn processes(tells_arguments: bool) -> Vec<control::Process> {
    let all = process::processes();
    all.iter().take(PROCESSES_MAX).map(|process| describe(process, tells_arguments)).collect()
}

fn describe(process: &Arc<Process>, tells_arguments: bool) -> control::Process {
    let main = process.main_thread();
    let state = match &main {
        None => b'Z',
        Some(_) if process.signals().lock().stop.is_some() => b'T',
        Some(_) if process.find_thread(|thread| !thread.is_sleeping()).is_some() => b'R',
        Some(_) => b'S',
    };
    let memory = main.as_ref().map(|thread| thread.space().usage()).unwrap_or_default();
    let program = process.program();
    let command = match &main {
        Some(_) if tells_arguments => program.command.to_vec(),
        Some(thread) => thread.name().split(|&byte| byte == 0).next().unwrap_or_default().to_vec(),
        None => Vec::new(),
    };
    control::Process {
        pid: process.pid(),
        ppid: process.ppid(),
        pgid: process.pgid(),
        sid: process.sid(),
        state,
        threads: u32::try_from(process.thread_count()).unwrap_or(u32::MAX),
        cpu_ns: process.cpu_ns(),
        elapsed_ns: timer::now_ns().saturating_sub(process.start_ns()),
        virtual_bytes: memory.mapped as u64,
        resident_bytes: memory.resident as u64,
        command,
    }
}

pub fn metrics() -> Vec<(String, u64)> {
    let processes = process::processes();
    let cpu_ns = processes.iter().map(|process| process.cpu_ns()).sum();
    let memory = mm::Usage::now();
    let heap = HeapUsage::now();
    let values = [
        ("uptime_ns", timer::now_ns().saturating_sub(STARTED_NS.load(Ordering::Relaxed))),
        ("processes", processes.len() as u64),
        ("threads", tree::thread_count() as u64),
        ("threads_max", tree::max_threads() as u64),
        ("living_processes_cpu_ns", cpu_ns),
        ("user_memory_bytes", memory.granted as u64),
        ("user_memory_warm_bytes", memory.warm as u64),
        ("user_memory_limit_bytes", memory.limit as u64),
        ("kernel_heap_bytes", heap.size as u64),
        ("kernel_heap_limit_bytes", heap.limit as u64),
        ("page_cache_bytes", cache::bytes() as u64),
    ];
    let missed = outside::unsupported().into_iter();
    let missed = missed.map(|(name, count)| (format!("unsupported_calls_{name}"), count));
    values.into_iter().map(|(name, value)| (String::from(name), value)).chain(missed).collect()
}

//! What is told to the host: answers to its requests (`occlum_abi::control`), the trace of a debuggable
//! enclave, and which system calls programs missed. For those who have something to tell.

use occlum_abi::control::{Answer, Numbered};
use occlum_abi::ocall::Ocall;
use occlum_enclave::HeapUsage;
use occlum_enclave::host::{self, HostMisbehaved};
use occlum_enclave::log;

use crate::error::Errno;
use crate::fs::hostcall;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use occlum_abi::boot::Observation;
use spin::{Mutex, Once};

/// Decoded, a request is up to 24 times as large (empty strings), and a vector doubles as it grows: the
/// heap must bear that.
const REQUEST_GROWTH: usize = 64;

/// Tells the host what became of a request.
pub fn answer(number: u64, answer: &Answer) {
    let Ok(bytes) = postcard::to_allocvec(answer) else { return };
    let staging = host::staging();
    if bytes.len() > staging.size() {
        log!(Warn, "an answer of {} bytes is too large for the host", bytes.len());
        return;
    }
    hostcall::copy_out(&staging, &bytes);
    let args = [number, staging.addr(), bytes.len() as u64, 0, 0];
    // A host that does not want it, or has nobody to give it to, is its own business.
    let _ = hostcall::checked(Ocall::Answer, args, 0);
}

/// The next request of the host, if there is one.
pub fn take_request() -> Option<Numbered> {
    let staging = host::staging();
    let room = staging.size().min(HeapUsage::now().limit / REQUEST_GROWTH);
    let size = match hostcall::checked(Ocall::TakeRequest, [staging.addr(), room as u64, 0, 0, 0], room) {
        Ok(0) | Err(Errno::EAGAIN) => return None,
        Ok(size) => size,
        Err(errno) => {
            log!(Warn, "no requests from the host: {errno}");
            return None;
        }
    };
    let mut bytes: Vec<u8> = Vec::new();
    if bytes.try_reserve_exact(size).is_err() {
        log!(Error, "no memory for a request of the host");
        return None;
    }
    bytes.resize(size, 0);
    hostcall::copy_in(Ocall::TakeRequest, &staging, &mut bytes);
    match postcard::from_bytes(&bytes) {
        Ok(request) => Some(request),
        Err(_) => host::stop_for(HostMisbehaved::BadRequest),
    }
}

/// What the host wants to observe; set once, if the builder lets it.
static OBSERVATION: Once<Observation> = Once::new();
static IS_TRACED: AtomicBool = AtomicBool::new(false);
static IS_DEBUGGED: AtomicBool = AtomicBool::new(false);

/// Calls that can't succeed here, with how often they were made, by number.
static UNSUPPORTED: Mutex<BTreeMap<usize, (&'static str, u64)>> = Mutex::new(BTreeMap::new());

/// Starts to tell what the host wants to observe. Only for debuggable enclaves: arguments are the programs'
/// secrets.
pub fn observe(wanted: Observation) {
    let wanted = OBSERVATION.call_once(|| wanted);
    IS_TRACED.store(wanted.is_traced, Ordering::Release);
    IS_DEBUGGED.store(wanted.is_debugged, Ordering::Release);
}

/// Whether system calls are told to the host.
#[inline]
pub fn is_traced() -> bool {
    IS_TRACED.load(Ordering::Relaxed)
}

/// Whether a debugger or a profile looks on.
#[inline]
pub fn is_debugged() -> bool {
    IS_DEBUGGED.load(Ordering::Relaxed)
}

/// Tells the debugger that code of a file stands at `start`.
/// `process` is its id, with `MAPPED_AS_PROGRAM` for a program that is about to be executed.
pub fn tell_mapped(start: usize, offset: u64, path: &[u8], process: u64) {
    let staging = host::staging();
    let path = &path[..path.len().min(staging.size())];
    hostcall::copy_out(&staging, path);
    // Nothing depends on it.
    let args = [start as u64, offset, staging.addr(), path.len() as u64, process];
    let _ = hostcall::checked(Ocall::Mapped, args, 0);
}

/// Whether the host wants to see the call with this name.
pub fn is_call_wanted(name: &str) -> bool {
    let wanted = OBSERVATION.get();
    wanted.is_some_and(|wanted| wanted.calls.is_empty() || wanted.calls.iter().any(|call| call == name))
}

/// Tells the host a line of the trace, if it wants it: what thread `tid` did at `start_ns`.
pub fn trace(tid: u32, start_ns: u64, duration_ns: u64, text: &str) {
    if is_traced() {
        send(Ocall::Trace, &format!("{tid} {start_ns} {duration_ns} {text}\n"));
    }
}

fn send(call: Ocall, text: &str) {
    let staging = host::staging();
    let bytes = &text.as_bytes()[..text.len().min(staging.size())];
    hostcall::copy_out(&staging, bytes);
    // A host that does not want it loses it.
    let _ = hostcall::checked(call, [staging.addr(), bytes.len() as u64, 0, 0, 0], 0);
}

/// Counts a call that can't succeed here; gives how often it was made before.
pub fn count_unsupported(number: usize, name: &'static str) -> u64 {
    let mut counts = UNSUPPORTED.lock();
    let entry = counts.entry(number).or_insert((name, 0));
    entry.1 = entry.1.saturating_add(1);
    entry.1 - 1
}

/// Calls that programs made and that can't succeed here, with how often.
pub fn unsupported() -> Vec<(String, u64)> {
    let counts = UNSUPPORTED.lock();
    let name = |number: &usize, name: &str| match name {
        "" => format!("{number}"),
        name => String::from(name),
    };
    counts.iter().map(|(number, (text, count))| (name(number, text), *count)).collect()
}

/// The last words of an instance whose person wants to know what programs missed.
pub fn report_unsupported() {
    if !OBSERVATION.get().is_some_and(|wanted| wanted.reports_unsupported) {
        return;
    }
    let met = unsupported();
    let mut text = String::from(match met.is_empty() {
        true => "occlum: no unsupported system call was met\n",
        false => "occlum: unsupported system calls met:\n",
    });
    met.iter().for_each(|(name, count)| text.push_str(&format!("{count:8} {name}\n")));
    send(Ocall::Report, &text);
}

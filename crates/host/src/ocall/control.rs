//! Requests to the kernel and its answers.

use super::{Call, Served};
use occlum_abi::control::Answer;
use rustix::io::Errno;
use std::io::Write;
use std::sync::atomic::Ordering;

pub(super) fn take_request(call: &Call) -> Served {
    let buffer = call.buffer(0)?;
    let waiting = &call.instance.shared().requests;
    let is_empty = || waiting.store(0, Ordering::SeqCst);
    let Some(request) = call.instance.requests.take(buffer.len(), is_empty) else {
        return Ok(0usize.into());
    };
    buffer[..request.len()].copy_from_slice(&request);
    Ok(request.len().into())
}

pub(super) fn answer(call: &Call) -> Served {
    let answer: Answer = postcard::from_bytes(call.buffer(1)?).map_err(|_| Errno::INVAL)?;
    call.instance.requests.answer(call.args[0], answer);
    Ok(().into())
}

pub(super) fn trace(call: &Call) -> Served {
    let line = call.buffer(0)?;
    // Nobody to tell if the trace can't be written: its reader is gone.
    let _ = match call.instance.trace.as_ref() {
        Some(mut file) => file.write_all(line),
        None => std::io::stderr().write_all(line),
    };
    Ok(().into())
}

pub(super) fn report(call: &Call) -> Served {
    // As above.
    let _ = std::io::stderr().write_all(call.buffer(0)?);
    Ok(().into())
}

pub(super) fn mapped(call: &Call) -> Served {
    let path = call.buffer(2)?;
    if let Some(profile) = &call.instance.profile {
        profile.mapped(call.args[0], call.args[1], call.args[4], path);
    }
    occlum_debug_mapped(call.args[0], call.args[1], path.as_ptr(), path.len());
    Ok(().into())
}

/// Where a debugger waits to hear of code: its breakpoint reads the arguments.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn occlum_debug_mapped(start: u64, offset: u64, path: *const u8, size: usize) {
    std::hint::black_box((start, offset, path, size));
}

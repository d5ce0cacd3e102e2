//! Requests to the kernel and its answers.

use super::{Call, Served};
use occlum_abi::control::Answer;
use rustix::io::Errno;
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

//! Answers to the host: the kernel's side of `occlum_abi::control`, for those who have something to tell.

use occlum_abi::control::{Answer, Numbered};
use occlum_abi::ocall::Ocall;
use occlum_enclave::HeapUsage;
use occlum_enclave::host::{self, HostMisbehaved};
use occlum_enclave::log;

use crate::error::Errno;
use crate::fs::hostcall;

use alloc::vec::Vec;

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

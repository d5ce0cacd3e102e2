//! What the whole system is called.

use alloc::vec::Vec;

use spin::Mutex;

/// The kernel that programs believe to run on.
pub const SYSTEM_NAME: &str = "Linux";
pub const RELEASE: &str = "6.6.0-occlum";
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC Occlum";
pub const MACHINE: &str = "x86_64";

/// Longest name sethostname takes.
pub const HOSTNAME_MAX: usize = 64;

static HOSTNAME: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static DOMAIN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

pub fn hostname() -> Vec<u8> {
    let name = HOSTNAME.lock().clone();
    if name.is_empty() { b"occlum".to_vec() } else { name }
}

pub fn set_hostname(name: &[u8]) {
    let old = core::mem::replace(&mut *HOSTNAME.lock(), name.to_vec());
    drop(old);
}

pub fn domain() -> Vec<u8> {
    let name = DOMAIN.lock().clone();
    if name.is_empty() { b"(none)".to_vec() } else { name }
}

pub fn set_domain(name: &[u8]) {
    let old = core::mem::replace(&mut *DOMAIN.lock(), name.to_vec());
    drop(old);
}

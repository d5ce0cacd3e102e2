//! From the first instruction in Rust to the first process.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use occlum_abi::boot::{BootConfig, RunRequest};
use occlum_enclave::{Boot, cannot_start, host, log, vcpu};

use crate::control::{self, launch};
use crate::fs::tree;
use crate::net::outside::policy;
use crate::outside;
use crate::process::{self, exec, exit};
use crate::sched::{self, run};
use crate::{mm, overrides, time};

/// Largest file that is taken from the host for /etc.
const HOST_FILE_MAX: usize = 64 * 1024;

/// vCPU 0: start the task that brings everything up, then schedule.
pub fn main(boot: Boot) -> ! {
    match sched::spawn(String::from("boot"), Box::new(move || bring_up(boot))) {
        Ok(task) => sched::unpark(&task),
        Err(error) => cannot_start(&format!("no stack for the first task: {error:?}")),
    };
    vcpu::release_others();
    run::idle_loop()
}

/// Every other vCPU: schedule.
pub fn vcpu_main(_index: usize) -> ! {
    run::idle_loop()
}

/// The end of every task.
pub fn task_exit() -> ! {
    run::exit()
}

fn bring_up(boot: Boot) {
    let Boot { mut config, request, image, hwcap } = boot;
    if let Err(problem) = overrides::apply(&mut config.resource_limits, &request.env) {
        cannot_start(&problem);
    }
    if let Err(error) = mm::init(&config) {
        cannot_start(&format!("user memory can't be set up: {error:?}"));
    }
    if let Err(problem) = tree::mount_all(&config, image) {
        cannot_start(&problem);
    }
    policy::configure(config.network.clone());
    exec::set_hwcap(hwcap);
    process::tree::set_max_threads(config.resource_limits.max_threads);
    time::keeper::start();
    place_host_files(&request);
    observe(&config, &request);
    let config = Arc::new(config);
    if let Err(error) = control::start(config.clone()) {
        cannot_start(&format!("no task for requests: {error:?}"));
    }
    if request.path.is_empty() {
        return;
    }
    if let Err(refusal) = launch::start_first(&config, request) {
        host::exit(exit::exited(refusal.code));
    }
}

/// The host may look into debuggable enclaves only.
fn observe(config: &BootConfig, request: &RunRequest) {
    let wanted = &request.observation;
    if (wanted.is_traced || wanted.is_debugged) && !config.debuggable {
        cannot_start("the enclave is not debuggable (metadata.debuggable), so nobody may look into it");
    }
    outside::observe(wanted.clone());
}

/// The host's idea of names and resolvers, where the image has none of its own. Checked for being
/// text of a sane size, believed no further.
fn place_host_files(request: &RunRequest) {
    let hostname = format!("{}\n", request.hostname);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let has_name = (1..=64).contains(&request.hostname.len()) && request.hostname.bytes().all(is_name);
    if has_name {
        process::system::set_hostname(request.hostname.as_bytes());
        place("/etc/hostname", hostname.as_bytes());
    }
    place("/etc/resolv.conf", &request.resolv_conf);
    place("/etc/hosts", &request.hosts);
}

fn place(path: &str, content: &[u8]) {
    let is_text = |&byte: &u8| byte == b'\n' || byte == b'\t' || (0x20..0x7f).contains(&byte);
    if content.is_empty() || content.len() > HOST_FILE_MAX || !content.iter().all(is_text) {
        return;
    }
    if let Err(error) = tree::provide_file(path, content) {
        log!(Warn, "{path} could not be made: {error:?}");
    }
}

//! From the first instruction in Rust to the first process.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use occlum_abi::boot::{BootConfig, RunRequest};
use occlum_enclave::{Boot, cannot_start, host, log, vcpu};

use crate::error::{Errno, Error};
use crate::fs::tree;
use crate::process::limits::Limits;
use crate::process::{self, exec, exit};
use crate::sched::{self, run};
use crate::vfs::walk;
use crate::vfs::{FileTable, FsContext, Identity, Path, Source};
use crate::{mm, time};

/// Exit codes as shells give them.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

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
    let Boot { config, request, image, hwcap } = boot;
    if let Err(error) = mm::init(&config) {
        cannot_start(&format!("user memory can't be set up: {error:?}"));
    }
    if let Err(problem) = tree::mount_all(&config, image) {
        cannot_start(&problem);
    }
    exec::set_hwcap(hwcap);
    process::tree::set_max_threads(config.resource_limits.max_threads);
    time::keeper::start();
    place_host_files(&request);
    let files = match tree::standard_files() {
        Ok(files) => files,
        Err(error) => cannot_start(&format!("no standard files: {error:?}")),
    };
    if let Err(refusal) = start_program(&config, &request, Arc::new(files)) {
        refusal.tell_and_exit();
    }
}

/// Why the program was not started, for the person who typed the command.
struct Refusal {
    message: String,
    hint: &'static str,
    code: i32,
}

impl Refusal {
    fn tell_and_exit(&self) -> ! {
        let text = format!("error: {}\nhint: {}\n", self.message, self.hint);
        let told = tree::standard_files().and_then(|files| files.get(2)).and_then(|stderr| {
            stderr.write(&mut Source::kernel(text.as_bytes()))
        });
        if told.is_err() {
            log!(Error, "{}", self.message);
        }
        host::exit(exit::exited(self.code))
    }
}

fn start_program(config: &BootConfig, request: &RunRequest, files: Arc<FileTable>) -> Result<(), Refusal> {
    let program = normalize(&request.path);
    check_entry_point(config, &program)?;
    let fs = Arc::new(FsContext::new());
    let path = find(&fs, &program)?;
    let name = program.rsplit('/').next().unwrap_or(&program).as_bytes().to_vec();
    let mut args = alloc::vec![name];
    args.extend(request.args.iter().cloned());
    let limits = Limits::initial(config.process.stack_size, config.resource_limits.max_threads);
    let env = environment(config, request);
    let to_run = exec::Request { path, name: program.clone().into_bytes(), args, env };
    match process::start::start(to_run, files, fs, limits) {
        Ok(_) => Ok(()),
        Err(error) => Err(refuse(&program, error)),
    }
}

fn check_entry_point(config: &BootConfig, program: &str) -> Result<(), Refusal> {
    let is_below = |prefix: &String| {
        let prefix = normalize(prefix);
        let rest = program.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if config.entry_points.iter().any(is_below) {
        return Ok(());
    }
    Err(Refusal {
        message: format!("{program} is not in an entry point ({})", config.entry_points.join(", ")),
        hint: "add its directory to entry_points in Occlum.json, then run `occlum build`",
        code: NOT_EXECUTABLE,
    })
}

fn find(fs: &FsContext, program: &str) -> Result<Path, Refusal> {
    walk::lookup(fs, &Identity::ROOT, program.as_bytes()).map_err(|error| refuse(program, error))
}

fn refuse(program: &str, error: Error) -> Refusal {
    let (what, hint, code) = match error.errno {
        Errno::ENOENT | Errno::ENOTDIR => (
            "no such file in the enclave (or its interpreter is missing)",
            "`occlum add` brings a program with all it needs into image/; then run `occlum build`",
            NOT_FOUND,
        ),
        Errno::EACCES => ("not executable", "check the mode of the file in image/", NOT_EXECUTABLE),
        Errno::ENOEXEC | Errno::ELIBBAD | Errno::EINVAL => {
            ("not a program for this machine", "x86-64 ELF files and scripts can run", NOT_EXECUTABLE)
        }
        Errno::ENOMEM => (
            "not enough memory",
            "raise resource_limits.user_space_size in Occlum.json",
            NOT_EXECUTABLE,
        ),
        _ => ("can't be started", "OCCLUM_LOG_LEVEL=debug tells more", NOT_EXECUTABLE),
    };
    Refusal { message: format!("{program}: {what}: {error:?}"), hint, code }
}

/// An absolute path without `.`, `..` and doubled slashes. Symbolic links of the image stay: what they
/// lead to is measured.
fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The builder's environment, with what the builder lets the host choose.
fn environment(config: &BootConfig, request: &RunRequest) -> Vec<Vec<u8>> {
    let mut env: Vec<Vec<u8>> = config.env.default.iter().map(|text| text.clone().into_bytes()).collect();
    for variable in &request.env {
        let Some(name) = name_of(variable) else { continue };
        if variable.contains(&0) || !config.env.untrusted.iter().any(|rule| admits(rule, name)) {
            continue;
        }
        env.retain(|other| name_of(other) != Some(name));
        env.push(variable.clone());
    }
    env
}

fn name_of(variable: &[u8]) -> Option<&[u8]> {
    let end = variable.iter().position(|&byte| byte == b'=')?;
    Some(&variable[..end]).filter(|name| !name.is_empty())
}

fn admits(rule: &str, name: &[u8]) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => rule.as_bytes() == name,
    }
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

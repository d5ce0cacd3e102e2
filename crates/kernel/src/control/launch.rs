//! Starting programs for the host: the first of the instance, and those of `Request::Start`.
//!
//! Everything the host says is checked against the builder's configuration: the path must lie in an entry
//! point, and a variable must be one that the host may choose.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use occlum_abi::boot::{BootConfig, RunRequest};
use occlum_abi::control::{Answer, FIRST_PROGRAM, Start};

use crate::error::{Errno, Error};
use crate::fs::console::Console;
use crate::fs::tree;
use crate::process::limits::Limits;
use crate::process::programs::Program;
use crate::process::{self, exec};
use crate::vfs::inode::Kind;
use crate::vfs::{FsContext, Identity, Path, Source, walk};

/// Exit codes as shells give them.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// Why the program was not started, for the person who typed the command.
pub struct Refusal {
    pub message: String,
    pub hint: &'static str,
    pub code: i32,
}

impl Refusal {
    /// What a person reads.
    pub fn text(&self) -> String {
        format!("error: {}\nhint: {}\n", self.message, self.hint)
    }
}

/// Starts the program that the instance is for. The refusal is told to its standard error, if there is one.
pub fn start_first(config: &BootConfig, request: RunRequest) -> Result<(), Refusal> {
    let consoles = Console::open_all([Some(0), Some(1), Some(2)]);
    let start = Start {
        path: request.path,
        args: request.args,
        env: request.env,
        stdio: [None; 3],
        directory: String::new(),
    };
    let started = start_program(config, FIRST_PROGRAM, start, &consoles);
    if let (Err(refusal), Some(stderr)) = (&started, &consoles[2]) {
        let file = crate::vfs::OpenFile::new(stderr.clone(), crate::vfs::flags::O_WRONLY);
        if file.write(&mut Source::kernel(refusal.text().as_bytes())).is_err() {
            occlum_enclave::log!(Error, "{}", refusal.message);
        }
    }
    started.map(drop)
}

/// Serves `Request::Start`.
pub fn start_for(config: &BootConfig, number: u64, start: Start) -> Answer {
    // From here on the descriptors are closed whatever happens.
    let consoles = Console::open_all(start.stdio);
    match start_program(config, number, start, &consoles) {
        Ok(pid) => Answer::Started { pid },
        Err(Refusal { message, hint, code }) => Answer::Refused { message, hint: String::from(hint), code },
    }
}

fn start_program(
    config: &BootConfig,
    number: u64,
    start: Start,
    consoles: &[Option<Arc<Console>>; 3],
) -> Result<u32, Refusal> {
    let name = normalize(&start.path);
    check_entry_point(config, &name)?;
    let fs = Arc::new(FsContext::new());
    let path = walk::lookup(&fs, &Identity::ROOT, name.as_bytes()).map_err(|error| refuse(&name, error))?;
    if !start.directory.is_empty() {
        fs.set_cwd(find_directory(&fs, &start.directory)?);
    }
    let mut args = alloc::vec![name.rsplit('/').next().unwrap_or(&name).as_bytes().to_vec()];
    args.extend(start.args);
    let limits = Limits::initial(config.process.stack_size, config.resource_limits.max_threads);
    let env = environment(config, start.env);
    let to_run = exec::Request { path, name: name.clone().into_bytes(), args, env };
    let terminal = consoles.iter().flatten().find(|console| console.is_terminal()).cloned();
    let files = tree::standard_files(consoles).map_err(|error| refuse(&name, error))?;
    process::start::start(to_run, Arc::new(files), fs, limits, Program { number, terminal })
        .map_err(|error| refuse(&name, error))
}

fn find_directory(fs: &FsContext, directory: &str) -> Result<Path, Refusal> {
    let found = walk::lookup(fs, &Identity::ROOT, directory.as_bytes());
    let found = found.and_then(|path| match path.dentry.kind() {
        Kind::Directory => Ok(path),
        _ => Err(Error::new(Errno::ENOTDIR, "not a directory")),
    });
    found.map_err(|error| Refusal {
        message: format!("{directory}: no such directory in the enclave: {error:?}"),
        hint: "give the working directory as a path inside the enclave",
        code: NOT_EXECUTABLE,
    })
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
        Errno::EAGAIN => (
            "too many threads",
            "raise resource_limits.max_num_of_threads in Occlum.json",
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
fn environment(config: &BootConfig, asked: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut env: Vec<Vec<u8>> = config.env.default.iter().map(|text| text.clone().into_bytes()).collect();
    for variable in asked {
        let Some(name) = name_of(&variable) else { continue };
        if variable.contains(&0) || !config.env.untrusted.iter().any(|rule| admits(rule, name)) {
            continue;
        }
        env.retain(|other| name_of(other) != Some(name));
        env.push(variable);
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

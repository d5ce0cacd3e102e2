//! The command line: `occlum-host run` for one program, `occlum-host serve` for an instance that stays up.

use crate::error::Error;
use occlum_abi::boot::{LogLevel, Observation};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

const USAGE: &str = "\
usage: occlum-host run --build-dir DIR [--log-level LEVEL] [--trace-fd N] [--trace-calls NAME,...]
           [--report-unsupported] [--debug] [--profile-fd N]
           [--] PROGRAM [ARGUMENT...]
       occlum-host serve --build-dir DIR [--log-level LEVEL] --socket PATH --ready-fd N [--grace-ms N]";

const LEVELS: [(&str, LogLevel); 6] = [
    ("off", LogLevel::Off),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

/// What to run.
#[derive(Debug)]
pub struct Run {
    pub build_dir: PathBuf,
    pub log_level: LogLevel,
    /// Path inside the enclave; empty for `serve`.
    pub program: String,
    pub arguments: Vec<Vec<u8>>,
    pub service: Option<Service>,
    pub observation: Observation,
    /// Where the trace is written; otherwise to standard error.
    pub trace: Option<OwnedFd>,
    /// Where samples are written.
    pub profile: Option<OwnedFd>,
}

/// An instance that stays up.
#[derive(Debug)]
pub struct Service {
    /// Where clients connect.
    pub socket: PathBuf,
    /// Where "ready" is written.
    pub ready: OwnedFd,
    /// How long programs may take to end after SIGTERM, when this process is told to end.
    pub grace_ms: u64,
}

const GRACE_MS: u64 = 30_000;

/// Parses what follows the program's own name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Run, Error> {
    let mut arguments = arguments.into_iter();
    match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some("run") => parse_run(arguments),
        Some("serve") => parse_serve(arguments),
        _ => Err(usage("the command must be \"run\" or \"serve\"")),
    }
}

fn parse_run(mut arguments: impl Iterator<Item = OsString>) -> Result<Run, Error> {
    let mut options = Options::default();
    let missing = || usage("PROGRAM is missing");
    let program = loop {
        let argument = arguments.next().ok_or_else(missing)?;
        match argument.to_str() {
            Some("--") => break arguments.next().ok_or_else(missing)?,
            Some(option) if option.starts_with('-') => options.take(option, &mut arguments)?,
            _ => break argument,
        }
    };
    Ok(Run {
        build_dir: options.build_dir()?,
        log_level: options.log_level.unwrap_or(LogLevel::Off),
        program: program
            .into_string()
            .map_err(|_| usage("PROGRAM is not UTF-8"))?,
        arguments: arguments.map(OsString::into_vec).collect(),
        service: None,
        trace: options.trace.take(),
        profile: options.profile.take(),
        observation: options.observation,
    })
}

fn parse_serve(mut arguments: impl Iterator<Item = OsString>) -> Result<Run, Error> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        let option = argument.to_str().unwrap_or_default();
        options.take(option, &mut arguments)?;
    }
    let socket = options.socket.take();
    let ready = options.ready.take();
    Ok(Run {
        build_dir: options.build_dir()?,
        log_level: options.log_level.unwrap_or(LogLevel::Off),
        program: String::new(),
        arguments: Vec::new(),
        service: Some(Service {
            socket: socket
                .ok_or_else(|| usage("--socket PATH is missing"))?
                .into(),
            ready: ready.ok_or_else(|| usage("--ready-fd N is missing"))?,
            grace_ms: options.grace_ms.unwrap_or(GRACE_MS),
        }),
        trace: options.trace.take(),
        profile: options.profile.take(),
        observation: options.observation,
    })
}

#[derive(Default)]
struct Options {
    build_dir: Option<OsString>,
    log_level: Option<LogLevel>,
    socket: Option<OsString>,
    ready: Option<OwnedFd>,
    grace_ms: Option<u64>,
    observation: Observation,
    trace: Option<OwnedFd>,
    profile: Option<OwnedFd>,
}

impl Options {
    fn take(
        &mut self,
        option: &str,
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), Error> {
        match option {
            "--build-dir" => self.build_dir = rest.next(),
            "--log-level" | "-l" => self.log_level = Some(level(rest.next())?),
            "--socket" => self.socket = rest.next(),
            "--ready-fd" => self.ready = Some(descriptor(rest.next(), option)?),
            "--grace-ms" => self.grace_ms = Some(number(rest.next(), "--grace-ms")?),
            "--trace-fd" => {
                self.observation.is_traced = true;
                self.trace = Some(descriptor(rest.next(), option)?);
            }
            "--trace-calls" => self.observation.calls = names(rest.next()),
            "--profile-fd" => {
                self.observation.is_debugged = true;
                self.profile = Some(descriptor(rest.next(), option)?);
            }
            "--debug" => self.observation.is_debugged = true,
            "--report-unsupported" => self.observation.reports_unsupported = true,
            _ => return Err(usage(&format!("unknown option {option}"))),
        }
        Ok(())
    }

    fn build_dir(&mut self) -> Result<PathBuf, Error> {
        let given = self
            .build_dir
            .take()
            .ok_or_else(|| usage("--build-dir DIR is missing"))?;
        Ok(given.into())
    }
}

fn number<T: std::str::FromStr>(value: Option<OsString>, option: &str) -> Result<T, Error> {
    let text = value.as_deref().and_then(OsStr::to_str);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| usage(&format!("{option} needs a number")))
}

fn names(list: Option<OsString>) -> Vec<String> {
    let list = list.unwrap_or_default();
    let names = list.to_str().unwrap_or_default().split(',');
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A copy of an inherited descriptor. It is found again through /proc, so that nothing has to be believed
/// about who else uses the number.
fn descriptor(value: Option<OsString>, option: &str) -> Result<OwnedFd, Error> {
    let number: u32 = number(value, option)?;
    let path = format!("/proc/self/fd/{number}");
    let opened = std::fs::OpenOptions::new().write(true).open(path);
    opened
        .map(OwnedFd::from)
        .map_err(|_| usage(&format!("{option} is not open for writing")))
}

/// The level with this name.
pub fn log_level(name: &[u8]) -> Option<LogLevel> {
    let known = LEVELS.iter().find(|(level, _)| level.as_bytes() == name);
    known.map(|(_, level)| *level)
}

fn level(name: Option<OsString>) -> Result<LogLevel, Error> {
    name.and_then(|name| log_level(name.as_encoded_bytes()))
        .ok_or_else(|| usage("--log-level must be one of off, error, warn, info, debug, trace"))
}

fn usage(problem: &str) -> Error {
    Error::Usage(format!("{problem}\n{USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Run, Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn options_end_at_the_program() {
        let run = parse_words("run --build-dir b -l warn /bin/ls -l --build-dir x").unwrap();
        assert_eq!((run.build_dir, run.log_level), ("b".into(), LogLevel::Warn));
        assert_eq!(run.program, "/bin/ls");
        assert_eq!(run.arguments, [&b"-l"[..], b"--build-dir", b"x"]);
        assert_eq!(
            parse_words("run --build-dir b -- -x").unwrap().program,
            "-x"
        );
    }

    #[test]
    fn mistakes_are_told() {
        for line in [
            "",
            "start",
            "run",
            "run /bin/ls",
            "run --build-dir",
            "run --build-dir b",
            "run --build-dir b --",
            "run --build-dir b -l loud /x",
            "run --nonsense /x",
            "serve --build-dir b",
            "serve --build-dir b --socket s --ready-fd x",
            "serve --build-dir b --socket s --ready-fd 1 /x",
        ] {
            assert!(parse_words(line).is_err(), "{line}");
        }
    }
}

//! The command line:
//! `occlum-host run --build-dir DIR [--log-level LEVEL] [--] PROGRAM [ARGUMENT...]`

use crate::error::Error;
use occlum_abi::boot::LogLevel;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

const USAGE: &str =
    "usage: occlum-host run --build-dir DIR [--log-level LEVEL] [--] PROGRAM [ARGUMENT...]";

const LEVELS: [(&str, LogLevel); 6] = [
    ("off", LogLevel::Off),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub build_dir: PathBuf,
    pub log_level: LogLevel,
    /// Path inside the enclave.
    pub program: String,
    pub arguments: Vec<Vec<u8>>,
}

/// Parses what follows the program's own name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Run, Error> {
    let mut arguments = arguments.into_iter();
    if arguments.next().as_deref() != Some(OsStr::new("run")) {
        return Err(usage("the command must be \"run\""));
    }
    let mut build_dir = None;
    let mut log_level = LogLevel::Off;
    let program = loop {
        let argument = arguments
            .next()
            .ok_or_else(|| usage("PROGRAM is missing"))?;
        match argument.to_str() {
            Some("--build-dir") => build_dir = arguments.next(),
            Some("--log-level" | "-l") => log_level = level(arguments.next())?,
            Some("--") => {
                break arguments
                    .next()
                    .ok_or_else(|| usage("PROGRAM is missing"))?;
            }
            Some(option) if option.starts_with('-') => {
                return Err(usage(&format!("unknown option {option}")));
            }
            _ => break argument,
        }
    };
    Ok(Run {
        build_dir: build_dir
            .ok_or_else(|| usage("--build-dir DIR is missing"))?
            .into(),
        log_level,
        program: program
            .into_string()
            .map_err(|_| usage("PROGRAM is not UTF-8"))?,
        arguments: arguments.map(OsString::into_vec).collect(),
    })
}

fn level(name: Option<OsString>) -> Result<LogLevel, Error> {
    let known = name
        .as_deref()
        .and_then(|name| LEVELS.iter().find(|(level, _)| name == *level));
    known
        .map(|(_, level)| *level)
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
        ] {
            assert!(parse_words(line).is_err(), "{line}");
        }
    }
}

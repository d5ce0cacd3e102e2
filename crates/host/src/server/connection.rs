//! One client of the control socket: it asks one thing and gets the answer.

use super::frame::{self, Broken, Frame, answers, asks};
use crate::args;
use crate::counters;
use crate::instance::Instance;
use crate::requests::{Asked, NotTaken};
use occlum_abi::control::{Answer, Copy, Direction, Process, Request, Start, Target};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn serve(instance: &Arc<Instance>, stream: &UnixStream) {
    // A client that says nonsense, or is gone, is let go.
    let _ = serve_frame(instance, stream);
    let _ = stream.shutdown(Shutdown::Both);
}

fn serve_frame(instance: &Arc<Instance>, stream: &UnixStream) -> Result<(), Broken> {
    let mut frame = frame::receive(stream)?;
    let files = std::mem::take(&mut frame.files);
    let request = match frame.kind {
        asks::START => return start(instance, stream, &frame, files),
        asks::KILL => Request::Signal {
            to: Target::Process(frame.number(0)?),
            signal: frame.number(1)?,
        },
        asks::PROCESSES => Request::Processes,
        asks::METRICS => Request::Metrics,
        asks::LOG_LEVEL => Request::SetLogLevel(args::log_level(frame.bytes(0)?).ok_or(Broken)?),
        asks::SHUTDOWN => Request::Shutdown {
            grace_ms: frame.number(0)?,
        },
        asks::COPY => return copy(instance, stream, &frame, files),
        _ => return Err(Broken),
    };
    match instance.ask_once(request) {
        Some(Answer::Metrics(mut metrics)) => {
            metrics.extend(counters::metrics(&instance.counters));
            tell(stream, &Answer::Metrics(metrics))
        }
        Some(answer) => tell(stream, &answer),
        None => tell(stream, &not_taken(NotTaken::Dead)),
    }
}

/// Starts a program with the client's descriptors, and tells the client what becomes of it.
fn start(
    instance: &Arc<Instance>,
    stream: &UnixStream,
    frame: &Frame,
    files: Vec<OwnedFd>,
) -> Result<(), Broken> {
    // Which of the three standard descriptors came along.
    let present = frame.bytes(4)?;
    if present.len() != files.len() || present.iter().any(|at| *at > 2) {
        return Err(Broken);
    }
    let start = Start {
        path: frame.text(0)?,
        args: frame.list(1)?,
        env: frame.list(2)?,
        directory: frame.text(3)?,
        stdio: [None; 3],
    };
    let mut stdio = [None; 3];
    for (at, file) in present.iter().zip(files) {
        stdio[usize::from(*at)] = Some(instance.files.insert(file));
    }
    let asked = instance.ask(Request::Start(Start { stdio, ..start }));
    let Asked { number, answers } = match asked {
        Ok(asked) => asked,
        Err(why) => {
            close(instance, stdio.into_iter().flatten());
            return tell(stream, &not_taken(why));
        }
    };
    let has_ended = Arc::new(AtomicBool::new(false));
    listen(instance, stream, number, &has_ended);
    for answer in answers {
        if matches!(answer, Answer::Ended { .. } | Answer::Refused { .. }) {
            has_ended.store(true, Ordering::Release);
        }
        tell(stream, &answer)?;
    }
    Ok(())
}

/// Passes on the client's signals. If the client goes away its program is hung up on.
fn listen(instance: &Arc<Instance>, stream: &UnixStream, number: u64, has_ended: &Arc<AtomicBool>) {
    let (instance, has_ended) = (instance.clone(), has_ended.clone());
    let Ok(stream) = stream.try_clone() else {
        return;
    };
    let listen = move || {
        while let Ok(frame) = frame::receive(&stream) {
            if let (asks::SIGNAL, Ok(signal), Ok(to)) =
                (frame.kind, frame.number(0), target(&frame, number))
            {
                // One that is not delivered has come too late.
                let _ = instance.ask_once(Request::Signal { to, signal });
            }
        }
        if has_ended.load(Ordering::Acquire) {
            return;
        }
        for to in [Target::Foreground(number), Target::Program(number)] {
            let _ = instance.ask_once(Request::Signal {
                to,
                signal: libc::SIGHUP,
            });
        }
    };
    // Without it the client's signals are not heard; the program runs.
    let _ = std::thread::Builder::new()
        .name("client's signals".into())
        .spawn(listen);
}

/// The second field of a signal frame.
fn target(frame: &Frame, number: u64) -> Result<Target, Broken> {
    match frame.bytes(1)? {
        b"foreground" => Ok(Target::Foreground(number)),
        b"program" => Ok(Target::Program(number)),
        _ => Err(Broken),
    }
}

fn copy(
    instance: &Arc<Instance>,
    stream: &UnixStream,
    frame: &Frame,
    files: Vec<OwnedFd>,
) -> Result<(), Broken> {
    let direction = match frame.bytes(1)? {
        b"in" => Direction::In {
            mode: frame.number(2)?,
        },
        b"out" => Direction::Out,
        _ => return Err(Broken),
    };
    let path = frame.text(0)?;
    let file = files.into_iter().next().ok_or(Broken)?;
    let file = instance.files.insert(file);
    let asked = match instance.ask(Request::Copy(Copy {
        path,
        file,
        direction,
    })) {
        Ok(asked) => asked,
        Err(why) => {
            close(instance, [file]);
            return tell(stream, &not_taken(why));
        }
    };
    let answer = asked.answers.recv();
    tell(
        stream,
        &answer.unwrap_or_else(|_| not_taken(NotTaken::Dead)),
    )
}

fn close(instance: &Instance, files: impl IntoIterator<Item = u32>) {
    for file in files {
        instance.parking.watches.forget(file.into());
        // One that the kernel has closed is not there any more.
        let _ = instance.files.remove(file.into());
    }
}

fn not_taken(why: NotTaken) -> Answer {
    let (message, hint, code) = match why {
        NotTaken::Dead => (
            "the kernel does not answer",
            "occlum stop ends the instance",
            125,
        ),
        NotTaken::TooLarge => (
            "arguments and environment are too large",
            "pass what is large through a file or standard input",
            126,
        ),
    };
    Answer::Refused {
        message: message.into(),
        hint: hint.into(),
        code,
    }
}

fn tell(stream: &UnixStream, answer: &Answer) -> Result<(), Broken> {
    let send = |kind, fields: &[String]| frame::transmit(stream, kind, fields);
    match answer {
        Answer::Ready | Answer::Done => send(answers::DONE, &[]),
        Answer::Started { pid } => send(answers::STARTED, &[pid.to_string()]),
        Answer::Refused {
            message,
            hint,
            code,
        } => send(
            answers::REFUSED,
            &[message.clone(), hint.clone(), code.to_string()],
        ),
        Answer::Stopped { signal, .. } => send(answers::STOPPED, &[signal.to_string()]),
        Answer::Continued => send(answers::CONTINUED, &[]),
        Answer::Ended { status } => send(answers::ENDED, &[status.to_string()]),
        Answer::Processes(processes) => {
            frame::transmit(stream, answers::TABLE, processes.iter().map(row))
        }
        Answer::Metrics(metrics) => {
            let row =
                |(name, value): &(String, u64)| frame::join([name.clone(), value.to_string()]);
            frame::transmit(stream, answers::TABLE, metrics.iter().map(row))
        }
    }
}

fn row(process: &Process) -> Vec<u8> {
    let numbers: [u64; 9] = [
        process.pid.into(),
        process.ppid.into(),
        process.pgid.into(),
        process.sid.into(),
        process.threads.into(),
        process.cpu_ns,
        process.elapsed_ns,
        process.virtual_bytes,
        process.resident_bytes,
    ];
    let mut fields: Vec<Vec<u8>> = numbers.map(|number| number.to_string().into_bytes()).into();
    fields.push(vec![process.state]);
    fields.push(process.command.clone());
    frame::join(fields)
}

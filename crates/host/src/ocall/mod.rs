//! Serves the kernel's calls. The numbers and arguments are those of `occlum_abi::ocall`.
//!
//! - `files`: descriptors that the kernel may use
//! - `control`: requests to the kernel, and its answers
//! - `stdio`: reading and writing without blocking, terminals
//! - `hostfs`: paths below a directory
//! - `socket`, `datagram`: sockets
//! - `park`: waiting and waking; `watch`: events
//! - `memory`: pages
//! - `time`: the clock
//!
//! The kernel is not trusted here either: an argument that makes no sense is an errno.

mod control;
mod datagram;
pub mod files;
mod hostfs;
mod memory;
pub mod park;
mod socket;
mod stdio;
pub mod time;
mod watch;

use crate::cpu::Registers;
use crate::error::EXIT_STATUS;
use crate::instance::Instance;
use crate::sys;
use crate::terminal;
use crate::ticker;
use occlum_abi::ocall::{Ocall, StopReason};
use rustix::io::Errno;
use std::io::Write;
use std::sync::Arc;

/// RDI and RSI at the next entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answer {
    value: u64,
    second: u64,
}

type Served = Result<Answer, Errno>;

impl From<usize> for Answer {
    fn from(value: usize) -> Answer {
        Answer {
            value: value as u64,
            second: 0,
        }
    }
}

impl From<()> for Answer {
    fn from((): ()) -> Answer {
        Answer::default()
    }
}

/// One call with its arguments in RSI, RDX, R8, R9, R10.
struct Call<'a> {
    instance: &'a Arc<Instance>,
    vcpu: usize,
    args: [u64; 5],
}

/// Executes the call that the kernel left with; gives the registers to enter with.
pub fn serve(instance: &Arc<Instance>, vcpu: usize, out: &Registers) -> Registers {
    let call = Call {
        instance,
        vcpu,
        args: [out.rsi, out.rdx, out.r8, out.r9, out.r10],
    };
    instance.counters[vcpu].count_ocall(out.rdi);
    let served = Ocall::from_raw(out.rdi)
        .ok_or(Errno::NOSYS)
        .and_then(|ocall| dispatch(ocall, &call));
    let answer = served.unwrap_or_else(|errno| Answer {
        value: i64::from(-errno.raw_os_error()).cast_unsigned(),
        second: 0,
    });
    Registers {
        rdi: answer.value,
        rsi: answer.second,
        ..Registers::default()
    }
}

fn dispatch(ocall: Ocall, call: &Call) -> Served {
    match ocall {
        Ocall::Resume => Err(Errno::INVAL),
        Ocall::Exit => end(call.args[0]),
        Ocall::Stop => stop(call.args),
        Ocall::Log => log(call),
        Ocall::Park => park::park(call),
        Ocall::Wake => park::wake(call),
        Ocall::Kick => park::kick(call),
        Ocall::StartTicker => ticker::start(call.instance).map(Answer::from),
        Ocall::Protect => memory::protect(call),
        Ocall::Release => memory::release(call),
        Ocall::Discard => memory::discard(call),
        Ocall::Install => memory::install(call),
        Ocall::Cpuid => cpuid(call),
        Ocall::UpdateTime => time::update(call),
        Ocall::Random => random(call),
        Ocall::Read => stdio::read(call),
        Ocall::Write => stdio::write(call),
        Ocall::ReadAt => files::read_at(call),
        Ocall::WriteAt => files::write_at(call),
        Ocall::Close => files::close(call),
        Ocall::EventAdd => watch::event_add(call),
        Ocall::EventRemove => watch::event_remove(call),
        Ocall::PollEvents => watch::poll_events(call),
        Ocall::Fstat => files::fstat(call),
        Ocall::Ioctl => stdio::ioctl(call),
        Ocall::Open => hostfs::open(call),
        Ocall::Stat => hostfs::stat(call),
        Ocall::ReadDir => hostfs::read_dir(call),
        Ocall::Mkdir => hostfs::mkdir(call),
        Ocall::Unlink => hostfs::unlink(call),
        Ocall::Rename => hostfs::rename(call),
        Ocall::Symlink => hostfs::symlink(call),
        Ocall::ReadLink => hostfs::read_link(call),
        Ocall::Link => hostfs::link(call),
        Ocall::Chmod => hostfs::chmod(call),
        Ocall::Chown => hostfs::chown(call),
        Ocall::Utimes => hostfs::utimes(call),
        Ocall::Truncate => files::truncate(call),
        Ocall::Sync => files::sync(call),
        Ocall::StatFs => files::statfs(call),
        Ocall::SocketOpen => socket::open(call),
        Ocall::SocketBind => socket::bind(call),
        Ocall::SocketListen => socket::listen(call),
        Ocall::SocketAccept => socket::accept(call),
        Ocall::SocketConnect => socket::connect(call),
        Ocall::SocketShutdown => socket::shutdown(call),
        Ocall::SocketName => socket::name(call),
        Ocall::SocketSend => socket::send(call),
        Ocall::SocketReceive => socket::receive(call),
        Ocall::SocketSendTo => datagram::send(call),
        Ocall::SocketReceiveFrom => datagram::receive(call),
        Ocall::SocketSetOption => socket::set_option(call),
        Ocall::SocketGetOption => socket::get_option(call),
        Ocall::SocketPoll => socket::poll_now(call),
        Ocall::SocketPending => socket::pending(call),
        Ocall::Interfaces => socket::interfaces(call),
        Ocall::Lock => files::lock(call),
        Ocall::TakeRequest => control::take_request(call),
        Ocall::Answer => control::answer(call),
        Ocall::Trace => control::trace(call),
        Ocall::Report => control::report(call),
        Ocall::Mapped => control::mapped(call),
    }
}

impl Call<'_> {
    /// The bytes that arguments `at` (address) and `at + 1` (length) name, copied.
    fn bytes(&self, at: usize) -> Result<Vec<u8>, Errno> {
        Ok(self.buffer(at)?.to_vec())
    }

    /// The buffer that arguments `at` (address) and `at + 1` (bytes) name. One at a time.
    fn buffer(&self, at: usize) -> Result<&mut [u8], Errno> {
        self.instance
            .staging(self.vcpu, self.args[at], self.args[at + 1])
    }

    /// Writes a structure to the address in argument `at`.
    fn put<T: Copy>(&self, at: usize, value: T) -> Result<(), Errno> {
        let to = self
            .instance
            .staging(self.vcpu, self.args[at], size_of::<T>() as u64)?;
        // SAFETY: a structure of plain numbers; `to` has its size.
        unsafe { to.as_mut_ptr().cast::<T>().write_unaligned(value) };
        Ok(())
    }

    fn vcpu_argument(&self) -> Result<usize, Errno> {
        let vcpu = usize::try_from(self.args[0]).ok();
        vcpu.filter(|&vcpu| vcpu < self.instance.vcpus)
            .ok_or(Errno::INVAL)
    }
}

/// The wait status becomes the exit status a shell would show.
pub fn end(wait_status: u64) -> ! {
    let signal = (wait_status & 0x7F) as i32;
    let code = (wait_status >> 8 & 0xFF) as i32;
    if signal == 0 {
        sys::exit(code);
    }
    terminal::restore();
    sys::exit(128 + signal)
}

fn stop([reason, text @ ..]: [u64; 5]) -> ! {
    const REASONS: [(StopReason, &str); 3] = [
        (StopReason::KernelBug, "the kernel found a bug in itself"),
        (StopReason::HostMisbehaved, "the host misbehaved"),
        (StopReason::CannotStart, "the instance can't start"),
    ];
    let known = REASONS.iter().find(|(known, _)| *known as u64 == reason);
    let reason = known.map_or("no known reason", |(_, text)| text);
    let detail: String = text
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .map(char::from)
        .filter(|byte| byte.is_ascii_graphic() || *byte == ' ')
        .collect();
    let separator = if detail.is_empty() { "" } else { ": " };
    terminal::restore();
    let line = format!("error: the enclave has stopped: {reason}{separator}{detail}\n");
    // In one write, or a program's output on another vCPU gets into it.
    let _ = std::io::stderr().write_all(line.as_bytes());
    sys::exit(EXIT_STATUS)
}

fn log(call: &Call) -> Served {
    const NAMES: [&str; 6] = ["OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
    let level = usize::try_from(call.args[0]).ok();
    let name = level
        .and_then(|level| NAMES.get(level))
        .ok_or(Errno::INVAL)?;
    let text = call.buffer(1)?;
    let mut line = Vec::with_capacity(text.len() + 16);
    line.extend_from_slice(b"[");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"] ");
    line.extend_from_slice(text);
    line.push(b'\n');
    // Nobody to tell if the log can't be written.
    let _ = std::io::stderr().write_all(&line);
    Ok(().into())
}

fn cpuid(call: &Call) -> Served {
    let operand = |at: usize| u32::try_from(call.args[at]).map_err(|_| Errno::INVAL);
    call.put(2, sys::cpuid(operand(0)?, operand(1)?))?;
    Ok(().into())
}

fn random(call: &Call) -> Served {
    let buffer = call.buffer(0)?;
    let filled = rustix::rand::getrandom(buffer, rustix::rand::GetRandomFlags::empty())?;
    Ok(filled.into())
}

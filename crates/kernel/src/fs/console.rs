//! Standard input, output and error of the host program: streams, nothing the host says is trusted.
//!
//! Reads and writes are non-blocking ocalls; a task that must wait watches the descriptor and sleeps inside.
//! What was read but not delivered (a poll looked, or the program's buffer faulted) waits in `pending`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use occlum_abi::ocall::Ocall;
use occlum_enclave::host;
use spin::Once;

use super::hostcall::{self, stat_of};
use crate::error::{Errno, Error, Result, err};
use crate::process;
use crate::sched::{Mutex, Waiter, Wake, events};
use crate::user::{self, UserAddr};
use crate::vfs::file::{File, Wait};
use crate::vfs::inode::{Attr, Kind, Position};
use crate::vfs::poll::wait_error;
use crate::vfs::{Events, Sink, Source};

const POLLIN: u32 = 1;
const POLLOUT: u32 = 4;

/// Bytes moved in one ocall at most, below the staging size.
const CHUNK: usize = 64 << 10;
/// Writes up to this use the stack.
const SMALL: usize = 1024;

/// The terminal the program was started on: what /dev/tty is.
static TERMINAL: Once<Arc<Console>> = Once::new();

/// The terminal's foreground process group; 0 until one was set.
static FOREGROUND: AtomicU32 = AtomicU32::new(0);

pub fn terminal() -> Option<Arc<Console>> {
    TERMINAL.get().cloned()
}

/// One of the host's descriptors 0, 1, 2.
pub struct Console {
    fd: u32,
    attr: Attr,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    start: usize,
    is_end: bool,
}

impl Pending {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Console {
    /// `None` if the host program was started with the descriptor closed.
    pub fn open(fd: u32) -> Option<Arc<Console>> {
        let attr = stat_of(fd).ok()?;
        let console = Arc::new(Console { fd, attr, pending: Mutex::new(Pending::default()) });
        if console.is_terminal() {
            TERMINAL.call_once(|| console.clone());
        }
        Some(console)
    }

    pub fn is_terminal(&self) -> bool {
        Kind::from_mode(self.attr.mode) == Some(Kind::CharDevice)
            && self.host_ioctl(TCGETS, &mut [0; TERMIOS_SIZE]).is_ok()
    }

    /// Makes `pending` non-empty if the host has data; `None` if it has none now.
    fn fill(&self, pending: &mut Pending, wanted: usize) -> Option<Result<()>> {
        if !pending.rest().is_empty() || pending.is_end {
            return Some(Ok(()));
        }
        let staging = host::staging();
        let size = wanted.clamp(1, CHUNK.min(staging.size()));
        let args = [u64::from(self.fd), staging.addr(), size as u64, 0, 0];
        match hostcall::checked(Ocall::Read, args, size) {
            Ok(0) => pending.is_end = true,
            Ok(count) => {
                pending.bytes.resize(count, 0);
                pending.start = 0;
                hostcall::copy_in(Ocall::Read, &staging, &mut pending.bytes);
            }
            Err(Errno::EAGAIN) => return None,
            Err(errno) => return Some(err(errno, "the host's descriptor")),
        }
        Some(Ok(()))
    }

    /// Sleeps until the host's descriptor may be ready.
    fn wait_for(&self, events: u32, wait: Wait) -> Result<()> {
        if wait == Wait::Never {
            return err(Errno::EAGAIN, "would block");
        }
        let waiter = Waiter::new();
        let handle: Arc<dyn Wake> = waiter.clone();
        events::watch(self.fd, events, handle.clone());
        let result = waiter.wait(None, true);
        events::unwatch(self.fd, &handle);
        result.map_err(wait_error)
    }

    /// Sends the first bytes of `bytes`; gives how many, `None` if there is no room now.
    fn send(&self, bytes: &[u8]) -> Option<Result<usize>> {
        let staging = host::staging();
        let size = bytes.len().min(staging.size());
        hostcall::copy_out(&staging, &bytes[..size]);
        let args = [u64::from(self.fd), staging.addr(), size as u64, 0, 0];
        match hostcall::checked(Ocall::Write, args, size) {
            Err(Errno::EAGAIN) => None,
            Err(errno) => Some(err(errno, "the host's descriptor")),
            Ok(count) => Some(Ok(count)),
        }
    }

    /// The host knows nothing of process groups inside, so the foreground group is kept here.
    fn job_control(&self, request: u32, arg: UserAddr) -> Result<usize> {
        let Some(thread) = process::current().filter(|_| self.is_terminal()) else {
            return err(Errno::ENOTTY, "not a terminal");
        };
        match request {
            TIOCGPGRP => {
                let group = match FOREGROUND.load(Ordering::Relaxed) {
                    0 => thread.process().pgid(),
                    group => group,
                };
                user::write(arg, &group)?;
            }
            TIOCGSID => user::write(arg, &thread.process().sid())?,
            TIOCSPGRP => {
                let group = user::read::<u32>(arg)?;
                if !process::tree::is_group_in_session(group, thread.process().sid()) {
                    return err(Errno::EPERM, "a group of another session");
                }
                FOREGROUND.store(group, Ordering::Relaxed);
            }
            _ => {}
        }
        Ok(0)
    }

    fn host_ioctl(&self, request: u32, data: &mut [u8]) -> Result<()> {
        let staging = host::staging();
        hostcall::copy_out(&staging, data);
        let args = [u64::from(self.fd), u64::from(request), staging.addr(), data.len() as u64, 0];
        hostcall::checked(Ocall::Ioctl, args, 0).map_err(|errno| Error::new(errno, "the host's ioctl"))?;
        hostcall::copy_in(Ocall::Ioctl, &staging, data);
        Ok(())
    }
}

impl File for Console {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn label(&self) -> String {
        match Kind::from_mode(self.attr.mode) {
            Some(Kind::Fifo) => format!("pipe:[{}]", self.attr.ino),
            Some(Kind::Socket) => format!("socket:[{}]", self.attr.ino),
            _ => String::from(["/dev/stdin", "/dev/stdout", "/dev/stderr"][self.fd.min(2) as usize]),
        }
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        if sink.room() == 0 {
            return Ok(());
        }
        loop {
            {
                let mut pending = self.pending.lock();
                if let Some(filled) = self.fill(&mut pending, sink.room()) {
                    filled?;
                    let copied = sink.put(pending.rest());
                    pending.start += copied;
                    // The end of a terminal's input is told once.
                    pending.is_end = false;
                    return Ok(());
                }
            }
            if sink.done() > 0 {
                return Ok(());
            }
            self.wait_for(POLLIN, wait)?;
        }
    }

    fn write(&self, _at: Position, source: &mut Source<'_>, wait: Wait) -> Result<u64> {
        let mut small = [0; SMALL];
        let mut large = Vec::new();
        while source.left() > 0 {
            let size = source.left().min(CHUNK);
            let buf = if size <= SMALL {
                &mut small[..size]
            } else {
                large = vec![0; size];
                &mut large[..]
            };
            let mark = *source;
            let taken = source.take(buf);
            let mut sent = 0;
            while sent < taken {
                match self.send(&buf[sent..taken]) {
                    Some(Ok(count)) => sent += count,
                    Some(Err(error)) => {
                        source.rewind(mark, sent);
                        return Err(error);
                    }
                    None => {
                        if let Err(error) = self.wait_for(POLLOUT, wait) {
                            source.rewind(mark, sent);
                            return Err(error);
                        }
                    }
                }
            }
        }
        drop(large);
        Ok(0)
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        let mut ready = Events::OUT;
        let filled = self.fill(&mut self.pending.lock(), CHUNK);
        match filled {
            Some(Ok(())) => ready |= Events::IN,
            Some(Err(_)) => ready |= Events::ERR,
            None => {
                if let Some(waker) = waker {
                    events::watch(self.fd, POLLIN, waker.clone());
                }
            }
        }
        ready
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        events::unwatch(self.fd, waker);
    }

    fn keeps_wakers(&self) -> bool {
        false
    }

    fn is_pollable(&self) -> bool {
        Kind::from_mode(self.attr.mode) != Some(Kind::Regular)
    }

    fn readable_bytes(&self) -> Result<usize> {
        let pending = self.pending.lock().rest().len();
        let mut data = [0; 4];
        match self.host_ioctl(FIONREAD, &mut data) {
            Ok(()) => Ok(pending + u32::from_le_bytes(data) as usize),
            Err(_) if pending > 0 => Ok(pending),
            Err(error) => Err(error),
        }
    }

    fn ioctl(&self, request: u32, arg: UserAddr) -> Result<usize> {
        if matches!(request, TIOCGPGRP | TIOCSPGRP | TIOCSCTTY | TIOCGSID) {
            return self.job_control(request, arg);
        }
        let (size, reads, writes) = match request {
            TCGETS => (TERMIOS_SIZE, false, true),
            TCSETS | TCSETSW | TCSETSF => (TERMIOS_SIZE, true, false),
            TIOCGWINSZ => (8, false, true),
            TIOCSWINSZ => (8, true, false),
            _ => return err(Errno::ENOTTY, "no such terminal request"),
        };
        let mut data = [0; TERMIOS_SIZE];
        if reads {
            user::read_bytes(arg, &mut data[..size])?;
        }
        self.host_ioctl(request, &mut data[..size])?;
        if writes {
            user::write_bytes(arg, &data[..size])?;
        }
        Ok(0)
    }
}

pub const TCGETS: u32 = 0x5401;
pub const TCSETS: u32 = 0x5402;
pub const TCSETSW: u32 = 0x5403;
pub const TCSETSF: u32 = 0x5404;
pub const TIOCSCTTY: u32 = 0x540e;
pub const TIOCGPGRP: u32 = 0x540f;
pub const TIOCSPGRP: u32 = 0x5410;
pub const TIOCGSID: u32 = 0x5429;
pub const TIOCGWINSZ: u32 = 0x5413;
pub const TIOCSWINSZ: u32 = 0x5414;
pub const FIONREAD: u32 = 0x541b;
/// The kernel's `struct termios`.
const TERMIOS_SIZE: usize = 36;

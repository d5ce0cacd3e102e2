//! Standard input, output and error of programs the host asked to start: streams, nothing the host says
//! is trusted.
//!
//! A terminal among them stays the host's, with its line discipline; who owns it inside (session, foreground
//! group) is kept here, and its signals come as requests of the host. Reads and writes are non-blocking ocalls; a task that must wait watches the descriptor and sleeps inside.
//! What was read but not delivered (a poll looked, or the program's buffer faulted) waits in `pending`.

use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;

use occlum_abi::ocall::Ocall;
use occlum_enclave::host;

use super::hostcall::{self, stat_of};
use super::pty::job::{self, Owned, Ownership, Side};
use crate::error::{Errno, Error, Result, err};
use crate::process;
use crate::sched::{Mutex, SpinLock, Waiter, Wake, events};
use crate::signal::Signal;
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

/// Terminals of the host that belong, or belonged, to a session.
static TERMINALS: SpinLock<Vec<Weak<Console>>> = SpinLock::new(Vec::new());

/// The controlling terminal of a session, if it is one of the host's.
pub fn of_session(session: u32) -> Option<Arc<Console>> {
    let consoles: Vec<_> = TERMINALS.lock().iter().filter_map(Weak::upgrade).collect();
    consoles.into_iter().find(|console| console.ownership(|owner| owner.session == session))
}

/// The terminal of the calling process, for /dev/tty.
pub fn controlling() -> Option<Arc<Console>> {
    of_session(process::current()?.process().sid())
}

/// One of the host's descriptors.
pub struct Console {
    fd: u32,
    attr: Attr,
    /// Shared by descriptors of the same terminal.
    pending: Arc<Mutex<Pending>>,
    terminal: Option<Arc<SpinLock<Ownership>>>,
}

/// A descriptor that the host opened for one program; 0, 1 and 2 stay open.
const FIRST_OPENED: u32 = 3;

impl Drop for Console {
    fn drop(&mut self) {
        if self.terminal.is_some() {
            TERMINALS.lock().retain(|console| console.strong_count() > 0);
        }
        close(self.fd);
    }
}

fn close(fd: u32) {
    if fd >= FIRST_OPENED {
        // One that the host does not know is as good as closed.
        let _ = hostcall::checked(Ocall::Close, [u64::from(fd), 0, 0, 0, 0], 0);
    }
}

impl Owned for Console {
    fn ownership<R>(&self, act: impl FnOnce(&mut Ownership) -> R) -> R {
        match &self.terminal {
            Some(terminal) => act(&mut terminal.lock()),
            None => act(&mut Ownership::default()),
        }
    }
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
    /// Takes over standard input, output and error; `None` for one that is closed. Descriptors of one
    /// terminal share what was read from it and who owns it.
    pub fn open_all(fds: [Option<u32>; 3]) -> [Option<Arc<Console>>; 3] {
        let mut opened: [Option<Arc<Console>>; 3] = [None, None, None];
        for (at, fd) in fds.into_iter().enumerate() {
            let Some(fd) = fd else { continue };
            let attr = stat_of(fd).ok();
            let same = |other: &&Arc<Console>| {
                other.is_terminal() && attr.is_some_and(|attr| attr.rdev == other.attr.rdev)
            };
            let relative = opened.iter().flatten().find(same).cloned();
            opened[at] = attr.map(|attr| Console::open(fd, attr, relative.as_deref()));
            if opened[at].is_none() {
                close(fd);
            }
        }
        opened
    }

    fn open(fd: u32, attr: Attr, relative: Option<&Console>) -> Arc<Console> {
        let is_terminal = Kind::from_mode(attr.mode) == Some(Kind::CharDevice)
            && host_ioctl(fd, TCGETS, &mut [0; TERMIOS_SIZE]).is_ok();
        let related = relative.filter(|_| is_terminal);
        let console = Arc::new(Console {
            fd,
            attr,
            pending: match related {
                Some(other) => other.pending.clone(),
                None => Arc::new(Mutex::new(Pending::default())),
            },
            terminal: match related {
                Some(other) => other.terminal.clone(),
                None => is_terminal.then(Arc::default),
            },
        });
        if is_terminal {
            TERMINALS.lock().push(Arc::downgrade(&console));
        }
        console
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Makes the leader of a new session the owner, if this is a terminal.
    pub fn give_to(&self, leader: u32) {
        self.ownership(|owner| *owner = Ownership { session: leader, foreground: leader });
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

    /// The host knows nothing of process groups inside: all are its foreground.
    fn job_control(&self, request: u32, arg: UserAddr) -> Result<usize> {
        match request {
            TIOCGPGRP => job::tell(self, self.ownership(|owner| owner.foreground), arg, Side::Slave),
            TIOCGSID => job::tell(self, self.ownership(|owner| owner.session), arg, Side::Slave),
            TIOCSPGRP => job::set_foreground(self, arg),
            TIOCNOTTY => job::give_up(self),
            _ => job::set_controlling(self),
        }
    }

    /// SIGTTOU for a background process that prints, if the terminal is set so (stty tostop).
    fn check_printing(&self) -> Result<()> {
        let is_background = self.is_terminal() && job::is_background(self);
        let mut termios = [0; TERMIOS_SIZE];
        if is_background && host_ioctl(self.fd, TCGETS, &mut termios).is_ok() {
            let [.., l0, l1, l2, l3] = *termios.first_chunk::<16>().unwrap_or(&[0; 16]);
            if u32::from_le_bytes([l0, l1, l2, l3]) & TOSTOP != 0 {
                job::check_foreground(self, Signal::TTOU)?;
            }
        }
        Ok(())
    }
}

fn host_ioctl(fd: u32, request: u32, data: &mut [u8]) -> Result<()> {
    let staging = host::staging();
    hostcall::copy_out(&staging, data);
    let args = [u64::from(fd), u64::from(request), staging.addr(), data.len() as u64, 0];
    hostcall::checked(Ocall::Ioctl, args, 0).map_err(|errno| Error::new(errno, "the host's ioctl"))?;
    hostcall::copy_in(Ocall::Ioctl, &staging, data);
    Ok(())
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
        if self.is_terminal() {
            job::check_foreground(self, Signal::TTIN)?;
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
        self.check_printing()?;
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
        match host_ioctl(self.fd, FIONREAD, &mut data) {
            Ok(()) => Ok(pending + u32::from_le_bytes(data) as usize),
            Err(_) if pending > 0 => Ok(pending),
            Err(error) => Err(error),
        }
    }

    fn ioctl(&self, request: u32, arg: UserAddr) -> Result<usize> {
        if self.is_terminal() && matches!(request, TIOCGPGRP | TIOCSPGRP | TIOCSCTTY | TIOCGSID | TIOCNOTTY) {
            return self.job_control(request, arg);
        }
        if self.is_terminal() && matches!(request, TCSETS | TCSETSW | TCSETSF) {
            job::check_foreground(self, Signal::TTOU)?;
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
        host_ioctl(self.fd, request, &mut data[..size])?;
        if writes {
            user::write_bytes(arg, &data[..size])?;
        }
        Ok(0)
    }
}

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TIOCSCTTY: u32 = 0x540e;
const TIOCGPGRP: u32 = 0x540f;
const TIOCSPGRP: u32 = 0x5410;
const TIOCNOTTY: u32 = 0x5422;
const TIOCGSID: u32 = 0x5429;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;
const FIONREAD: u32 = 0x541b;
const TOSTOP: u32 = 0o400;
/// The kernel's `struct termios`.
const TERMIOS_SIZE: usize = 36;

//! The two sides as open files: the master that a terminal emulator holds, the slave that programs see.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use super::job::{self, Owned, Side};
use super::pair::{self, Pair, WindowSize};
use super::termios::{TOSTOP, Termios, VMIN, VTIME};
use crate::error::{Errno, Error, Result, err};
use crate::process;
use crate::sched::{Wake, timer};
use crate::signal::Signal;
use crate::user::{self, UserAddr};
use crate::vfs::file::{File, Wait};
use crate::vfs::flags::{O_CLOEXEC, O_NOCTTY};
use crate::vfs::inode::{Attr, InodeRef, Position};
use crate::vfs::table::OnExec;
use crate::vfs::{Events, OpenFile, Sink, Source, walk};

pub struct Master {
    pair: Arc<Pair>,
    node: InodeRef,
}

pub struct Slave {
    pair: Arc<Pair>,
    node: InodeRef,
}

/// Opens /dev/ptmx.
pub fn open_master(node: InodeRef) -> Result<Arc<dyn File>> {
    let owner = match process::current() {
        Some(thread) => {
            let credentials = thread.credentials();
            (credentials.fsuid(), credentials.fsgid())
        }
        None => (0, 0),
    };
    Ok(Arc::new(Master { pair: pair::create(owner)?, node }))
}

/// Opens /dev/pts/N; `flags` as open(2).
pub fn open_slave(pair: Arc<Pair>, node: InodeRef, flags: u32) -> Result<Arc<dyn File>> {
    let opened = pair.with(|state| {
        if state.is_locked || !state.is_master_open {
            return err(Errno::EIO, "the terminal is locked or gone");
        }
        if state.is_exclusive && state.slaves > 0 {
            return err(Errno::EBUSY, "TIOCEXCL");
        }
        state.slaves += 1;
        state.was_opened = true;
        Ok(())
    });
    opened?;
    if flags & O_NOCTTY == 0 {
        job::adopt_at_open(pair.as_ref());
    }
    Ok(Arc::new(Slave { pair, node }))
}

/// The controlling terminal of the calling process, for /dev/tty.
pub fn open_controlling() -> Option<Arc<dyn File>> {
    let pair = pair::of_session(process::current()?.process().sid())?;
    let node = super::devpts::node(pair.clone());
    open_slave(pair, node, O_NOCTTY).ok()
}

impl Drop for Master {
    fn drop(&mut self) {
        self.pair.hang_up();
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        self.pair.with(|state| state.slaves -= 1);
        self.pair.output.notify();
    }
}

impl File for Master {
    fn can_signal(&self) -> bool {
        true
    }

    fn attr(&self) -> Result<Attr> {
        self.node.attr()
    }

    fn label(&self) -> String {
        String::from("/dev/ptmx")
    }

    fn inode(&self) -> Option<&InodeRef> {
        Some(&self.node)
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        if sink.room() == 0 {
            return Ok(());
        }
        let wait = if sink.done() > 0 { Wait::Never } else { wait };
        self.pair.output.wait(wait, || self.pair.try_show(sink))?
    }

    fn write(&self, _at: Position, source: &mut Source<'_>, wait: Wait) -> Result<u64> {
        while source.left() > 0 {
            self.pair.input.wait(wait, || self.pair.try_type(source))?;
        }
        Ok(0)
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        add_waker(&self.pair, waker);
        self.pair.with(|state| {
            let mut events = Events::NONE;
            if !state.output.is_empty() {
                events |= Events::IN;
            }
            if state.discipline.has_room() {
                events |= Events::OUT;
            }
            if state.was_opened && state.slaves == 0 {
                events |= Events::HUP;
            }
            events
        })
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        forget_waker(&self.pair, waker);
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.pair.with(|state| state.output.len()))
    }

    fn raises_sigpipe(&self) -> bool {
        false
    }

    fn ioctl(&self, request: u32, arg: UserAddr) -> Result<usize> {
        match request {
            TIOCGPTN => user::write(arg, &self.pair.index)?,
            TIOCSPTLCK => {
                let is_locked = user::read::<i32>(arg)? != 0;
                self.pair.with(|state| state.is_locked = is_locked);
            }
            TIOCGPTLCK => user::write(arg, &i32::from(self.pair.with(|state| state.is_locked)))?,
            TIOCGPTPEER => return open_peer(&self.pair, arg.0 as u32),
            TIOCSIG => {
                let Some(signal) = Signal::new(arg.0 as i32) else { return err(Errno::EINVAL, "signal") };
                job::signal_group(self.pair.ownership(|owner| owner.foreground), signal);
            }
            _ => return terminal_ioctl(&self.pair, Side::Master, request, arg),
        }
        Ok(0)
    }
}

/// TIOCGPTPEER: a descriptor for the slave, whatever /dev/pts is now. `flags` as open(2).
fn open_peer(pair: &Arc<Pair>, flags: u32) -> Result<usize> {
    let Some(thread) = process::current() else { return err(Errno::EIO, "no calling thread") };
    let slave = open_slave(pair.clone(), super::devpts::node(pair.clone()), flags)?;
    let name = format!("/dev/pts/{}", pair.index);
    let path = walk::lookup(thread.fs(), &crate::vfs::Identity::ROOT, name.as_bytes()).ok();
    let file = OpenFile::with_path(slave, path, flags);
    let on_exec = OnExec::when(flags & O_CLOEXEC != 0);
    Ok(thread.files().insert(file, on_exec)? as usize)
}

impl Slave {
    /// Waits until a read may return, as VMIN and VTIME say in raw mode.
    fn wait_for_input(&self, room: usize, wait: Wait) -> Result<()> {
        let is_line = || self.pair.with(|state| {
            let is_ready = state.discipline.has_line() || !state.is_master_open;
            (is_ready || !state.discipline.termios.is_canonical()).then_some(())
        });
        if self.pair.with(|state| state.discipline.termios.is_canonical()) {
            return self.pair.input.wait(wait, is_line);
        }
        let (min, time) = self.pair.with(|state| {
            let cc = &state.discipline.termios.cc;
            (usize::from(cc[VMIN]), u64::from(cc[VTIME]) * 100_000_000)
        });
        let has = |count: usize| move |pair: &Pair| pair.with(|state| {
            (state.discipline.readable() >= count || !state.is_master_open).then_some(())
        });
        let wanted = min.min(room);
        match (min, time) {
            (0, 0) => Ok(()),
            (0, time) => self.wait_briefly(time, || has(1)(&self.pair)),
            (_, 0) => self.pair.input.wait(wait, || has(wanted)(&self.pair)),
            (_, time) => {
                // The clock starts with the first byte, and again with each.
                self.pair.input.wait(wait, || has(1)(&self.pair))?;
                loop {
                    let now = self.pair.with(|state| state.discipline.readable());
                    if now >= wanted {
                        return Ok(());
                    }
                    self.wait_briefly(time, || has(now + 1)(&self.pair))?;
                    if self.pair.with(|state| state.discipline.readable()) == now {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads; false if there is nothing, not even an end.
    fn take_input(&self, sink: &mut Sink<'_>) -> bool {
        self.pair.with(|state| {
            let discipline = &mut state.discipline;
            let is_there = match discipline.termios.is_canonical() {
                true => discipline.has_line(),
                false => discipline.readable() > 0 || !discipline.termios.waits(),
            };
            discipline.read(sink);
            is_there || !state.is_master_open
        })
    }

    /// Waits for `ready`, but not longer than `time_ns`.
    fn wait_briefly(&self, time_ns: u64, ready: impl FnMut() -> Option<()>) -> Result<()> {
        let deadline = timer::now_ns().saturating_add(time_ns);
        match self.pair.input.wait_until(Some(deadline), ready) {
            Err(error) if error.errno == Errno::ETIMEDOUT => Ok(()),
            other => other,
        }
    }
}

impl File for Slave {
    fn can_signal(&self) -> bool {
        true
    }

    fn attr(&self) -> Result<Attr> {
        self.node.attr()
    }

    fn label(&self) -> String {
        format!("/dev/pts/{}", self.pair.index)
    }

    fn inode(&self) -> Option<&InodeRef> {
        Some(&self.node)
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        if sink.room() == 0 {
            return Ok(());
        }
        job::check_foreground(self.pair.as_ref(), Signal::TTIN)?;
        loop {
            if sink.done() == 0 {
                self.wait_for_input(sink.room(), wait)?;
            }
            // Another reader may have been faster.
            if self.take_input(sink) || sink.done() > 0 {
                self.pair.input.notify();
                return Ok(());
            }
        }
    }

    fn write(&self, _at: Position, source: &mut Source<'_>, wait: Wait) -> Result<u64> {
        if self.pair.with(|state| state.discipline.termios.local(TOSTOP)) {
            job::check_foreground(self.pair.as_ref(), Signal::TTOU)?;
        }
        while source.left() > 0 {
            self.pair.output.wait(wait, || self.pair.try_print(source))??;
        }
        Ok(0)
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        add_waker(&self.pair, waker);
        self.pair.with(|state| {
            let mut events = Events::NONE;
            let discipline = &state.discipline;
            let min = usize::from(discipline.termios.cc[VMIN].max(1));
            let is_ready = match discipline.termios.is_canonical() {
                true => discipline.has_line(),
                false => discipline.readable() >= if discipline.termios.cc[VTIME] > 0 { 1 } else { min },
            };
            if is_ready {
                events |= Events::IN;
            }
            if state.has_room_to_print() {
                events |= Events::OUT;
            }
            if !state.is_master_open {
                events |= Events::IN | Events::OUT | Events::HUP | Events::ERR;
            }
            events
        })
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        forget_waker(&self.pair, waker);
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.pair.with(|state| state.discipline.readable()))
    }

    fn raises_sigpipe(&self) -> bool {
        false
    }

    fn ioctl(&self, request: u32, arg: UserAddr) -> Result<usize> {
        terminal_ioctl(&self.pair, Side::Slave, request, arg)
    }
}

fn add_waker(pair: &Pair, waker: Option<&Arc<dyn Wake>>) {
    if let Some(waker) = waker {
        pair.input.add(waker);
        pair.output.add(waker);
    }
}

fn forget_waker(pair: &Pair, waker: &Arc<dyn Wake>) {
    pair.input.remove(waker);
    pair.output.remove(waker);
}

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TCSBRK: u32 = 0x5409;
const TCXONC: u32 = 0x540a;
const TCFLSH: u32 = 0x540b;
const TIOCEXCL: u32 = 0x540c;
const TIOCNXCL: u32 = 0x540d;
const TIOCSCTTY: u32 = 0x540e;
const TIOCGPGRP: u32 = 0x540f;
const TIOCSPGRP: u32 = 0x5410;
const TIOCOUTQ: u32 = 0x5411;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;
const TIOCNOTTY: u32 = 0x5422;
const TIOCGETD: u32 = 0x5424;
const TCSBRKP: u32 = 0x5425;
const TIOCGSID: u32 = 0x5429;
const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
const TIOCSIG: u32 = 0x4004_5436;
const TIOCGPTLCK: u32 = 0x8004_5439;
const TIOCGPTPEER: u32 = 0x5441;

/// What both sides answer: requests to the master are about the slave's terminal.
fn terminal_ioctl(pair: &Arc<Pair>, side: Side, request: u32, arg: UserAddr) -> Result<usize> {
    match request {
        TCGETS => user::write(arg, &pair.with(|state| state.discipline.termios))?,
        TCSETS | TCSETSW | TCSETSF => set_termios(pair, side, request, arg)?,
        TIOCGWINSZ => user::write(arg, &pair.with(|state| state.window))?,
        TIOCSWINSZ => pair.set_window(user::read::<WindowSize>(arg)?),
        TIOCGPGRP => return job::tell(pair.as_ref(), pair.ownership(|owner| owner.foreground), arg, side),
        TIOCGSID => return job::tell(pair.as_ref(), pair.ownership(|owner| owner.session), arg, side),
        TIOCSPGRP => return job::set_foreground(pair.as_ref(), arg),
        TIOCSCTTY if side == Side::Slave => return job::set_controlling(pair.as_ref()),
        TIOCNOTTY if side == Side::Slave => return job::give_up(pair.as_ref()),
        TIOCOUTQ => user::write(arg, &0i32)?,
        TIOCGETD => user::write(arg, &0i32)?,
        TIOCEXCL | TIOCNXCL => pair.with(|state| state.is_exclusive = request == TIOCEXCL),
        TCSBRK | TCSBRKP => {}
        TCXONC => flow(pair, arg.0)?,
        TCFLSH => flush(pair, arg.0)?,
        _ => return Err(Error::new(Errno::ENOTTY, "no such terminal request")),
    }
    Ok(0)
}

fn set_termios(pair: &Pair, side: Side, request: u32, arg: UserAddr) -> Result<()> {
    if side == Side::Slave {
        job::check_foreground(pair, Signal::TTOU)?;
    }
    let termios = user::read::<Termios>(arg)?;
    if request == TCSETSF {
        pair.with(|state| state.discipline.flush_input());
    }
    pair.set_termios(termios);
    Ok(())
}

/// tcflow(3).
fn flow(pair: &Pair, action: usize) -> Result<()> {
    match action {
        0 | 1 => pair.with(|state| state.discipline.is_stopped = action == 0),
        2 | 3 => {}
        _ => return err(Errno::EINVAL, "tcflow action"),
    }
    pair.output.notify();
    Ok(())
}

/// tcflush(3).
fn flush(pair: &Pair, queue: usize) -> Result<()> {
    const TCIFLUSH: usize = 0;
    const TCOFLUSH: usize = 1;
    const TCIOFLUSH: usize = 2;
    if queue > TCIOFLUSH {
        return err(Errno::EINVAL, "tcflush queue");
    }
    pair.with(|state| {
        if queue != TCOFLUSH {
            state.discipline.flush_input();
        }
        if queue != TCIFLUSH {
            state.output.clear();
        }
    });
    pair.input.notify();
    pair.output.notify();
    Ok(())
}

//! A pseudo-terminal: the state that its two sides share.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::discipline::Discipline;
use super::job::{self, Owned, Ownership};
use super::termios::Termios;
use crate::error::{Errno, Error, Result, err};
use crate::sched::SpinLock;
use crate::signal::Signal;
use crate::vfs::poll::Readiness;
use crate::vfs::ring::Ring;
use crate::vfs::{Sink, Source};

/// Printed bytes that the master has not read.
const OUTPUT_MAX: usize = 64 << 10;
/// Bytes looked at under one hold of the lock.
const CHUNK: usize = 256;
/// What one printed byte can become (a tab).
const EXPANSION: usize = 8;
/// `kernel.pty.max`.
const COUNT_MAX: u32 = 4096;

/// `struct winsize`.
pub type WindowSize = [u16; 4];

static PAIRS: SpinLock<BTreeMap<u32, Weak<Pair>>> = SpinLock::new(BTreeMap::new());

pub struct Pair {
    pub index: u32,
    /// Who opened the master: owner of the node in /dev/pts.
    pub owner: (u32, u32),
    state: SpinLock<State>,
    /// Slave readers; master writers (room for typing).
    pub input: Readiness,
    /// Master readers; slave writers (room for printing).
    pub output: Readiness,
}

pub struct State {
    pub discipline: Discipline,
    pub output: Ring,
    pub window: WindowSize,
    pub is_locked: bool,
    pub is_exclusive: bool,
    pub is_master_open: bool,
    pub slaves: usize,
    /// A slave was open, and may have been closed since: the master sees a hang-up.
    pub was_opened: bool,
    pub ownership: Ownership,
}

/// Makes a pair with the lowest free number.
pub fn create(owner: (u32, u32)) -> Result<Arc<Pair>> {
    let mut pairs = PAIRS.lock();
    let index = (0..COUNT_MAX).find(|index| !pairs.contains_key(index));
    let Some(index) = index else { return err(Errno::ENOSPC, "too many pseudo-terminals") };
    let pair = Arc::new(Pair {
        index,
        owner,
        state: SpinLock::new(State {
            discipline: Discipline::new(),
            output: Ring::new(),
            window: [0; 4],
            is_locked: true,
            is_exclusive: false,
            is_master_open: true,
            slaves: 0,
            was_opened: false,
            ownership: Ownership::default(),
        }),
        input: Readiness::new(),
        output: Readiness::new(),
    });
    pairs.insert(index, Arc::downgrade(&pair));
    Ok(pair)
}

/// The pair with a number, while its master is open.
pub fn find(index: u32) -> Option<Arc<Pair>> {
    let pair = PAIRS.lock().get(&index).and_then(Weak::upgrade)?;
    let is_there = pair.with(|state| state.is_master_open);
    is_there.then_some(pair)
}

/// Numbers in use, ascending, from `first` on.
pub fn indices(first: u32) -> Vec<u32> {
    let all: Vec<u32> = PAIRS.lock().range(first..).map(|(&index, _)| index).collect();
    all.into_iter().filter(|&index| find(index).is_some()).collect()
}

/// The controlling terminal of a session.
pub fn of_session(session: u32) -> Option<Arc<Pair>> {
    let pairs: Vec<_> = PAIRS.lock().values().filter_map(Weak::upgrade).collect();
    pairs.into_iter().find(|pair| pair.with(|state| state.ownership.session == session && state.is_master_open))
}

impl Drop for Pair {
    fn drop(&mut self) {
        PAIRS.lock().remove(&self.index);
    }
}

impl Owned for Pair {
    fn ownership<R>(&self, act: impl FnOnce(&mut Ownership) -> R) -> R {
        act(&mut self.state.lock().ownership)
    }
}

impl Pair {
    /// Acts on the state under its lock.
    pub fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.lock())
    }

    /// The master writes: somebody types. `None`: no room yet.
    pub fn try_type(&self, source: &mut Source<'_>) -> Option<()> {
        let mut echo = Vec::new();
        let mut was_blocked = true;
        while source.left() > 0 {
            let mark = *source;
            let signal = {
                let mut state = self.state.lock();
                if !state.discipline.has_room() {
                    break;
                }
                was_blocked = false;
                let mut typed = [0; CHUNK];
                let count = source.take(&mut typed);
                let (used, signal) = state.type_bytes(&typed[..count], &mut echo);
                if used < count {
                    source.rewind(mark, used);
                }
                signal.map(|signal| (signal, state.ownership.foreground))
            };
            if let Some((signal, group)) = signal {
                job::signal_group(group, signal);
            }
        }
        self.input.notify();
        self.output.notify();
        (!was_blocked || source.left() == 0).then_some(())
    }

    /// The slave writes: a program prints. `None`: no room yet, or output is stopped.
    pub fn try_print(&self, source: &mut Source<'_>) -> Option<Result<()>> {
        let result = {
            let mut state = self.state.lock();
            if !state.is_master_open {
                return Some(err(Errno::EIO, "the terminal is gone"));
            }
            state.print(source)
        };
        self.output.notify();
        result
    }

    pub fn set_termios(&self, termios: Termios) {
        self.with(|state| state.discipline.set_termios(termios));
        self.input.notify();
        self.output.notify();
    }

    /// TIOCSWINSZ: the foreground group hears of a change.
    pub fn set_window(&self, window: WindowSize) {
        let group = self.with(|state| {
            let is_new = state.window != window;
            state.window = window;
            if is_new { state.ownership.foreground } else { 0 }
        });
        job::signal_group(group, Signal::WINCH);
    }

    /// The master reads what was printed. `None`: nothing yet.
    pub fn try_show(&self, sink: &mut Sink<'_>) -> Option<Result<()>> {
        let mut state = self.state.lock();
        if state.output.is_empty() {
            let is_hung_up = state.was_opened && state.slaves == 0;
            return is_hung_up.then(|| Err(Error::new(Errno::EIO, "nobody has the slave open")));
        }
        state.output.read(sink);
        drop(state);
        self.output.notify();
        Some(Ok(()))
    }

    /// The master is closed: the session loses its terminal.
    pub fn hang_up(&self) {
        self.with(|state| {
            state.is_master_open = false;
            state.discipline.flush_input();
            state.output.clear();
        });
        job::hang_up(self);
        self.input.notify();
        self.output.notify();
    }
}

impl State {
    /// Takes typed bytes up to one that means a signal; says how many.
    fn type_bytes(&mut self, typed: &[u8], echo: &mut Vec<u8>) -> (usize, Option<Signal>) {
        for (index, &byte) in typed.iter().enumerate() {
            echo.clear();
            let signal = self.discipline.input(byte, echo);
            // Echo that does not fit is lost, as on Linux; so is echo without memory for it.
            let room = OUTPUT_MAX - self.output.len();
            let mut shown = Source::kernel(&echo[..echo.len().min(room)]);
            let _ = self.output.write(&mut shown, OUTPUT_MAX);
            if signal.is_some() {
                return (index + 1, signal);
            }
        }
        (typed.len(), None)
    }

    fn print(&mut self, source: &mut Source<'_>) -> Option<Result<()>> {
        let mut expanded = Vec::new();
        let mut has_room = source.left() == 0;
        while source.left() > 0 && !self.discipline.is_stopped {
            let room = (OUTPUT_MAX - self.output.len()) / EXPANSION;
            if room == 0 {
                break;
            }
            has_room = true;
            let mut printed = [0; CHUNK];
            let count = source.take(&mut printed[..room.min(CHUNK)]);
            expanded.clear();
            for &byte in &printed[..count] {
                self.discipline.output(byte, &mut expanded);
            }
            if let Err(error) = self.output.write(&mut Source::kernel(&expanded), OUTPUT_MAX) {
                return Some(Err(error));
            }
        }
        has_room.then_some(Ok(()))
    }

    /// Whether printing would go on.
    pub fn has_room_to_print(&self) -> bool {
        !self.discipline.is_stopped && OUTPUT_MAX - self.output.len() >= EXPANSION
    }
}

//! Timers that send signals.

use alloc::sync::{Arc, Weak};

use spin::Mutex;

use super::clock::Clock;
use crate::process::{Process, ThreadState};
use crate::sched::Wake;
use crate::sched::timer::{self, Alarm};
use crate::signal::{self, SigInfo, Signal};

/// Where an expiry goes.
pub enum Notice {
    /// Nowhere: the program asks for the time left.
    None,
    Process(Weak<Process>, Signal, Origin),
    Thread(Weak<ThreadState>, Signal, Origin),
}

/// What the signal says about its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// setitimer, alarm.
    Interval,
    /// timer_create: the timer's id and `sigev_value`.
    Posix { id: u32, value: u64 },
}

/// A value and an interval, in nanoseconds; value 0 = disarmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    pub value_ns: u64,
    pub interval_ns: u64,
}

/// How exactly processor time is watched: its owner may sleep while the alarm runs.
const CPU_CLOCK_STEP_NS: u64 = 1_000_000;

/// One timer of a program.
pub struct ProgramTimer {
    clock: Clock,
    notice: Notice,
    state: Mutex<State>,
    me: Weak<ProgramTimer>,
}

#[derive(Default)]
struct State {
    /// On the timer's clock; `None` if disarmed.
    deadline_ns: Option<u64>,
    interval_ns: u64,
    alarm: Option<Alarm>,
    /// Expiries since the signal that is still pending was sent.
    overrun: u32,
    /// Overruns of the last signal delivered (timer_getoverrun).
    last_overrun: u32,
    is_signal_pending: bool,
}

impl ProgramTimer {
    pub fn new(clock: Clock, notice: Notice) -> Arc<ProgramTimer> {
        Arc::new_cyclic(|me| ProgramTimer {
            clock,
            notice,
            state: Mutex::new(State::default()),
            me: me.clone(),
        })
    }

    /// The time left and the interval.
    pub fn get(&self) -> Setting {
        let now = self.clock.now_ns();
        let state = self.state.lock();
        Setting {
            // Armed but due: 1 ns, because 0 means disarmed.
            value_ns: state.deadline_ns.map_or(0, |deadline| deadline.saturating_sub(now).max(1)),
            interval_ns: state.interval_ns,
        }
    }

    /// Arms (or disarms) the timer to expire `setting.value_ns` from now; gives what it was.
    pub fn set(&self, setting: Setting) -> Setting {
        let deadline = self.clock.now_ns().saturating_add(setting.value_ns);
        self.set_at(deadline, setting)
    }

    /// The same with the time on the timer's clock; disarms if `setting.value_ns` is 0.
    pub fn set_at(&self, deadline_ns: u64, setting: Setting) -> Setting {
        let old = self.get();
        let alarm = (setting.value_ns != 0).then(|| self.arm(deadline_ns)).flatten();
        let replaced = {
            let mut state = self.state.lock();
            state.deadline_ns = (setting.value_ns != 0).then_some(deadline_ns);
            state.interval_ns = setting.interval_ns;
            state.overrun = 0;
            state.is_signal_pending = false;
            core::mem::replace(&mut state.alarm, alarm)
        };
        drop(replaced);
        old
    }

    pub fn disarm(&self) {
        self.set_at(0, Setting::default());
    }

    pub fn last_overrun(&self) -> u32 {
        self.state.lock().last_overrun
    }

    /// Its signal is being delivered: gives the overruns to report.
    pub fn on_delivery(&self) -> u32 {
        let mut state = self.state.lock();
        state.is_signal_pending = false;
        state.last_overrun = core::mem::take(&mut state.overrun);
        state.last_overrun
    }

    fn arm(&self, deadline_ns: u64) -> Option<Alarm> {
        let me = self.me.upgrade()?;
        let at = self.clock.to_monotonic(deadline_ns);
        let is_cpu_clock = matches!(self.clock, Clock::ProcessCpu(_) | Clock::ThreadCpu(_));
        let earliest = if is_cpu_clock { timer::now_ns() + CPU_CLOCK_STEP_NS } else { 0 };
        Some(timer::arm(at.max(earliest), me))
    }

    /// Classic signals of interval timers merge in the queue, and nobody counts them.
    fn is_interval(&self) -> bool {
        matches!(
            self.notice,
            Notice::Process(_, _, Origin::Interval) | Notice::Thread(_, _, Origin::Interval)
        )
    }

    /// The alarm went off: says whether a signal is to be sent. A clock of processor time may not be
    /// there yet; then the alarm is set again.
    fn expire(&self) -> bool {
        let now = self.clock.now_ns();
        let (is_due, next) = {
            let mut state = self.state.lock();
            let Some(deadline) = state.deadline_ns else { return false };
            if now < deadline {
                (false, Some(deadline))
            } else {
                let next = state.advance(deadline, now);
                (self.is_interval() || state.count_expiry(), next)
            }
        };
        let alarm = next.and_then(|deadline| self.arm(deadline));
        let old = {
            let mut state = self.state.lock();
            match state.deadline_ns == next {
                true => core::mem::replace(&mut state.alarm, alarm),
                // Set anew meanwhile: that alarm counts.
                false => alarm,
            }
        };
        drop(old);
        is_due
    }

    fn send(&self) {
        // A signal that finds no room is lost, as in Linux: the overrun count tells.
        let _ = match &self.notice {
            Notice::None => Ok(()),
            Notice::Process(process, signal, origin) => match process.upgrade() {
                Some(process) => {
                    self.forget_if_ignored(&process, *signal);
                    signal::send_to_process(&process, *signal, info(*signal, *origin))
                }
                None => Ok(()),
            },
            Notice::Thread(thread, signal, origin) => match thread.upgrade() {
                Some(thread) => {
                    self.forget_if_ignored(thread.process(), *signal);
                    signal::send_to_thread(&thread, *signal, info(*signal, *origin))
                }
                None => Ok(()),
            },
        };
    }

    /// A signal that is thrown away is never delivered: the next expiry must not wait for that.
    fn forget_if_ignored(&self, process: &Process, signal: Signal) {
        if process.signals().dispositions().get(signal).ignores(signal) {
            self.state.lock().is_signal_pending = false;
        }
    }
}

impl State {
    /// Moves the deadline behind `now`, counting what was missed.
    fn advance(&mut self, deadline: u64, now: u64) -> Option<u64> {
        if self.interval_ns == 0 {
            self.deadline_ns = None;
            return None;
        }
        let missed = (now - deadline) / self.interval_ns;
        self.overrun = self.overrun.saturating_add(u32::try_from(missed).unwrap_or(u32::MAX));
        let next = deadline.saturating_add((missed + 1).saturating_mul(self.interval_ns));
        self.deadline_ns = Some(next);
        self.deadline_ns
    }

    /// One signal at a time: further expiries only count.
    fn count_expiry(&mut self) -> bool {
        if self.is_signal_pending {
            self.overrun = self.overrun.saturating_add(1);
            return false;
        }
        self.is_signal_pending = true;
        true
    }
}

impl Wake for ProgramTimer {
    fn wake(&self) -> bool {
        if self.expire() {
            self.send();
        }
        true
    }
}

fn info(signal: Signal, origin: Origin) -> SigInfo {
    match origin {
        Origin::Interval => SigInfo::kernel(signal),
        Origin::Posix { id, value } => SigInfo::timer(signal, id, 0, value),
    }
}

//! timerfd_create(2): a timer to wait for.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use occlum_enclave::time;

use super::file::{File, Wait};
use super::inode::{Attr, Kind};
use super::pipe::anonymous_ino;
use super::poll::{Events, Readiness};
use super::transfer::Sink;
use crate::error::{Errno, Result, err};
use crate::sched::timer::{self, Alarm};
use crate::sched::{SpinLock, Wake};

/// The clock absolute times are given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Monotonic,
    Realtime,
}

/// Nanoseconds until the next expiry (0: disarmed) and between expiries (0: once).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    pub value_ns: u64,
    pub interval_ns: u64,
}

pub struct TimerFd {
    base: Base,
    state: SpinLock<State>,
    /// What the timer queue wakes; its own object, so that the queue does not keep the descriptor alive.
    bell: Arc<Bell>,
    ino: u64,
}

#[derive(Default)]
struct State {
    /// Next expiry that was not read, CLOCK_MONOTONIC.
    deadline: Option<u64>,
    interval_ns: u64,
    alarm: Option<Alarm>,
}

#[derive(Default)]
struct Bell(Readiness);

impl Wake for Bell {
    fn wake(&self) -> bool {
        self.0.notify();
        true
    }
}

impl TimerFd {
    pub fn new(base: Base) -> Arc<TimerFd> {
        let (state, bell) = (SpinLock::new(State::default()), Arc::new(Bell::default()));
        Arc::new(TimerFd { base, state, bell, ino: anonymous_ino() })
    }

    pub fn base(&self) -> Base {
        self.base
    }

    /// Arms or disarms it; `value_ns` counts from now. Gives the old setting.
    pub fn set(&self, setting: Setting) -> Setting {
        let deadline = timer::now_ns().saturating_add(setting.value_ns);
        self.arm((setting.value_ns > 0).then_some(deadline), setting.interval_ns)
    }

    /// As [`TimerFd::set`], with `value_ns` a time of the timer's clock.
    pub fn set_absolute(&self, setting: Setting) -> Setting {
        let deadline = match self.base {
            Base::Monotonic => setting.value_ns,
            Base::Realtime => {
                let ahead = setting.value_ns.saturating_sub(time::realtime_ns());
                timer::now_ns().saturating_add(ahead)
            }
        };
        self.arm((setting.value_ns > 0).then_some(deadline), setting.interval_ns)
    }

    fn arm(&self, deadline: Option<u64>, interval_ns: u64) -> Setting {
        let alarm = deadline.map(|deadline| timer::arm(deadline, self.bell.clone()));
        let (old, old_alarm) = {
            let mut state = self.state.lock();
            let old = state.setting();
            state.deadline = deadline;
            state.interval_ns = interval_ns;
            (old, core::mem::replace(&mut state.alarm, alarm))
        };
        drop(old_alarm);
        old
    }

    pub fn get(&self) -> Setting {
        self.state.lock().setting()
    }

    /// Expiries since the last read; `None` if there are none.
    fn try_read(&self, sink: &mut Sink<'_>) -> Option<()> {
        let next = {
            let mut state = self.state.lock();
            let now = timer::now_ns();
            let deadline = state.deadline.filter(|&deadline| deadline <= now)?;
            let count = match state.interval_ns {
                0 => 1,
                interval => 1 + (now - deadline) / interval,
            };
            if !sink.put_all(&count.to_le_bytes()) {
                return Some(());
            }
            let interval = state.interval_ns;
            state.deadline = (interval > 0).then(|| deadline.saturating_add(count.saturating_mul(interval)));
            state.deadline
        };
        let alarm = next.map(|deadline| timer::arm(deadline, self.bell.clone()));
        let old = core::mem::replace(&mut self.state.lock().alarm, alarm);
        drop(old);
        Some(())
    }
}

impl State {
    fn setting(&self) -> Setting {
        let now = timer::now_ns();
        let value_ns = match self.deadline {
            None => 0,
            Some(deadline) if deadline > now => deadline - now,
            // Expired and not read: the next of a periodic timer, nothing of another.
            Some(deadline) => match self.interval_ns {
                0 => 0,
                interval => interval - (now - deadline) % interval,
            },
        };
        Setting { value_ns, interval_ns: self.interval_ns }
    }
}

impl File for TimerFd {
    fn attr(&self) -> Result<Attr> {
        Ok(Attr::anonymous(self.ino, Kind::Regular, 0o600))
    }

    fn describe(&self) -> String {
        let (value, interval) = (self.get().value_ns, self.get().interval_ns);
        let clock = if self.base == Base::Realtime { 0 } else { 1 };
        let pair = |ns: u64| format!("({}, {})", ns / 1_000_000_000, ns % 1_000_000_000);
        format!(
            "clockid: {clock}\nticks: 0\nsettime flags: 00\nit_value: {}\nit_interval: {}\n",
            pair(value),
            pair(interval)
        )
    }

    fn label(&self) -> String {
        String::from("anon_inode:[timerfd]")
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        if sink.room() < 8 {
            return err(Errno::EINVAL, "buffer below 8 bytes");
        }
        self.bell.0.wait(wait, || self.try_read(sink))
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.bell.0.add(waker);
        }
        let deadline = self.state.lock().deadline;
        match deadline {
            Some(deadline) if deadline <= timer::now_ns() => Events::IN,
            _ => Events::NONE,
        }
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.bell.0.remove(waker);
    }
}

//! Clocks and timers of programs.
//!
//! - [`clock`]: which clocks there are and what they read
//! - [`timer`]: [`ProgramTimer`], the one kind of timer behind setitimer, alarm and timer_create
//! - [`ProcessTimers`]: the timers of one process
//!
//! Time comes from the host and the CPU's counter (`occlum_enclave::time`); it is untrusted by nature.
//! Wake-ups come from `sched::timer`.

pub mod clock;
pub mod keeper;
pub mod timer;
pub mod value;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use occlum_abi::Errno;
use spin::Mutex;

use crate::error::{Result, err};
use timer::ProgramTimer;

/// setitimer(2)'s timers, by their number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalTimer {
    Real = 0,
    Virtual = 1,
    Prof = 2,
}

/// Most POSIX timers of one process.
const MAX_TIMERS: usize = 1024;

/// The timers of one process.
pub struct ProcessTimers {
    intervals: Mutex<[Option<Arc<ProgramTimer>>; 3]>,
    posix: Mutex<BTreeMap<u32, Arc<ProgramTimer>>>,
}

impl ProcessTimers {
    pub const fn new() -> ProcessTimers {
        ProcessTimers { intervals: Mutex::new([const { None }; 3]), posix: Mutex::new(BTreeMap::new()) }
    }

    /// An interval timer, made by `create` when first asked for.
    pub fn interval(
        &self,
        which: IntervalTimer,
        create: impl FnOnce() -> Arc<ProgramTimer>,
    ) -> Arc<ProgramTimer> {
        self.intervals.lock()[which as usize].get_or_insert_with(create).clone()
    }

    /// Adds a POSIX timer that `create` makes for its id.
    pub fn add(&self, create: impl FnOnce(u32) -> Arc<ProgramTimer>) -> Result<u32> {
        let mut timers = self.posix.lock();
        if timers.len() >= MAX_TIMERS {
            return err(Errno::EAGAIN, "too many timers");
        }
        let id = (0..).find(|id| !timers.contains_key(id)).unwrap_or_default();
        timers.insert(id, create(id));
        Ok(id)
    }

    pub fn get(&self, id: u32) -> Result<Arc<ProgramTimer>> {
        match self.posix.lock().get(&id) {
            Some(timer) => Ok(timer.clone()),
            None => err(Errno::EINVAL, "no such timer"),
        }
    }

    pub fn remove(&self, id: u32) -> Result<()> {
        let removed = self.posix.lock().remove(&id);
        match removed {
            Some(timer) => {
                timer.disarm();
                Ok(())
            }
            None => err(Errno::EINVAL, "no such timer"),
        }
    }

    /// Disarms the POSIX timers (execve); interval timers go on.
    pub fn cancel_posix(&self) {
        let timers = core::mem::take(&mut *self.posix.lock());
        timers.values().for_each(|timer| timer.disarm());
    }

    /// Disarms everything.
    pub fn cancel_all(&self) {
        self.cancel_posix();
        let timers: Vec<_> = self.intervals.lock().iter_mut().filter_map(Option::take).collect();
        timers.iter().for_each(|timer| timer.disarm());
    }
}

impl Default for ProcessTimers {
    fn default() -> ProcessTimers {
        ProcessTimers::new()
    }
}

//! Signals that wait to be delivered: a set, and the records that came with them.

use alloc::collections::VecDeque;

use super::{SigInfo, SigSet, Signal};

/// The queue of one thread or of one process.
#[derive(Default)]
pub struct Pending {
    set: SigSet,
    /// At most one record for each signal below `Signal::RT_MIN`, any number for the others.
    records: VecDeque<SigInfo>,
}

/// A real-time signal could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl Pending {
    pub const fn new() -> Pending {
        Pending { set: SigSet::EMPTY, records: VecDeque::new() }
    }

    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Records queued.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Adds a record. A classic signal that is pending already is left as it is. With more than
    /// `limit` records queued (RLIMIT_SIGPENDING) a classic signal loses its record, as in Linux, and
    /// a real-time one that was queued by a program is refused.
    pub fn push(&mut self, signal: Signal, info: SigInfo, limit: usize) -> Result<(), QueueFull> {
        if !signal.is_real_time() && self.set.contains(signal) {
            return Ok(());
        }
        let has_room = self.records.len() < limit && self.records.try_reserve(1).is_ok();
        if !has_room && signal.is_real_time() && info.code != super::info::SI_USER {
            return Err(QueueFull);
        }
        if has_room {
            self.records.push_back(info);
        }
        self.set.insert(signal);
        Ok(())
    }

    /// Takes the first signal that is not in `blocked`.
    pub fn take(&mut self, blocked: SigSet) -> Option<(Signal, SigInfo)> {
        let signal = self.set.without(blocked).first()?;
        Some((signal, self.take_record(signal)))
    }

    fn take_record(&mut self, signal: Signal) -> SigInfo {
        let is_this = |info: &SigInfo| info.signo == signal.number();
        let record = self.records.iter().position(is_this).and_then(|i| self.records.remove(i));
        if !self.records.iter().any(is_this) {
            self.set.remove(signal);
        }
        // A record lost for lack of room: from nobody (as Linux).
        record.unwrap_or_else(|| SigInfo::from_process(signal, super::info::SI_USER, 0, 0))
    }

    /// Forgets all pending signals in `set`.
    pub fn discard(&mut self, set: SigSet) {
        if self.set.intersection(set).is_empty() {
            return;
        }
        self.set = self.set.without(set);
        self.records.retain(|info| info.signal().is_some_and(|signal| !set.contains(signal)));
    }
}

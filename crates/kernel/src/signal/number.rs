//! Signal numbers, sets of them, and what each does by default (signal(7)).

use core::fmt;

/// A signal, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signal(u8);

/// What happens to a process that neither handles nor ignores a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    Terminate,
    /// Terminate, and say in the log where it crashed: no core is dumped.
    Core,
    Ignore,
    Stop,
    Continue,
}

impl Signal {
    pub const HUP: Signal = Signal(1);
    pub const INT: Signal = Signal(2);
    pub const QUIT: Signal = Signal(3);
    pub const ILL: Signal = Signal(4);
    pub const TRAP: Signal = Signal(5);
    pub const ABRT: Signal = Signal(6);
    pub const BUS: Signal = Signal(7);
    pub const FPE: Signal = Signal(8);
    pub const KILL: Signal = Signal(9);
    pub const USR1: Signal = Signal(10);
    pub const SEGV: Signal = Signal(11);
    pub const USR2: Signal = Signal(12);
    pub const PIPE: Signal = Signal(13);
    pub const ALRM: Signal = Signal(14);
    pub const TERM: Signal = Signal(15);
    pub const CHLD: Signal = Signal(17);
    pub const CONT: Signal = Signal(18);
    pub const STOP: Signal = Signal(19);
    pub const TSTP: Signal = Signal(20);
    pub const TTIN: Signal = Signal(21);
    pub const TTOU: Signal = Signal(22);
    pub const URG: Signal = Signal(23);
    pub const XCPU: Signal = Signal(24);
    pub const XFSZ: Signal = Signal(25);
    pub const VTALRM: Signal = Signal(26);
    pub const PROF: Signal = Signal(27);
    pub const WINCH: Signal = Signal(28);
    pub const IO: Signal = Signal(29);
    pub const SYS: Signal = Signal(31);

    /// First real-time signal: from here on, signals queue.
    pub const RT_MIN: u8 = 32;
    pub const MAX: u8 = 64;

    /// The signal with this number; `None` outside 1..=64.
    pub fn new(number: i32) -> Option<Signal> {
        let number = u8::try_from(number).ok()?;
        (1..=Signal::MAX).contains(&number).then_some(Signal(number))
    }

    pub fn number(self) -> i32 {
        i32::from(self.0)
    }

    pub fn is_real_time(self) -> bool {
        self.0 >= Signal::RT_MIN
    }

    pub fn default_action(self) -> DefaultAction {
        match self {
            Signal::CHLD | Signal::URG | Signal::WINCH => DefaultAction::Ignore,
            Signal::CONT => DefaultAction::Continue,
            Signal::STOP | Signal::TSTP | Signal::TTIN | Signal::TTOU => DefaultAction::Stop,
            Signal::QUIT | Signal::ILL | Signal::TRAP | Signal::ABRT | Signal::BUS | Signal::FPE
            | Signal::SEGV | Signal::XCPU | Signal::XFSZ | Signal::SYS => DefaultAction::Core,
            _ => DefaultAction::Terminate,
        }
    }
}

/// From 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
    "WINCH", "IO", "PWR", "SYS",
];

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0).ok().and_then(|number| NAMES.get(number.wrapping_sub(1))) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRT_{}", self.0 - Signal::RT_MIN),
        }
    }
}

/// A set of signals, laid out as the kernel's `sigset_t`: bit n-1 is signal n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigSet(pub u64);

impl SigSet {
    pub const EMPTY: SigSet = SigSet(0);
    /// What can be neither blocked nor handled.
    pub const UNBLOCKABLE: SigSet = SigSet::of(&[Signal::KILL, Signal::STOP]);
    pub const STOPS: SigSet = SigSet::of(&[Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU]);
    /// What a processor exception raises: delivered before everything else.
    pub const SYNCHRONOUS: SigSet =
        SigSet::of(&[Signal::SEGV, Signal::BUS, Signal::ILL, Signal::TRAP, Signal::FPE, Signal::SYS]);

    pub const fn of(signals: &[Signal]) -> SigSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= 1 << (signals[i].0 - 1);
            i += 1;
        }
        SigSet(bits)
    }

    pub fn contains(self, signal: Signal) -> bool {
        self.0 & bit(signal) != 0
    }

    pub fn insert(&mut self, signal: Signal) {
        self.0 |= bit(signal);
    }

    pub fn remove(&mut self, signal: Signal) {
        self.0 &= !bit(signal);
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    pub fn intersection(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    pub fn without(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// The signal to deliver first: exceptions before others, then the lowest number.
    pub fn first(self) -> Option<Signal> {
        let urgent = self.intersection(SigSet::SYNCHRONOUS);
        let from = if urgent.is_empty() { self } else { urgent };
        if from.is_empty() {
            return None;
        }
        Some(Signal(from.0.trailing_zeros() as u8 + 1))
    }
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.0 - 1)
}

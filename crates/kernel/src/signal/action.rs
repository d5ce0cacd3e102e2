//! What a process does with each signal (sigaction(2)).

use spin::Mutex;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{DefaultAction, SigSet, Signal};

pub const SA_NOCLDSTOP: u64 = 1;
pub const SA_NOCLDWAIT: u64 = 2;
pub const SA_SIGINFO: u64 = 4;
pub const SA_EXPOSE_TAGBITS: u64 = 0x800;
pub const SA_RESTORER: u64 = 0x0400_0000;
pub const SA_ONSTACK: u64 = 0x0800_0000;
pub const SA_RESTART: u64 = 0x1000_0000;
pub const SA_NODEFER: u64 = 0x4000_0000;
pub const SA_RESETHAND: u64 = 0x8000_0000;

/// Flags Linux on x86-64 keeps; others are cleared, which is how programs probe for support.
const SA_KNOWN: u64 = SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_EXPOSE_TAGBITS | SA_RESTORER
    | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND;

pub const SIG_DFL: u64 = 0;
pub const SIG_IGN: u64 = 1;

/// `struct kernel_sigaction` of x86-64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Action {
    /// `SIG_DFL`, `SIG_IGN` or an address.
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: u64,
}

impl Action {
    pub fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Whether `signal` does nothing under this action.
    pub fn ignores(&self, signal: Signal) -> bool {
        self.handler == SIG_IGN
            || self.handler == SIG_DFL && signal.default_action() == DefaultAction::Ignore
    }

    /// As Linux stores it: unknown flags gone, KILL and STOP not maskable.
    pub fn sanitized(mut self) -> Action {
        self.flags &= SA_KNOWN;
        self.mask = SigSet(self.mask).without(SigSet::UNBLOCKABLE).0;
        self
    }
}

/// The actions of one process (or of several, CLONE_SIGHAND).
pub struct Dispositions {
    actions: Mutex<[Action; Signal::MAX as usize]>,
}

impl Default for Dispositions {
    fn default() -> Dispositions {
        Dispositions { actions: Mutex::new([Action::default(); Signal::MAX as usize]) }
    }
}

impl Dispositions {
    pub fn get(&self, signal: Signal) -> Action {
        self.actions.lock()[index(signal)]
    }

    /// Replaces an action; gives the old one.
    pub fn set(&self, signal: Signal, action: Action) -> Action {
        core::mem::replace(&mut self.actions.lock()[index(signal)], action)
    }

    /// The action for a signal being delivered; SA_RESETHAND takes effect.
    pub fn take_for_delivery(&self, signal: Signal) -> Action {
        let mut actions = self.actions.lock();
        let action = actions[index(signal)];
        if action.has(SA_RESETHAND) && action.handler > SIG_IGN {
            actions[index(signal)].handler = SIG_DFL;
        }
        action
    }

    /// A copy, for a child.
    pub fn duplicate(&self) -> Dispositions {
        Dispositions { actions: Mutex::new(*self.actions.lock()) }
    }

    /// What execve keeps: ignored signals stay ignored, handlers become the default.
    pub fn after_exec(&self) -> Dispositions {
        let kept = self.actions.lock().map(|action| Action {
            handler: if action.handler == SIG_IGN { SIG_IGN } else { SIG_DFL },
            ..Action::default()
        });
        Dispositions { actions: Mutex::new(kept) }
    }

    /// Handlers become the default, ignored signals stay (CLONE_CLEAR_SIGHAND).
    pub fn without_handlers(&self) -> Dispositions {
        self.after_exec()
    }
}

fn index(signal: Signal) -> usize {
    signal.number() as usize - 1
}

//! Signals: what is pending, what the program wants done, and doing it.
//!
//! - [`number`]: [`Signal`], [`SigSet`], default actions
//! - [`info`]: [`SigInfo`], the record that travels with a signal
//! - [`pending`]: the queue of one thread or process
//! - [`action`]: what a process does with each signal
//! - [`send`]: from the sender to the right thread, waking or kicking it
//! - [`deliver`]: on the way back to user code: actions, stops, handlers, restarts
//! - [`frame`]: the stack frame of a handler, and `rt_sigreturn`
//! - [`signalfd`]: signals as bytes to read
//! - [`fault`]: processor exceptions as signals
//!
//! Life of a signal: `send` puts a record into a queue and notifies a thread that does not block it;
//! the notification ends its wait or interrupts its user code; on the way back to user code the
//! thread takes the record out and acts.
//!
//! Lock order: `ProcessSignals::shared` (the process's signal lock: masks change and senders choose
//! under it), then `ThreadSignals::private`, then `Dispositions`. All are leaf spin locks of the kernel.

pub mod action;
pub mod deliver;
pub mod fault;
pub mod frame;
pub mod info;
pub mod mask;
pub mod number;
pub mod pending;
pub mod send;
pub mod signalfd;
pub mod stack;
pub mod state;

pub use action::{Action, Dispositions};
pub use info::SigInfo;
pub use number::{DefaultAction, SigSet, Signal};
pub use send::{force, force_fatal, send_to_process, send_to_thread};
pub use state::{ProcessSignals, ThreadSignals};

//! Pseudo-terminals: pty(7), with the line discipline of Linux's terminals.
//!
//! ```text
//! terminal emulator -> master --typed--> discipline --lines--> slave -> program
//!                      master <--shown-- echo, ONLCR <-printed- slave
//! ```
//! - [`pair`]: the state of one, and the table of all; [`ends`]: master and slave as open files
//! - [`discipline`], [`termios`]: lines, echo, editing, control characters
//! - [`job`]: controlling terminals, signals to process groups, background processes
//! - [`devpts`]: /dev/pts
//!
//! Life cycle: opening /dev/ptmx makes a pair; it is in /dev/pts until the master is closed, which hangs
//! up the session (SIGHUP). When no slave is open the master reads EIO until one is opened again.
//!
//! Lock order: the table of pairs, then a pair's state. Signals are sent, and readiness is notified,
//! without either. Not done: packet mode, TIOCSTI, a SIGHUP when the session leader exits.

pub mod devpts;
mod discipline;
mod ends;
pub mod job;
pub mod pair;
mod termios;

use crate::vfs::special::{self, makedev};

pub use ends::open_controlling;

/// Lets the device node 5:2 (/dev/ptmx) be opened.
pub fn register() {
    special::register_char_device(makedev(5, 2), |node, _| ends::open_master(node));
}

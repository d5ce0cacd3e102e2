//! Leaves the terminal as it was found when the program can't do it itself: when a signal ends it, or the
//! enclave stops. A program that ends by itself leaves what it has set, as on Linux.

use crate::sys;
use rustix::stdio;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::sync::OnceLock;

/// The terminal's settings before the first change that the enclave asked for.
static FOUND: OnceLock<Termios> = OnceLock::new();

/// To be called before a change of a terminal's settings.
pub fn remember() {
    if FOUND.get().is_some() {
        return;
    }
    if let Ok(settings) = tcgetattr(stdio::stdin()) {
        FOUND.get_or_init(|| settings);
    }
}

/// Undoes the changes, if there were any. For signal handlers, too.
pub fn restore() {
    if let Some(settings) = FOUND.get() {
        // In the background, changing the terminal would stop the process.
        let _ = sys::ignore(libc::SIGTTOU);
        let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, settings);
    }
}

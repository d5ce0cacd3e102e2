//! Lines of log, shown by the host. What the host learns from them is the builder's choice:
//! `metadata.disable_log` turns everything off, and debug and trace need `metadata.debuggable`.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use alloc::string::String;
use occlum_abi::boot::LogLevel;

use crate::host;

static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Error as u8);

/// Sets the most detailed level that is written.
pub fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of this level are written; ask before formatting costs anything.
pub fn enabled(level: LogLevel) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line if `level` is enabled. Use through [`crate::log!`].
pub fn write(level: LogLevel, message: fmt::Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    match message.as_str() {
        Some(text) => write_unfiltered(level, text),
        None => {
            let mut text = String::new();
            // Writing to a String fails only if a Display implementation does.
            let _ = fmt::write(&mut text, message);
            write_unfiltered(level, &text);
        }
    }
}

pub(crate) fn write_unfiltered(level: LogLevel, text: &str) {
    host::log(level, text);
}

/// `log!(Warn, "{} of {}", a, b)`: one line of log at a level of `LogLevel`.
#[macro_export]
macro_rules! log {
    ($level:ident, $($arg:tt)*) => {
        $crate::log::write($crate::host::LogLevel::$level, format_args!($($arg)*))
    };
}

//! sigaltstack(2).

use occlum_abi::Errno;

use super::state::{AltStack, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK};
use crate::error::{Result, err};
use crate::process::Thread;

/// MINSIGSTKSZ as the kernel checks it (the smallest ever published, not the real frame's size).
const MINIMUM: u64 = 2048;

/// The alternate stack as a program sees it, running on `rsp`.
pub fn report(alt: &AltStack, rsp: u64) -> AltStack {
    let state = match alt {
        alt if !alt.is_enabled() => SS_DISABLE,
        alt if alt.is_in_use(rsp) => SS_ONSTACK,
        _ => 0,
    };
    AltStack { flags: state | alt.flags & SS_AUTODISARM, ..*alt }
}

/// Installs an alternate stack; EPERM while running on the old one.
pub fn set(thread: &Thread, new: AltStack, rsp: u64) -> Result<()> {
    let mut alt = thread.signals().alt_stack.lock();
    if alt.is_enabled() && alt.is_in_use(rsp) {
        return err(Errno::EPERM, "on the alternate stack");
    }
    let mode = new.flags & !SS_AUTODISARM;
    if mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0 {
        return err(Errno::EINVAL, "unknown stack flags");
    }
    if mode == SS_DISABLE {
        *alt = AltStack { flags: new.flags, ..AltStack::default() };
        return Ok(());
    }
    if new.size < MINIMUM {
        return err(Errno::ENOMEM, "alternate stack too small");
    }
    *alt = AltStack { padding: 0, ..new };
    Ok(())
}

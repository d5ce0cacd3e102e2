//! Who may look into whose process (ptrace(2), "Ptrace access mode checking").

use alloc::sync::Arc;

use super::Thread;
use super::credentials::{Capability, Ids};
use crate::error::{Errno, Result, err};

/// EPERM unless `caller` may look into `target` (ptrace(2), "Ptrace access mode checking").
pub fn check_may_inspect(caller: &Thread, target: &Thread) -> Result<()> {
    if Arc::ptr_eq(caller.process(), target.process()) {
        return Ok(());
    }
    let (who, whom) = (caller.credentials(), target.credentials());
    if who.has(Capability::SysPtrace) {
        return Ok(());
    }
    let is_own = |ids: Ids, id: u32| ids.real == id && ids.effective == id && ids.saved == id;
    let is_same = is_own(whom.user, who.user.fs) && is_own(whom.group, who.group.fs);
    if is_same && target.process().is_dumpable() && whom.permitted & !who.permitted == 0 {
        return Ok(());
    }
    err(Errno::EPERM, "another user's process")
}

//! Interprocess communication with objects that have keys instead of descriptors (sysvipc(7)).
//!
//! - [`object`]: what the three kinds share: ids, keys, permissions, removal
//! - [`memory`]: shared memory segments; [`semaphore`]: sets of semaphores; [`message`]: queues
//! - [`posix`]: POSIX message queues, which are files (mq_overview(7))
//!
//! Objects live until they are removed, whoever made them. Everything is guarded by the object's own
//! spin lock; waiting is done on the object's queue with the lock released.
//!
//! Lock order: a table, then an object. No lock is held while a space is mapped or user memory copied.

pub mod memory;
pub mod message;
pub mod object;
pub mod posix;
pub mod semaphore;

/// A process has ended: its semaphore adjustments (SEM_UNDO) are applied.
pub fn process_ended(pid: u32) {
    semaphore::undo_all(pid);
}

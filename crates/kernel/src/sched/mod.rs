//! Scheduling: which task runs on which vCPU, and how tasks wait.
//!
//! - [`run`]: run queues, park/unpark, the idle loop
//! - [`wait`]: [`WaitQueue`] and [`Wake`], what everything that blocks is built from
//! - [`timer`]: wake-ups at a time
//! - [`events`]: wake-ups by the host (standard input, sockets)
//! - [`load`]: load averages
//! - [`mutex`]: a lock that sleeps
//! - [`presence`]: which vCPUs rely on something being in place
//!
//! A task is Running, Queued (on exactly one run queue) or Parked. `park` and `unpark` work like a
//! semaphore with one permit: an `unpark` before the `park` makes the `park` return at once.
//!
//! Lock order: `WaitQueue` and `timer` locks, then a run-queue lock. All are leaf spin locks: nothing
//! is called under them that may take another lock of the kernel, block, or make an ocall.

pub mod events;
pub mod load;
pub mod mutex;
pub mod presence;
pub mod run;
pub mod timer;
pub mod wait;

pub use mutex::Mutex;
pub use run::{Local, TaskRef, current, interrupt, local, park, set_local, spawn, unpark, yield_now};
pub use wait::{WaitError, WaitQueue, Waiter, Wake};

/// Short critical sections; the holder must not block.
pub use spin::Mutex as SpinLock;

//! Sockets of the host: how programs talk to what is not in the enclave.
//!
//! - [`policy`]: which addresses are inside, and which are the host's
//! - [`call`]: the ocalls, with every answer checked
//! - [`descriptor`]: one host socket and what it is ready for
//! - [`stream`]: bytes of a TCP connection; [`datagram`]: UDP
//! - [`forward`]: options that the host's socket has too
//! - [`interfaces`]: the host's network interfaces
//!
//! What arrives and where it comes from is the host's word: it may be anything that a network could
//! carry, and is trusted no more than that.
//!
//! Lock order: nothing of this is called with a lock held, and no lock is held across an ocall.

pub mod call;
pub mod datagram;
pub mod descriptor;
pub mod forward;
pub mod interfaces;
pub mod policy;
pub mod stream;

pub use descriptor::{HostSocket, Signals};
pub use stream::Outside;

//! The control socket of an instance that stays up: `occlum exec`, `ps`, `stop` and their like connect here.
//!
//! - [`frame`]: what goes over it
//! - [`connection`]: one client
//!
//! The socket is in a directory that only its owner can enter, and the peer's credentials are checked
//! besides. A connection has a thread; one that starts a program has a second for what the client says
//! meanwhile.

mod connection;
pub mod frame;

use crate::args::Service;
use crate::error::Error;
use crate::instance::Instance;
use crate::sys;
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A client that does not read for so long is dropped.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// Takes the place of a socket that a dead server has left.
pub fn bind(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::File {
        path: path.into(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    UnixListener::bind(path).map_err(failed)
}

/// Starts to serve once the kernel is ready, and then tells who waits for it.
pub fn start(
    instance: &Arc<Instance>,
    listener: UnixListener,
    service: Service,
) -> Result<(), Error> {
    let for_ready = instance.clone();
    instance.requests.set_on_ready(move || {
        let accept = move || accept_all(&for_ready, &listener);
        let started = std::thread::Builder::new()
            .name("control".into())
            .spawn(accept);
        let mut ready = std::fs::File::from(service.ready);
        // Without the word, who waits sees the end of the pipe and says that the start failed.
        if started.is_ok() {
            let _ = ready.write_all(b"ready\n");
        }
    });
    Ok(())
}

fn accept_all(instance: &Arc<Instance>, listener: &UnixListener) {
    sys::block_signals();
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // Out of descriptors: others will close theirs.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        if !is_owner(&stream).unwrap_or(false)
            || stream.set_write_timeout(Some(SEND_LIMIT)).is_err()
        {
            continue;
        }
        let instance = instance.clone();
        // A client whose thread can't be made sees its connection closed.
        let _ = std::thread::Builder::new()
            .name("client".into())
            .spawn(move || connection::serve(&instance, &stream));
    }
}

/// The owner of this process, or root.
fn is_owner(stream: &UnixStream) -> Result<bool, Errno> {
    let peer = socket_peercred(stream)?;
    Ok(peer.uid == geteuid() || peer.uid.is_root())
}

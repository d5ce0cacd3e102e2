//! The frames of the control socket; see `docs/format/control.md`.
//!
//! ```text
//! size u32   of what follows
//! kind u8
//! field*     size u32, bytes
//! ```
//! Little-endian. Numbers in fields are decimal text; a list is a field that holds fields.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Largest frame taken: what the kernel takes, and a bit.
const SIZE_MAX: usize = 2 << 20;
/// Descriptors that may come with a frame.
const FILES_MAX: usize = 3;

/// Kinds of frames that clients send.
pub mod asks {
    pub const START: u8 = 1;
    pub const SIGNAL: u8 = 2;
    pub const KILL: u8 = 3;
    pub const PROCESSES: u8 = 4;
    pub const METRICS: u8 = 5;
    pub const LOG_LEVEL: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const COPY: u8 = 8;
}

/// Kinds of frames that the server sends.
pub mod answers {
    pub const DONE: u8 = 64;
    pub const STARTED: u8 = 65;
    pub const REFUSED: u8 = 66;
    pub const STOPPED: u8 = 67;
    pub const CONTINUED: u8 = 68;
    pub const ENDED: u8 = 69;
    pub const TABLE: u8 = 70;
}

/// A frame that came in.
pub struct Frame {
    pub kind: u8,
    fields: Vec<Vec<u8>>,
    pub files: Vec<OwnedFd>,
}

/// The other side is gone, or says something that is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl From<Errno> for Broken {
    fn from(_: Errno) -> Broken {
        Broken
    }
}

impl Frame {
    pub fn bytes(&self, at: usize) -> Result<&[u8], Broken> {
        self.fields.get(at).map(Vec::as_slice).ok_or(Broken)
    }

    pub fn text(&self, at: usize) -> Result<String, Broken> {
        String::from_utf8(self.bytes(at)?.to_vec()).map_err(|_| Broken)
    }

    pub fn number<T: std::str::FromStr>(&self, at: usize) -> Result<T, Broken> {
        self.text(at)?.parse().map_err(|_| Broken)
    }

    pub fn list(&self, at: usize) -> Result<Vec<Vec<u8>>, Broken> {
        split(self.bytes(at)?)
    }
}

/// Waits for the next frame.
pub fn receive(stream: &UnixStream) -> Result<Frame, Broken> {
    let mut head = [0; 4];
    let files = receive_with_files(stream, &mut head)?;
    let size = u32::from_le_bytes(head) as usize;
    if size == 0 || size > SIZE_MAX {
        return Err(Broken);
    }
    let mut body = vec![0; size];
    receive_all(stream, &mut body)?;
    Ok(Frame {
        kind: body[0],
        fields: split(&body[1..])?,
        files,
    })
}

/// The first bytes of a frame, and the descriptors that come with them.
fn receive_with_files(stream: &UnixStream, head: &mut [u8; 4]) -> Result<Vec<OwnedFd>, Broken> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match recvmsg(stream, &mut [IoSliceMut::new(head)], &mut control, flags) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(Broken);
    }
    receive_all(stream, &mut head[received.bytes..])?;
    Ok(files)
}

fn receive_all(stream: &UnixStream, mut to: &mut [u8]) -> Result<(), Broken> {
    while !to.is_empty() {
        match recv(stream, &mut *to, RecvFlags::empty()) {
            Ok((_, 0)) => return Err(Broken),
            Ok((_, size)) => to = &mut to[size..],
            Err(Errno::INTR) => {}
            Err(_) => return Err(Broken),
        }
    }
    Ok(())
}

fn split(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, Broken> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or(Broken)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (field, rest) = rest.split_at_checked(size).ok_or(Broken)?;
        fields.push(field.to_vec());
        bytes = rest;
    }
    Ok(fields)
}

/// Fields one after the other.
pub fn join<T: AsRef<[u8]>>(fields: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        let field = field.as_ref();
        bytes.extend((field.len() as u32).to_le_bytes());
        bytes.extend(field);
    }
    bytes
}

/// Sends a frame. Nobody waits for a client that does not read for long: the socket has a time-out.
pub fn transmit<T: AsRef<[u8]>>(
    stream: &UnixStream,
    kind: u8,
    fields: impl IntoIterator<Item = T>,
) -> Result<(), Broken> {
    let fields = join(fields);
    let mut frame = ((fields.len() + 1) as u32).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend(fields);
    let mut rest = &frame[..];
    while !rest.is_empty() {
        match send(stream, rest, SendFlags::NOSIGNAL) {
            Ok(size) => rest = &rest[size..],
            Err(Errno::INTR) => {}
            Err(_) => return Err(Broken),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_as_they_were_sent() {
        let (near, far) = UnixStream::pair().unwrap();
        transmit(&near, 9, [&b"12"[..], b"", &join(["a", "bc"])]).unwrap();
        let frame = receive(&far).unwrap();
        assert_eq!(frame.kind, 9);
        assert_eq!(frame.number::<u32>(0), Ok(12));
        assert_eq!(frame.bytes(1), Ok(&b""[..]));
        assert_eq!(frame.list(2), Ok(vec![b"a".to_vec(), b"bc".to_vec()]));
        assert!(frame.bytes(3).is_err());
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [
            &b"\0\0\0\0"[..],
            b"\xff\xff\xff\xff\x01",
            b"\x06\0\0\0\x01\xff\0\0\0a",
            b"\x03\0\0\0\x01ab",
            b"\x09",
        ] {
            let (near, far) = UnixStream::pair().unwrap();
            send(&near, bytes, SendFlags::NOSIGNAL).unwrap();
            drop(near);
            assert!(receive(&far).is_err(), "{bytes:?}");
        }
    }
}

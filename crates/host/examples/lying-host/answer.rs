//! Lies about the result of one kind of call, told each time it is made: `CALL:KIND`.

use crate::lie::{Asked, Lie};
use occlum_abi::layout::KERNEL_BASE;
use occlum_abi::ocall::{DatagramHead, HostConnection, HostEvent, HostStat, Ocall};
use occlum_host::cpu::Registers;
use std::sync::{Arc, OnceLock};

struct Answer {
    call: Ocall,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One more than the kernel's buffer holds.
    OneTooMany,
    /// An errno that Linux does not have.
    OtherErrno,
    /// The smallest number, whose negative does not exist.
    Smallest,
    /// An errno that exists, but not for this.
    WrongErrno,
    /// Both results are kernel addresses.
    Addresses,
    /// Success, and nothing was done. (For calls whose effect can be undone: pages.)
    Claimed,
    /// The same, for memory of programs only.
    ClaimedForPrograms,
    /// Events of descriptors that nobody watches.
    StrangeEvents,
    /// Attributes that no file has.
    StrangeStat,
    /// What the kernel will read from the staging buffer is overwritten.
    StrangeContent,
    /// The rest of the staging buffer is overwritten.
    Noise,
    /// A socket that is standard output.
    StandardDescriptor,
    /// A socket that the kernel has already.
    GivenTwice,
    /// An address of a family that the socket has not.
    OtherFamily,
    /// An address longer than any.
    AddressSize,
}

const KINDS: [(&str, Kind); 15] = [
    ("one-too-many", Kind::OneTooMany),
    ("other-errno", Kind::OtherErrno),
    ("smallest", Kind::Smallest),
    ("wrong-errno", Kind::WrongErrno),
    ("addresses", Kind::Addresses),
    ("claimed", Kind::Claimed),
    ("claimed-for-programs", Kind::ClaimedForPrograms),
    ("strange-events", Kind::StrangeEvents),
    ("strange-stat", Kind::StrangeStat),
    ("strange-content", Kind::StrangeContent),
    ("noise", Kind::Noise),
    ("standard-descriptor", Kind::StandardDescriptor),
    ("descriptor-given-twice", Kind::GivenTwice),
    ("other-family", Kind::OtherFamily),
    ("address-size", Kind::AddressSize),
];

const CALLS: [(&str, Ocall); 52] = [
    ("Log", Ocall::Log),
    ("Park", Ocall::Park),
    ("Wake", Ocall::Wake),
    ("Kick", Ocall::Kick),
    ("StartTicker", Ocall::StartTicker),
    ("Protect", Ocall::Protect),
    ("Release", Ocall::Release),
    ("Install", Ocall::Install),
    ("UpdateTime", Ocall::UpdateTime),
    ("Read", Ocall::Read),
    ("Write", Ocall::Write),
    ("ReadAt", Ocall::ReadAt),
    ("WriteAt", Ocall::WriteAt),
    ("Close", Ocall::Close),
    ("EventAdd", Ocall::EventAdd),
    ("PollEvents", Ocall::PollEvents),
    ("Fstat", Ocall::Fstat),
    ("Ioctl", Ocall::Ioctl),
    ("Open", Ocall::Open),
    ("Stat", Ocall::Stat),
    ("ReadDir", Ocall::ReadDir),
    ("Mkdir", Ocall::Mkdir),
    ("Unlink", Ocall::Unlink),
    ("Rename", Ocall::Rename),
    ("Symlink", Ocall::Symlink),
    ("ReadLink", Ocall::ReadLink),
    ("Link", Ocall::Link),
    ("Chmod", Ocall::Chmod),
    ("Chown", Ocall::Chown),
    ("Utimes", Ocall::Utimes),
    ("Truncate", Ocall::Truncate),
    ("Sync", Ocall::Sync),
    ("StatFs", Ocall::StatFs),
    ("SocketOpen", Ocall::SocketOpen),
    ("SocketBind", Ocall::SocketBind),
    ("SocketListen", Ocall::SocketListen),
    ("SocketAccept", Ocall::SocketAccept),
    ("SocketConnect", Ocall::SocketConnect),
    ("SocketShutdown", Ocall::SocketShutdown),
    ("SocketName", Ocall::SocketName),
    ("SocketSend", Ocall::SocketSend),
    ("SocketReceive", Ocall::SocketReceive),
    ("SocketSendTo", Ocall::SocketSendTo),
    ("SocketReceiveFrom", Ocall::SocketReceiveFrom),
    ("SocketSetOption", Ocall::SocketSetOption),
    ("SocketGetOption", Ocall::SocketGetOption),
    ("SocketPoll", Ocall::SocketPoll),
    ("SocketPending", Ocall::SocketPending),
    ("Interfaces", Ocall::Interfaces),
    ("Lock", Ocall::Lock),
    ("TakeRequest", Ocall::TakeRequest),
    ("Answer", Ocall::Answer),
];

const STRANGE_REQUEST_SIZE: u64 = 64;

const SECRET_ADDRESS: u64 = KERNEL_BASE as u64;

impl Lie for Answer {
    fn answer(&self, asked: &Asked, honest: Registers) -> Registers {
        if asked.call != Some(self.call) {
            return honest;
        }
        let rdi = match self.kind {
            Kind::OneTooMany => self.room(asked) + 1,
            Kind::OtherErrno => (-100_000i64).cast_unsigned(),
            Kind::Smallest => i64::MIN.cast_unsigned(),
            Kind::WrongErrno => i64::from(-libc::EXDEV).cast_unsigned(),
            Kind::Addresses => SECRET_ADDRESS,
            Kind::Claimed => {
                undo(asked);
                0
            }
            Kind::ClaimedForPrograms if asked.args[0] < KERNEL_BASE as u64 => {
                undo(asked);
                0
            }
            Kind::ClaimedForPrograms => honest.rdi,
            Kind::StrangeEvents => put_events(asked, honest.rdi),
            Kind::StrangeStat => put_stat(asked),
            Kind::StrangeContent => {
                overwrite(asked, 0);
                match self.call {
                    Ocall::TakeRequest => STRANGE_REQUEST_SIZE,
                    _ => honest.rdi,
                }
            }
            Kind::StandardDescriptor => self.put_descriptor(asked, honest.rdi, 1),
            Kind::GivenTwice => {
                self.put_descriptor(asked, honest.rdi, given_before(asked, &honest))
            }
            Kind::OtherFamily => {
                put_word(asked, self.address_at(), libc::AF_UNIX as u32);
                honest.rdi
            }
            Kind::AddressSize => {
                put_word(
                    asked,
                    if self.call == Ocall::SocketAccept {
                        4
                    } else {
                        0
                    },
                    200,
                );
                honest.rdi
            }
            Kind::Noise => {
                overwrite(asked, self.used(honest.rdi));
                honest.rdi
            }
        };
        let rsi = if self.kind == Kind::Addresses {
            SECRET_ADDRESS
        } else {
            honest.rsi
        };
        Registers { rdi, rsi, ..honest }
    }
}

impl Answer {
    /// Gives another descriptor than the honest one, where there is one.
    fn put_descriptor(&self, asked: &Asked, honest: u64, descriptor: u32) -> u64 {
        match self.call {
            Ocall::SocketOpen => descriptor.into(),
            _ => {
                put_word(asked, 0, descriptor);
                honest
            }
        }
    }

    /// Where the call writes an address.
    fn address_at(&self) -> usize {
        match self.call {
            Ocall::SocketName => 0,
            _ => 8,
        }
    }

    /// The most an honest host could answer.
    fn room(&self, asked: &Asked) -> u64 {
        match self.call {
            Ocall::Read | Ocall::Write | Ocall::ReadDir => asked.args[2],
            Ocall::SocketSend | Ocall::SocketReceive => asked.args[2],
            Ocall::SocketSendTo => asked.args[2] - size_of::<DatagramHead>() as u64,
            Ocall::SocketReceiveFrom => 65_535,
            Ocall::SocketAccept => asked.args[2] / size_of::<HostConnection>() as u64,
            Ocall::SocketName | Ocall::SocketGetOption => asked.args[3],
            Ocall::SocketPoll => 0xFFFF,
            Ocall::SocketPending | Ocall::SocketOpen => i32::MAX as u64,
            Ocall::Interfaces => asked.args[1],
            Ocall::ReadAt | Ocall::WriteAt => asked.args[3],
            Ocall::ReadLink => asked.args[4],
            Ocall::TakeRequest => asked.args[1],
            Ocall::Open => i32::MAX as u64,
            Ocall::Park | Ocall::PollEvents => {
                asked.instance.host_info().staging_size / size_of::<HostEvent>() as u64
            }
            _ => 0,
        }
    }

    /// Bytes that an honest answer says are in the staging buffer.
    fn used(&self, answer: u64) -> usize {
        let unit = match self.call {
            Ocall::Park | Ocall::PollEvents => size_of::<HostEvent>(),
            _ => 1,
        };
        usize::try_from(answer).map_or(0, |count| count * unit)
    }
}

/// The descriptor of the first socket.
fn given_before(asked: &Asked, honest: &Registers) -> u32 {
    static FIRST: OnceLock<u32> = OnceLock::new();
    match asked.call {
        Some(Ocall::SocketOpen) => *FIRST.get_or_init(|| honest.rdi as u32),
        // The listener.
        _ => asked.args[0] as u32,
    }
}

fn put_word(asked: &Asked, at: usize, value: u32) {
    if let Ok(staging) = asked.instance.whole_staging(asked.vcpu)
        && let Some(place) = staging.get_mut(at..at + 4)
    {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Takes back what `Protect` granted.
fn undo(asked: &Asked) {
    let [start, size, ..] = asked.args.map(|argument| argument as usize);
    let range = asked.instance.enclave.range();
    // Not there, as if the call had never come.
    let _ = range.release(start..start + size);
}

fn put_events(asked: &Asked, honest: u64) -> u64 {
    const STRANGE: [[u32; 2]; 4] = [[3, 1], [77, 4], [u32::MAX, u32::MAX], [0x8000_0000, 0]];
    let Ok(staging) = asked.instance.whole_staging(asked.vcpu) else {
        return 0;
    };
    // Behind the true ones.
    let (words, _) = staging.as_chunks_mut::<4>();
    let rest = words.iter_mut().skip(2 * honest as usize);
    for (word, value) in rest.zip(STRANGE.as_flattened()) {
        *word = value.to_le_bytes();
    }
    honest + STRANGE.len() as u64
}

fn put_stat(asked: &Asked) -> u64 {
    let size = size_of::<HostStat>();
    if let Ok(staging) = asked.instance.whole_staging(asked.vcpu)
        && let Some(place) = staging.get_mut(..size)
    {
        place.fill(0xFF);
    }
    0
}

/// Overwrites the staging buffer behind the first `used` bytes.
fn overwrite(asked: &Asked, used: usize) {
    if let Ok(staging) = asked.instance.whole_staging(asked.vcpu)
        && let Some(rest) = staging.get_mut(used..)
    {
        rest.fill(0xA5);
    }
}

pub fn find(name: &str) -> Option<Arc<dyn Lie>> {
    let (call, kind) = name.split_once(':')?;
    let (_, call) = CALLS.iter().find(|(known, _)| *known == call)?;
    let (_, kind) = KINDS.iter().find(|(known, _)| *known == kind)?;
    Some(Arc::new(Answer {
        call: *call,
        kind: *kind,
    }))
}

pub fn names() -> impl Iterator<Item = String> {
    let pairs = CALLS
        .iter()
        .flat_map(|call| KINDS.iter().map(move |kind| (call, kind)));
    pairs
        .filter(|((_, call), (_, kind))| makes_sense(*call, *kind))
        .map(|((call, _), (kind, _))| format!("{call}:{kind}"))
}

/// A lie that is none, or only makes programs wait for ever, is left out.
fn makes_sense(call: Ocall, kind: Kind) -> bool {
    let is_without_result = matches!(
        call,
        Ocall::Log | Ocall::Wake | Ocall::Kick | Ocall::StartTicker | Ocall::UpdateTime
    );
    let has_events = matches!(call, Ocall::Park | Ocall::PollEvents);
    match kind {
        Kind::Addresses => is_without_result || matches!(call, Ocall::Read | Ocall::ReadDir),
        Kind::StrangeEvents => has_events,
        Kind::StrangeStat => matches!(call, Ocall::Fstat | Ocall::Stat),
        Kind::StrangeContent => matches!(
            call,
            Ocall::ReadDir
                | Ocall::StatFs
                | Ocall::ReadLink
                | Ocall::TakeRequest
                | Ocall::SocketAccept
                | Ocall::SocketName
                | Ocall::SocketReceiveFrom
                | Ocall::Interfaces
        ),
        Kind::StandardDescriptor | Kind::GivenTwice => {
            matches!(call, Ocall::SocketOpen | Ocall::SocketAccept)
        }
        Kind::OtherFamily => matches!(
            call,
            Ocall::SocketName | Ocall::SocketAccept | Ocall::SocketReceiveFrom
        ),
        Kind::AddressSize => matches!(call, Ocall::SocketAccept | Ocall::SocketReceiveFrom),
        Kind::Claimed | Kind::ClaimedForPrograms => call == Ocall::Protect,
        Kind::Noise => call == Ocall::Read || has_events,
        Kind::WrongErrno => !is_without_result && !has_events,
        // Whether it is called at all is a matter of timing.
        _ => !is_without_result && call != Ocall::PollEvents,
    }
}

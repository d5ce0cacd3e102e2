//! Lies about the result of one kind of call, told each time it is made: `CALL:KIND`.

use crate::lie::{Asked, Lie};
use occlum_abi::layout::KERNEL_BASE;
use occlum_abi::ocall::{HostEvent, HostStat, Ocall};
use occlum_host::cpu::Registers;
use std::sync::Arc;

struct Answer {
    call: Ocall,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One more than the kernel's buffer holds.
    OneTooMany,
    /// The largest number.
    Largest,
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
    /// The rest of the staging buffer is overwritten.
    Noise,
}

const KINDS: [(&str, Kind); 11] = [
    ("one-too-many", Kind::OneTooMany),
    ("largest", Kind::Largest),
    ("other-errno", Kind::OtherErrno),
    ("smallest", Kind::Smallest),
    ("wrong-errno", Kind::WrongErrno),
    ("addresses", Kind::Addresses),
    ("claimed", Kind::Claimed),
    ("claimed-for-programs", Kind::ClaimedForPrograms),
    ("strange-events", Kind::StrangeEvents),
    ("strange-stat", Kind::StrangeStat),
    ("noise", Kind::Noise),
];

const CALLS: [(&str, Ocall); 18] = [
    ("Log", Ocall::Log),
    ("Park", Ocall::Park),
    ("Wake", Ocall::Wake),
    ("Kick", Ocall::Kick),
    ("StartTicker", Ocall::StartTicker),
    ("Protect", Ocall::Protect),
    ("Release", Ocall::Release),
    ("Discard", Ocall::Discard),
    ("Install", Ocall::Install),
    ("UpdateTime", Ocall::UpdateTime),
    ("Read", Ocall::Read),
    ("Write", Ocall::Write),
    ("EventAdd", Ocall::EventAdd),
    ("EventRemove", Ocall::EventRemove),
    ("PollEvents", Ocall::PollEvents),
    ("Fstat", Ocall::Fstat),
    ("Ioctl", Ocall::Ioctl),
    ("Random", Ocall::Random),
];

const SECRET_ADDRESS: u64 = KERNEL_BASE as u64;

impl Lie for Answer {
    fn answer(&self, asked: &Asked, honest: Registers) -> Registers {
        if asked.call != Some(self.call) {
            return honest;
        }
        let rdi = match self.kind {
            Kind::OneTooMany => self.room(asked) + 1,
            Kind::Largest => i64::MAX.cast_unsigned(),
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
            Kind::StrangeEvents => put_events(asked),
            Kind::StrangeStat => put_stat(asked),
            Kind::Noise => {
                make_noise(asked, honest.rdi);
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
    /// The most an honest host could answer.
    fn room(&self, asked: &Asked) -> u64 {
        match self.call {
            Ocall::Read | Ocall::Write => asked.args[2],
            Ocall::Park | Ocall::PollEvents => {
                asked.instance.host_info().staging_size / size_of::<HostEvent>() as u64
            }
            _ => 0,
        }
    }
}

/// Takes back what `Protect` granted.
fn undo(asked: &Asked) {
    let [start, size, ..] = asked.args.map(|argument| argument as usize);
    let range = asked.instance.enclave.range();
    // Not there, as if the call had never come.
    let _ = range.release(start..start + size);
}

fn put_events(asked: &Asked) -> u64 {
    const STRANGE: [[u32; 2]; 4] = [[3, 1], [77, 4], [u32::MAX, u32::MAX], [0x8000_0000, 0]];
    let Ok(staging) = asked.instance.whole_staging(asked.vcpu) else {
        return 0;
    };
    let (words, _) = staging.as_chunks_mut::<4>();
    for (word, value) in words.iter_mut().zip(STRANGE.as_flattened()) {
        *word = value.to_le_bytes();
    }
    STRANGE.len() as u64
}

fn put_stat(asked: &Asked) -> u64 {
    let size = size_of::<HostStat>() as u64;
    if let Ok(place) = asked.instance.staging(asked.vcpu, asked.args[1], size) {
        place.fill(0xFF);
    }
    0
}

/// Overwrites the staging buffer behind the first `used` bytes.
fn make_noise(asked: &Asked, used: u64) {
    if let Ok(staging) = asked.instance.whole_staging(asked.vcpu)
        && let Some(rest) = staging.get_mut(used as usize..)
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

fn makes_sense(call: Ocall, kind: Kind) -> bool {
    match kind {
        Kind::StrangeEvents => matches!(call, Ocall::Park | Ocall::PollEvents),
        Kind::StrangeStat => call == Ocall::Fstat,
        Kind::Claimed | Kind::ClaimedForPrograms => call == Ocall::Protect,
        Kind::Noise => matches!(call, Ocall::Read | Ocall::Park | Ocall::PollEvents),
        Kind::OneTooMany => !matches!(call, Ocall::Log | Ocall::Wake | Ocall::Kick),
        _ => true,
    }
}

//! The stack a program starts with: arguments, environment and the auxiliary vector (getauxval(3)).
//!
//! ```text
//! high  8 zero bytes
//!       path of the executable, environment strings, argument strings
//!       "x86_64", 16 random bytes
//!       auxiliary vector, ended by AT_NULL
//!       environment pointers, NULL
//!       argument pointers, NULL
//! low   argument count            RSP, 16-byte aligned
//! ```

use alloc::vec::Vec;

use occlum_abi::Errno;
use zerocopy::IntoBytes;

use crate::error::{Error, Result, err};
use crate::user::{self, UserAddr};

/// Longest single argument or environment string (MAX_ARG_STRLEN).
pub const STRING_MAX: usize = 128 * 1024;
/// What arguments and environment may take at least, and at most, of whatever stack.
const TOTAL_MIN: usize = 128 * 1024;
const TOTAL_MAX: usize = 6 << 20;

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_HWCAP2: u64 = 26;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO_EHDR: u64 = 33;
const AT_MINSIGSTKSZ: u64 = 51;

const PLATFORM: &[u8] = b"x86_64\0";

/// What goes onto the stack.
pub struct Contents<'a> {
    pub args: &'a [Vec<u8>],
    pub env: &'a [Vec<u8>],
    pub path: &'a [u8],
    pub random: [u8; 16],
    pub facts: Facts,
}

/// The numbers of the auxiliary vector.
pub struct Facts {
    pub headers: usize,
    pub header_count: usize,
    pub base: usize,
    pub entry: usize,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    pub is_secure: bool,
    pub hwcap: [u64; 2],
    pub vdso: usize,
    pub min_signal_stack: usize,
}

/// Where things are on a stack that was written.
pub struct Layout {
    pub sp: usize,
    pub args: (usize, usize),
    pub env: (usize, usize),
    pub auxv: Vec<u64>,
}

/// E2BIG if arguments and environment are more than Linux takes with a stack limit of `stack_limit`.
pub fn check_size(args: &[Vec<u8>], env: &[Vec<u8>], stack_limit: u64) -> Result<()> {
    let strings = args.iter().chain(env);
    let size: usize = strings.map(|text| text.len() + 1 + size_of::<usize>()).sum();
    let limit = usize::try_from(stack_limit / 4).unwrap_or(TOTAL_MAX).clamp(TOTAL_MIN, TOTAL_MAX);
    if size > limit {
        return err(Errno::E2BIG, "arguments and environment too long");
    }
    Ok(())
}

/// Writes the contents below `top`, in the current address space.
pub fn write(top: usize, contents: &Contents<'_>) -> Result<Layout> {
    let mut strings = Strings::new(top - 8);
    let path = strings.push_text(contents.path)?;
    let env = strings.push_all(contents.env)?;
    let args = strings.push_all(contents.args)?;
    let platform = strings.push(PLATFORM)?;
    let random = strings.push(&contents.random)?;

    let auxv = auxiliary_vector(&contents.facts, path, platform, random);
    let mut words: Vec<u64> = Vec::with_capacity(args.list.len() + env.list.len() + auxv.len() + 3);
    words.push(args.list.len() as u64);
    words.extend(args.list.iter().map(|&at| at as u64));
    words.push(0);
    words.extend(env.list.iter().map(|&at| at as u64));
    words.push(0);
    words.extend(&auxv);
    let sp = (strings.at - words.as_bytes().len()) & !15;
    user::write_bytes(UserAddr(sp), words.as_bytes()).map_err(too_big)?;
    Ok(Layout { sp, args: args.range, env: env.range, auxv })
}

fn auxiliary_vector(facts: &Facts, path: usize, platform: usize, random: usize) -> Vec<u64> {
    let mut vector = Vec::with_capacity(44);
    let mut add = |kind: u64, value: u64| vector.extend([kind, value]);
    if facts.vdso != 0 {
        add(AT_SYSINFO_EHDR, facts.vdso as u64);
    }
    add(AT_MINSIGSTKSZ, facts.min_signal_stack as u64);
    add(AT_HWCAP, facts.hwcap[0]);
    add(AT_PAGESZ, crate::mm::PAGE_SIZE as u64);
    add(AT_CLKTCK, super::usage::TICKS_PER_SECOND);
    add(AT_PHDR, facts.headers as u64);
    add(AT_PHENT, super::elf::PROGRAM_HEADER_SIZE as u64);
    add(AT_PHNUM, facts.header_count as u64);
    add(AT_BASE, facts.base as u64);
    add(AT_FLAGS, 0);
    add(AT_ENTRY, facts.entry as u64);
    add(AT_UID, u64::from(facts.uid));
    add(AT_EUID, u64::from(facts.euid));
    add(AT_GID, u64::from(facts.gid));
    add(AT_EGID, u64::from(facts.egid));
    add(AT_SECURE, u64::from(facts.is_secure));
    add(AT_RANDOM, random as u64);
    add(AT_HWCAP2, facts.hwcap[1]);
    add(AT_EXECFN, path as u64);
    add(AT_PLATFORM, platform as u64);
    add(AT_NULL, 0);
    vector
}

/// Strings stacked downwards.
struct Strings {
    at: usize,
}

struct Pushed {
    list: Vec<usize>,
    range: (usize, usize),
}

impl Strings {
    fn new(top: usize) -> Strings {
        Strings { at: top }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<usize> {
        self.at -= bytes.len();
        user::write_bytes(UserAddr(self.at), bytes).map_err(too_big)?;
        Ok(self.at)
    }

    fn push_text(&mut self, text: &[u8]) -> Result<usize> {
        self.push(&[0])?;
        self.push(text)
    }

    /// In one piece, first string lowest, as /proc/PID/cmdline reads them.
    fn push_all(&mut self, texts: &[Vec<u8>]) -> Result<Pushed> {
        let size: usize = texts.iter().map(|text| text.len() + 1).sum();
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| Error::new(Errno::ENOMEM, "arguments"))?;
        let mut list = Vec::with_capacity(texts.len());
        let end = self.at;
        let start = end - size;
        for text in texts {
            list.push(start + bytes.len());
            bytes.extend_from_slice(text);
            bytes.push(0);
        }
        self.push(&bytes)?;
        Ok(Pushed { list, range: (start, end) })
    }
}

/// The only way writing to a fresh stack fails is that it can't grow.
fn too_big(_: Error) -> Error {
    Error::new(Errno::E2BIG, "the stack can't hold the arguments")
}

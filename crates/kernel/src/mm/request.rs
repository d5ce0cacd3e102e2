//! What callers ask of a space: [`MapRequest`] and its parts.

use alloc::sync::Arc;

use super::file::MappableFile;
use super::territory::Placement;
use super::vma::Prot;

/// MAP_FIXED and MAP_FIXED_NOREPLACE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fixed {
    /// The address is a hint.
    #[default]
    No,
    /// Exactly there, instead of what is there.
    Replace,
    /// Exactly there; EEXIST if something is there.
    NoReplace,
}

/// MAP_PRIVATE and MAP_SHARED.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    #[default]
    Private,
    Shared,
}

/// What a new mapping shows.
#[derive(Clone, Default)]
pub enum Backing {
    #[default]
    Anonymous,
    /// `offset` is a multiple of the page size.
    File { file: Arc<dyn MappableFile>, offset: u64 },
    /// Anonymous, grows on demand, named `[stack]`.
    Stack,
}

/// A mapping to make. `MapRequest { size, prot, ..Default::default() }` is private, anonymous, and
/// goes where the kernel likes.
#[derive(Clone, Default)]
pub struct MapRequest {
    /// Hint, or the exact address if `fixed` says so.
    pub addr: Option<usize>,
    /// Bytes; rounded up to pages.
    pub size: usize,
    pub prot: Prot,
    pub sharing: Sharing,
    pub fixed: Fixed,
    pub backing: Backing,
    pub placement: Placement,
    /// MAP_GROWSDOWN.
    pub grows_down: bool,
    /// MAP_STACK: touched from the top down.
    pub is_stack: bool,
    /// MAP_NORESERVE: not refused for want of memory.
    pub is_unreserved: bool,
    /// MAP_POPULATE or MAP_LOCKED: all pages at once.
    pub is_populated: bool,
    /// MAP_LOCKED.
    pub is_locked: bool,
    /// Part of a program is being loaded (MAP_DENYWRITE, as loaders say it): what it shows may be the
    /// program's code as it runs, with patched system calls, and most of it will be mapped over.
    pub is_program: bool,
    /// A shared mapping may never become writable: the descriptor is read-only.
    pub is_write_denied: bool,
}

impl MapRequest {
    pub fn anonymous(size: usize, prot: Prot) -> MapRequest {
        MapRequest { size, prot, ..MapRequest::default() }
    }

    /// A private mapping of a file.
    pub fn file(file: Arc<dyn MappableFile>, offset: u64, size: usize, prot: Prot) -> MapRequest {
        MapRequest { size, prot, backing: Backing::File { file, offset }, ..MapRequest::default() }
    }

    /// The same, in place of whatever is at `addr`.
    pub fn fixed_at(self, addr: usize) -> MapRequest {
        MapRequest { addr: Some(addr), fixed: Fixed::Replace, ..self }
    }
}

/// Bounds a process set for itself (setrlimit(2)), in bytes; `usize::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// RLIMIT_AS
    pub address_space: usize,
    /// RLIMIT_DATA
    pub data: usize,
    /// RLIMIT_STACK
    pub stack: usize,
    /// RLIMIT_MEMLOCK
    pub locked: usize,
}

impl Default for MemoryLimits {
    fn default() -> MemoryLimits {
        MemoryLimits {
            address_space: usize::MAX,
            data: usize::MAX,
            stack: 8 << 20,
            locked: usize::MAX,
        }
    }
}

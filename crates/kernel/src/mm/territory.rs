//! Who owns which addresses of the one user range.
//!
//! ```text
//! USER_BASE .. 4 GiB              programs linked at fixed addresses, MAP_32BIT
//! 4 GiB .. ARENAS                 whoever asks for an address there (Go: 0xc000000000)
//! ARENAS .. USER_END              arenas: what programs get when they don't ask
//! ```
//! A space holds a [`Territory`]: ranges taken from the range for it alone. It starts with an arena,
//! inside which placing a mapping needs no global lock, and whose mappings are within reach of a
//! 32-bit jump from each other. It grows by more arenas, and by the addresses a program insists on.
//! Territory is given up at the end of the space only: addresses are plentiful (31 TiB).
//!
//! Arenas of finished spaces are kept for the next ones while their pages are warm.
//!
//! Lock order: `RANGE` and `IDLE_ARENAS` are leaf spin locks, never held together.

use alloc::vec::Vec;
use core::ops::Range;

use occlum_abi::Errno;
use occlum_abi::layout::{PAGE_SIZE, USER_BASE, USER_END};
use occlum_enclave::host;

use super::commit;
use super::file::FileIdentity;
use super::ranges::RangeSet;
use super::warm::WarmPages;
use crate::error::{Result, err};
use crate::sched::SpinLock;

const ARENAS: usize = 0x1000_0000_0000;
const ARENA_SIZE: usize = 1 << 30;
/// Requests from this size on get a range of their own.
const LARGE: usize = ARENA_SIZE / 2;
/// Addresses MAP_32BIT may give.
const LOW: Range<usize> = 0x4000_0000..0x8000_0000;
/// More arenas than this are not kept.
const IDLE_ARENAS_MAX: usize = 64;
/// So many programs find their own arena again; after that arenas change hands.
const IDLE_ARENAS_KEPT: usize = 16;

/// Addresses that belong to no space; `None` before first use.
static RANGE: SpinLock<Option<RangeSet>> = SpinLock::new(None);
static IDLE_ARENAS: SpinLock<Vec<IdleArena>> = SpinLock::new(Vec::new());

struct IdleArena {
    base: usize,
    /// What else it owned: the addresses of a program linked at fixed ones.
    fixed: Vec<Range<usize>>,
    warm: WarmPages,
    /// The program whose space it was.
    program: FileIdentity,
}

/// Where inside the territory a mapping without an address goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// As Linux: below what is there.
    #[default]
    High,
    /// Programs, whose heap then grows upwards after them.
    Low,
    /// In the first 2 GiB (MAP_32BIT).
    Low2Gib,
}

/// Addresses one space owns.
pub(super) struct Territory {
    owned: RangeSet,
    /// Owned, and no mapping there.
    free: RangeSet,
    /// Free and still backed by pages, with the content of former mappings.
    pub warm: WarmPages,
    /// The program that will run here: it looks for an arena where it ran before.
    program: FileIdentity,
    /// Addresses below [`ARENAS`] are kept for its next run.
    is_fixed: bool,
}

/// What the member of an overlay group that is in place holds for all of them.
#[derive(Default)]
pub(super) struct Estate {
    owned: RangeSet,
    warm: WarmPages,
}

impl Estate {
    /// Nobody knows what is there: the addresses are never used again.
    pub fn abandon(mut self) {
        self.warm.remove(0..usize::MAX);
    }
}

impl Territory {
    pub fn new(program: FileIdentity) -> Result<Territory> {
        let mut territory = Territory {
            owned: RangeSet::new(),
            free: RangeSet::new(),
            warm: WarmPages::default(),
            program,
            is_fixed: false,
        };
        match take_idle(program) {
            Some(arena) => territory.settle_in(arena)?,
            None => territory.grow(0)?,
        }
        Ok(territory)
    }

    /// Takes over an arena that was left.
    fn settle_in(&mut self, arena: IdleArena) -> Result<()> {
        let mut arena = arena;
        self.own(arena.base..arena.base + ARENA_SIZE);
        for part in core::mem::take(&mut arena.fixed) {
            if arena.program == self.program {
                self.own(part);
            } else {
                arena.give_up(part);
            }
        }
        self.warm = arena.warm;
        if arena.program == self.program { Ok(()) } else { self.warm.close(&(0..usize::MAX), |_, _| false, |_| false) }
    }

    /// For a program linked at fixed addresses, which nobody has.
    pub fn fixed(program: FileIdentity) -> Result<Territory> {
        let mut territory = Territory::new(program)?;
        territory.is_fixed = true;
        Ok(territory)
    }

    /// Takes `size` bytes at an address of the kernel's choice.
    pub fn place(&mut self, size: usize, align: usize, placement: Placement) -> Result<usize> {
        if placement == Placement::Low2Gib {
            return self.place_in(LOW, size);
        }
        loop {
            let found = match placement {
                Placement::Low => self.free.lowest_fit(size, align, ARENAS..USER_END),
                _ => self.free.highest_fit(size, align, ARENAS..USER_END),
            };
            if let Some(start) = found {
                self.free.remove(start..start + size);
                return Ok(start);
            }
            self.grow(size.saturating_add(align))?;
        }
    }

    /// Takes `size` bytes anywhere in `bounds`.
    pub fn place_in(&mut self, bounds: Range<usize>, size: usize) -> Result<usize> {
        if let Some(start) = self.free.highest_fit(size, PAGE_SIZE, bounds.clone()) {
            self.free.remove(start..start + size);
            return Ok(start);
        }
        let start = with_range(|range| {
            let start = range.highest_fit(size, PAGE_SIZE, bounds)?;
            range.remove(start..start + size);
            Some(start)
        });
        let Some(start) = start else { return err(Errno::ENOMEM, "no addresses left there") };
        self.owned.insert(start..start + size);
        Ok(start)
    }

    /// Whether no part of a range belongs to another space.
    pub fn can_claim(&self, wanted: Range<usize>) -> bool {
        let missing = self.owned.missing(wanted);
        let is_free = || with_range(|range| missing.iter().all(|part| range.covers(part.clone())));
        is_free() || missing.iter().any(give_up_idle) && is_free()
    }

    /// Takes exactly this range, in which the space has no mapping. ENOMEM if another space owns a
    /// part of it.
    pub fn claim(&mut self, wanted: Range<usize>) -> Result<()> {
        if !self.can_claim(wanted.clone()) {
            return err(Errno::ENOMEM, "addresses belong to another process");
        }
        let missing = self.owned.missing(wanted.clone());
        let is_free = with_range(|range| {
            let is_free = missing.iter().all(|part| range.covers(part.clone()));
            if is_free {
                for part in &missing {
                    range.remove(part.clone());
                }
            }
            is_free
        });
        if !is_free {
            return err(Errno::ENOMEM, "addresses belong to another process");
        }
        for part in missing {
            self.owned.insert(part);
        }
        self.free.remove(wanted);
        Ok(())
    }

    /// A mapping is gone: its addresses may be used again.
    pub fn give_back(&mut self, range: Range<usize>) {
        self.free.insert(range);
    }

    /// Never uses these addresses again: the host would not take their pages back.
    pub fn abandon(&mut self, range: Range<usize>) {
        self.free.remove(range.clone());
        self.owned.remove(range);
    }

    /// Hands claimed addresses over to an owner that is no space.
    pub fn cede(&mut self, range: Range<usize>) {
        self.warm.release(range.clone());
        self.owned.remove(range);
    }

    /// For a forked child, which has the same places free, and nothing else until its first turn.
    pub fn heir(&self) -> Territory {
        let mut heir = Territory::vagrant(self.program);
        heir.free = self.free.clone();
        heir
    }

    /// Owns nothing: for who joins a group.
    pub fn vagrant(program: FileIdentity) -> Territory {
        Territory {
            owned: RangeSet::new(),
            free: RangeSet::new(),
            warm: WarmPages::default(),
            program,
            is_fixed: false,
        }
    }

    pub fn give_estate(&mut self) -> Estate {
        Estate { owned: core::mem::take(&mut self.owned), warm: core::mem::take(&mut self.warm) }
    }

    pub fn take_estate(&mut self, estate: Estate) {
        (self.owned, self.warm) = (estate.owned, estate.warm);
    }

    pub fn owned(&self) -> &RangeSet {
        &self.owned
    }

    /// Addresses are another owner's from now on.
    pub fn give_up_free(&mut self, range: Range<usize>) {
        self.free.remove(range);
    }

    /// Takes inaccessible pages with old content as warm, or gives them back to the host.
    pub fn keep_or_release(&mut self, range: Range<usize>) {
        let size = range.end - range.start;
        if commit::try_keep_warm(size) {
            self.warm.insert(range);
        } else if host::release_user(range.start, size).is_err() {
            self.abandon(range);
        }
    }

    pub fn owned_ranges(&self) -> Vec<Range<usize>> {
        self.owned.iter().collect()
    }

    fn own(&mut self, range: Range<usize>) {
        self.owned.insert(range.clone());
        self.free.insert(range);
    }

    fn grow(&mut self, size: usize) -> Result<()> {
        let size = if size < LARGE { ARENA_SIZE } else { size.next_multiple_of(2 << 20) };
        let start = with_range(|range| {
            let start = range.lowest_fit(size, 2 << 20, ARENAS..USER_END)?;
            range.remove(start..start + size);
            Some(start)
        });
        let Some(start) = start else { return err(Errno::ENOMEM, "no addresses left") };
        self.own(start..start + size);
        Ok(())
    }

    /// Keeps the first arena for the next space, and gives up everything else.
    fn disband(&mut self) {
        let arena = self.owned.iter().find(|range| range.start >= ARENAS && range.end - range.start >= ARENA_SIZE);
        let base = arena.map(|range| range.start).filter(|_| IDLE_ARENAS.lock().len() < IDLE_ARENAS_MAX);
        let kept = base.map_or(0..0, |base| base..base + ARENA_SIZE);
        let keeps_low = base.is_some() && self.is_fixed;
        let low = if keeps_low { self.owned.within(0..ARENAS) } else { Vec::new() };
        for part in &low {
            self.owned.remove(part.clone());
        }
        for part in self.owned.iter().flat_map(|range| without(range, &kept)) {
            self.warm.release(part.clone());
            // What the host did not take back holds old content and is never given out again.
            let clean = self.warm.missing(part);
            with_range(|range| clean.into_iter().for_each(|part| { range.insert(part); }));
        }
        if let Some(base) = base {
            let warm = core::mem::take(&mut self.warm);
            IDLE_ARENAS.lock().push(IdleArena { base, fixed: low, warm, program: self.program });
        }
    }
}

impl Drop for Territory {
    fn drop(&mut self) {
        self.disband();
    }
}

/// Gives warm pages of idle arenas back to the host until `bytes` are free.
pub(super) fn reclaim(bytes: usize) -> usize {
    let mut done = 0;
    while done < bytes {
        // Oldest first: the newest is the next to be used.
        let arena = {
            let mut arenas = IDLE_ARENAS.lock();
            if arenas.is_empty() { None } else { Some(arenas.remove(0)) }
        };
        let Some(mut arena) = arena else { break };
        done += arena.give_up(arena.base..arena.base + ARENA_SIZE);
        for part in core::mem::take(&mut arena.fixed) {
            done += arena.give_up(part);
        }
    }
    done
}

impl IdleArena {
    /// Gives pages back to the host, and their addresses to everybody; gives the bytes.
    fn give_up(&mut self, part: Range<usize>) -> usize {
        let done = self.warm.release(part.clone());
        // What the host did not take back holds old content and is never given out again.
        let clean = self.warm.missing(part);
        with_range(|range| clean.into_iter().for_each(|part| { range.insert(part); }));
        done
    }
}

/// Takes fixed addresses from an arena that waits for its program's next run. Says whether there was one.
fn give_up_idle(wanted: &Range<usize>) -> bool {
    let touches = |part: &Range<usize>| part.start < wanted.end && wanted.start < part.end;
    let mut was_any = false;
    loop {
        let arena = {
            let mut arenas = IDLE_ARENAS.lock();
            let index = arenas.iter().position(|arena| arena.fixed.iter().any(touches));
            index.map(|index| arenas.remove(index))
        };
        let Some(mut arena) = arena else { return was_any };
        was_any = true;
        for part in core::mem::take(&mut arena.fixed) {
            arena.give_up(part);
        }
        IDLE_ARENAS.lock().insert(0, arena);
    }
}

/// An arena for a program: one where it ran before, or, if many wait, the one that waited longest.
fn take_idle(program: FileIdentity) -> Option<IdleArena> {
    let mut arenas = IDLE_ARENAS.lock();
    if let Some(index) = arenas.iter().rposition(|arena| arena.program == program) {
        return Some(arenas.remove(index));
    }
    (arenas.len() >= IDLE_ARENAS_KEPT).then(|| arenas.remove(0))
}

/// Takes addresses that no space will own (the vDSO).
pub(super) fn take_global(size: usize) -> Result<usize> {
    let found = with_range(|range| {
        let start = range.highest_fit(size, PAGE_SIZE, ARENAS..USER_END)?;
        range.remove(start..start + size);
        Some(start)
    });
    found.map_or_else(|| err(Errno::ENOMEM, "no addresses left"), Ok)
}

/// Gives back what [`take_global`] or [`Territory::cede`] took out of all territories.
pub(super) fn return_global(range: Range<usize>) {
    with_range(|all| all.insert(range));
}

fn with_range<R>(f: impl FnOnce(&mut RangeSet) -> R) -> R {
    let mut range = RANGE.lock();
    f(range.get_or_insert_with(|| {
        let mut all = RangeSet::new();
        all.insert(USER_BASE..USER_END);
        all
    }))
}

/// `range` without `hole`.
fn without(range: Range<usize>, hole: &Range<usize>) -> [Range<usize>; 2] {
    if hole.start >= range.end || hole.end <= range.start {
        return [range, 0..0];
    }
    [range.start..hole.start.max(range.start), hole.end.min(range.end)..range.end]
}

//! Changing permissions: mprotect(2).

use core::ops::Range;

use super::fault::{EAGER_MAX, STACK_CHUNK};
use super::fork::tracks_writes;
use super::space::{AddressSpace, Space, page_range};
use super::vma::{Prot, Source, Vma};
use crate::error::{Errno, Result, err};

impl AddressSpace {
    /// mprotect(2). As Linux, what comes before a hole or a refusal is changed.
    pub fn protect(&self, addr: usize, size: usize, prot: Prot) -> Result<()> {
        let range = page_range(addr, size, Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        self.lock_resident()?.protect(range, prot)
    }

    /// The same with PROT_GROWSDOWN: from the start of a mapping that grows down.
    pub fn protect_grown(&self, addr: usize, size: usize, prot: Prot) -> Result<()> {
        let range = page_range(addr, size, Errno::ENOMEM)?;
        let mut space = self.lock_resident()?;
        let start = match space.vmas.from(range.start) {
            Some(vma) if vma.start < range.end && vma.grows_down => vma.start,
            Some(vma) if vma.start < range.end => return err(Errno::EINVAL, "does not grow down"),
            _ => return err(Errno::ENOMEM, "nothing mapped there"),
        };
        space.protect(start..range.end, prot)
    }

    /// Whether all that is mapped there can be executed already.
    pub fn is_executable(&self, addr: usize, size: usize) -> Result<bool> {
        let range = page_range(addr, size, Errno::ENOMEM)?;
        let space = self.lock_resident()?;
        Ok(space.vmas.touching(range).all(|vma| vma.prot.contains(Prot::EXEC)))
    }
}

impl Space {
    fn protect(&mut self, range: Range<usize>, prot: Prot) -> Result<()> {
        let mut at = range.start;
        for part in self.vmas.parts(range.clone()) {
            if part.start > at {
                return err(Errno::ENOMEM, "hole in the range");
            }
            at = part.end;
            if part.prot != prot {
                self.protect_part(part, prot)?;
            }
        }
        if at < range.end { err(Errno::ENOMEM, "hole in the range") } else { Ok(()) }
    }

    fn protect_part(&mut self, part: Vma, prot: Prot) -> Result<()> {
        if part.is_write_denied && prot.contains(Prot::WRITE) {
            return err(Errno::EACCES, "the file is not open for writing");
        }
        self.close_standing(&part.range(), |_, _| false)?;
        if prot.contains(Prot::WRITE) && !tracks_writes() {
            self.unshare(part.range())?;
        }
        match &part.source {
            Source::Vdso | Source::Vvar | Source::Stubs => {
                return err(Errno::EACCES, "belongs to the kernel");
            }
            Source::Shared { object, .. } => object.add_rights(prot)?,
            Source::File { .. } if prot.contains(Prot::EXEC) && !part.prot.contains(Prot::EXEC) => {
                self.attach_stubs(&part)?;
                self.patch_loaded(&part)?;
                self.reprotect(part.range(), prot)?;
            }
            _ => self.reprotect(part.range(), prot)?,
        }
        self.vmas.update(part.range(), |vma| {
            vma.prot = prot;
            vma.is_pristine &= !prot.contains(Prot::WRITE);
        });
        if part.prot.is_none() && part.is_anonymous() {
            self.settle_warm(part.range(), prot)?;
            self.grant_early(&Vma { prot, ..part })?;
        }
        Ok(())
    }

    /// What was reserved becomes memory: grants what is sure to be touched soon, to save the faults.
    fn grant_early(&mut self, part: &Vma) -> Result<()> {
        let start = match part.size() {
            0..=EAGER_MAX => part.start,
            _ if part.is_stack => part.end - STACK_CHUNK,
            _ => return Ok(()),
        };
        for missing in self.granted.missing(start..part.end) {
            self.grant_zeros(missing, part.prot)?;
        }
        Ok(())
    }
}

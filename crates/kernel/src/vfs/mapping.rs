//! Files in memory: what mmap(2) gets of an open file, and how shared mappings and read(2)/write(2)
//! see the same bytes.

use alloc::string::String;
use alloc::sync::Arc;

use occlum_enclave::pages::Pages;

use super::inode::{Allocate, InodeRef, Kind, Position};
use super::mounts;
use super::open::OpenFile;
use super::transfer::{Sink, Source};
use crate::error::{Errno, Error, Result, err};
use crate::mm::{FileIdentity, MappableFile, PAGE_SIZE, SharedSlot};

/// An inode with the name it was mapped by.
struct MappedInode {
    inode: InodeRef,
    identity: FileIdentity,
    name: String,
}

impl OpenFile {
    /// The file for mmap(2); ENODEV for what can't be mapped.
    pub fn mappable(&self) -> Result<Arc<dyn MappableFile>> {
        let Some(inode) = self.inode() else { return err(Errno::ENODEV, "has no data to map") };
        if inode.kind() != Kind::Regular {
            return err(Errno::ENODEV, "not a regular file");
        }
        let attr = inode.attr()?;
        let name = self.path().map(|path| path.name(&mounts::root()).text).unwrap_or_default();
        Ok(Arc::new(MappedInode {
            inode: inode.clone(),
            identity: FileIdentity { dev: attr.dev, ino: attr.ino },
            name: String::from_utf8_lossy(&name).into_owned(),
        }))
    }
}

impl MappableFile for MappedInode {
    fn read_page_data(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let done = read_all(&self.inode, offset, buf)?;
        buf[done..].fill(0);
        Ok(done)
    }

    fn size(&self) -> u64 {
        self.inode.attr().map_or(0, |attr| attr.size)
    }

    fn identity(&self) -> FileIdentity {
        self.identity
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_unchanging(&self) -> bool {
        self.inode.is_unchanging()
    }

    fn sites(&self) -> Option<Arc<[u8]>> {
        self.inode.sites()
    }

    fn write_page_data(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut source = Source::kernel(data);
        while source.left() > 0 {
            let before = source.left();
            self.inode.write_at(Position::At(offset + source.done() as u64), &mut source)?;
            if source.left() == before {
                return err(Errno::EIO, "the file takes no more data");
            }
        }
        Ok(())
    }

    fn shared_slot(&self) -> Option<&SharedSlot> {
        self.inode.shared_slot()
    }
}

/// Reads from `offset` on until `buf` is full or the file ends.
fn read_all(inode: &InodeRef, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let mut sink = Sink::kernel(buf);
    loop {
        let before = sink.done();
        inode.read_at(offset + before as u64, &mut sink)?;
        if sink.room() == 0 || sink.done() == before {
            return Ok(sink.done());
        }
    }
}

/// Reads of a file go through here: the file's data, with what is newer in its shared pages.
pub fn read_at(inode: &InodeRef, offset: u64, sink: &mut Sink<'_>) -> Result<()> {
    let Some(slot) = inode.shared_slot().filter(|slot| slot.object().is_some()) else {
        return inode.read_at(offset, sink);
    };
    let mut page = one_page()?;
    let start = sink.done();
    while sink.room() > 0 {
        let at = offset + (sink.done() - start) as u64;
        let size = sink.room().min(PAGE_SIZE);
        let size = read_all(inode, at, &mut page[..size])?;
        slot.overlay_read(at, &mut page[..size])?;
        if size == 0 || sink.put(&page[..size]) < size {
            return Ok(());
        }
    }
    Ok(())
}

/// Writes to a file go through here: to the file, and to its shared pages.
pub fn write_at(inode: &InodeRef, position: Position, source: &mut Source<'_>) -> Result<u64> {
    let Some(slot) = inode.shared_slot().filter(|slot| slot.object().is_some()) else {
        return inode.write_at(position, source);
    };
    let mut page = one_page()?;
    let mut position = position;
    let mut end = inode.attr()?.size;
    loop {
        let size = source.take(&mut page[..PAGE_SIZE]);
        if size == 0 {
            return Ok(end);
        }
        end = inode.write_at(position, &mut Source::kernel(&page[..size]))?;
        slot.overlay_write(end - size as u64, &page[..size])?;
        if let Position::At(_) = position {
            position = Position::At(end);
        }
    }
}

/// fallocate(2) goes through here.
pub fn allocate(inode: &InodeRef, how: Allocate, offset: u64, size: u64) -> Result<()> {
    let keeps_content = matches!(how, Allocate::Extend | Allocate::KeepSize);
    let slot = inode.shared_slot().filter(|slot| !keeps_content && slot.object().is_some());
    let Some(slot) = slot else { return inode.allocate(how, offset, size) };
    // Pages that show the old content go back to the file, and are loaded anew when they are touched.
    write_back(inode)?;
    inode.allocate(how, offset, size)?;
    slot.truncated(offset & !(PAGE_SIZE as u64 - 1))
}

/// Brings what shared mappings have written to the file.
pub fn write_back(inode: &InodeRef) -> Result<()> {
    match inode.shared_slot().and_then(SharedSlot::object) {
        Some(object) => object.write_back(0..inode.attr()?.size),
        None => Ok(()),
    }
}

/// Changes of a file's size go through here.
pub fn resize(inode: &InodeRef, size: u64) -> Result<()> {
    inode.resize(size)?;
    inode.shared_slot().map_or(Ok(()), |slot| slot.truncated(size))
}

fn one_page() -> Result<Pages> {
    Pages::new(0).map_err(|_| Error::new(Errno::ENOMEM, "no kernel pages"))
}

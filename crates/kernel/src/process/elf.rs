//! Reading the headers of an ELF program (System V ABI, x86-64 supplement).
//!
//! Pure functions over bytes of a file that may be anything: no address arithmetic can wrap, no size is
//! believed before it is checked. It depends on nothing of the kernel, so that `fuzz/` can include it.
//!
//! ```text
//! ELF header: 0 e_ident[16]  16 e_type u16  18 e_machine u16  20 e_version u32  24 e_entry u64
//!             32 e_phoff u64  40 e_shoff u64  48 e_flags u32  52 e_ehsize u16  54 e_phentsize u16
//!             56 e_phnum u16  (64 bytes)
//! program header: 0 p_type u32  4 p_flags u32  8 p_offset u64  16 p_vaddr u64  24 p_paddr u64
//!             32 p_filesz u64  40 p_memsz u64  48 p_align u64  (56 bytes)
//! ```

use alloc::vec::Vec;

pub const HEADER_SIZE: usize = 64;
pub const PROGRAM_HEADER_SIZE: usize = 56;
const PAGE_SIZE: u64 = 4096;
/// Addresses of user memory are below this; the kernel's address checks come on top.
const ADDRESS_END: u64 = 1 << 47;
/// Linux reads at most 64 KiB of program headers.
const MAX_PROGRAM_HEADERS: u16 = (65536 / PROGRAM_HEADER_SIZE) as u16;
/// Longest interpreter path with its NUL (PATH_MAX).
const MAX_INTERPRETER: u64 = 4096;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;

pub const PF_X: u32 = 1;
pub const PF_W: u32 = 2;
pub const PF_R: u32 = 4;

/// Why a file is no program for this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    NotElf,
    /// Another class, byte order or machine.
    WrongMachine,
    /// Not an executable or shared object.
    WrongType,
    BadProgramHeaders,
    NothingToLoad,
    BadSegment,
    BadInterpreter,
}

/// Where a program wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ET_EXEC: at the addresses it names.
    Fixed,
    /// ET_DYN: anywhere.
    Relocatable,
}

/// The ELF header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub entry: u64,
    pub table_offset: u64,
    pub table_count: usize,
}

/// One PT_LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `PF_*` bits.
    pub flags: u32,
    pub offset: u64,
    pub address: u64,
    pub file_size: u64,
    pub memory_size: u64,
}

/// What the program headers say; addresses are as in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Ascending, not overlapping pages that differ in the file.
    pub segments: Vec<Segment>,
    /// Offset and size of the interpreter's path in the file, NUL included.
    pub interpreter: Option<(u64, usize)>,
    /// Where the program headers will be in memory, if a segment holds them.
    pub table_address: Option<u64>,
    /// First and last+1 page of all segments.
    pub start: u64,
    pub end: u64,
    /// Largest alignment a segment asks for; a power of two, at least a page.
    pub alignment: u64,
    pub wants_executable_stack: bool,
}

impl Segment {
    /// End in memory.
    pub fn end(&self) -> u64 {
        self.address + self.memory_size
    }

    /// End of what comes from the file.
    pub fn file_end(&self) -> u64 {
        self.address + self.file_size
    }
}

/// Checks the first 64 bytes of a file.
pub fn parse_header(bytes: &[u8; HEADER_SIZE]) -> Result<Header, ElfError> {
    if bytes[..4] != *b"\x7fELF" {
        return Err(ElfError::NotElf);
    }
    // Class 64, little-endian.
    if bytes[4] != 2 || bytes[5] != 1 || u16_at(bytes, 18) != EM_X86_64 {
        return Err(ElfError::WrongMachine);
    }
    let kind = match u16_at(bytes, 16) {
        ET_EXEC => Kind::Fixed,
        ET_DYN => Kind::Relocatable,
        _ => return Err(ElfError::WrongType),
    };
    let count = u16_at(bytes, 56);
    if usize::from(u16_at(bytes, 54)) != PROGRAM_HEADER_SIZE || count == 0 || count > MAX_PROGRAM_HEADERS {
        return Err(ElfError::BadProgramHeaders);
    }
    Ok(Header {
        kind,
        entry: u64_at(bytes, 24),
        table_offset: u64_at(bytes, 32),
        table_count: usize::from(count),
    })
}

/// Checks the program headers: `table` holds `header.table_count` of them.
pub fn parse_program(header: &Header, table: &[u8]) -> Result<Program, ElfError> {
    let mut program = Program {
        segments: Vec::new(),
        interpreter: None,
        table_address: None,
        start: 0,
        end: 0,
        alignment: PAGE_SIZE,
        // Without PT_GNU_STACK Linux on x86-64 leaves the stack not executable (since 5.8).
        wants_executable_stack: false,
    };
    for entry in table.chunks_exact(PROGRAM_HEADER_SIZE).take(header.table_count) {
        match u32_at(entry, 0) {
            PT_LOAD => program.add_segment(entry)?,
            PT_INTERP if program.interpreter.is_none() => program.interpreter = Some(interpreter(entry)?),
            PT_GNU_STACK => program.wants_executable_stack = u32_at(entry, 4) & PF_X != 0,
            _ => {}
        }
    }
    program.finish(header)
}

impl Program {
    fn add_segment(&mut self, entry: &[u8]) -> Result<(), ElfError> {
        let segment = Segment {
            flags: u32_at(entry, 4),
            offset: u64_at(entry, 8),
            address: u64_at(entry, 16),
            file_size: u64_at(entry, 32),
            memory_size: u64_at(entry, 40),
        };
        let end = segment.address.checked_add(segment.memory_size).ok_or(ElfError::BadSegment)?;
        let file_end = segment.offset.checked_add(segment.file_size).ok_or(ElfError::BadSegment)?;
        let is_congruent = segment.address % PAGE_SIZE == segment.offset % PAGE_SIZE;
        let is_sane = segment.file_size <= segment.memory_size
            && end <= ADDRESS_END
            && file_end <= i64::MAX as u64
            && (is_congruent || segment.file_size == 0);
        if !is_sane {
            return Err(ElfError::BadSegment);
        }
        if segment.memory_size == 0 {
            return Ok(());
        }
        if self.segments.last().is_some_and(|last| last.end() > segment.address) {
            return Err(ElfError::BadSegment);
        }
        // As Linux: what is no power of two is ignored.
        let alignment = u64_at(entry, 48);
        if alignment.is_power_of_two() && alignment < ADDRESS_END {
            self.alignment = self.alignment.max(alignment);
        }
        self.segments.push(segment);
        Ok(())
    }

    fn finish(mut self, header: &Header) -> Result<Program, ElfError> {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else {
            return Err(ElfError::NothingToLoad);
        };
        self.start = first.address / PAGE_SIZE * PAGE_SIZE;
        self.end = last.end().next_multiple_of(PAGE_SIZE);
        let table_size = (header.table_count * PROGRAM_HEADER_SIZE) as u64;
        let table_end = header.table_offset.checked_add(table_size).ok_or(ElfError::BadProgramHeaders)?;
        let holder = self.segments.iter().find(|segment| {
            segment.offset <= header.table_offset && table_end <= segment.offset + segment.file_size
        });
        self.table_address = holder.map(|s| s.address + (header.table_offset - s.offset));
        Ok(self)
    }
}

fn interpreter(entry: &[u8]) -> Result<(u64, usize), ElfError> {
    let (offset, size) = (u64_at(entry, 8), u64_at(entry, 32));
    if !(2..=MAX_INTERPRETER).contains(&size) || offset.checked_add(size).is_none() {
        return Err(ElfError::BadInterpreter);
    }
    Ok((offset, size as usize))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

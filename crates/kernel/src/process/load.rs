//! From a file to a program in memory: finding the file behind scripts, checking it, mapping it.
//!
//! [`Image::find`] does everything that can fail for reasons of the file, before anything of the
//! calling program is given up; [`Image::map`] fills an address space.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use occlum_abi::Errno;
use occlum_abi::ocall::MAPPED_AS_PROGRAM;

use super::elf::{self, ElfError, HEADER_SIZE, Header, Kind, PROGRAM_HEADER_SIZE, Program, Segment};
use crate::error::{Error, Result, err};
use crate::mm::{AddressSpace, MapRequest, PAGE_SIZE, Placement, Prot};
use crate::outside;
use crate::user::{self, UserAddr};
use crate::vfs::mount::MS_NOEXEC;
use crate::vfs::flags::O_RDONLY;
use crate::vfs::walk::{LastLink, Walker};
use crate::vfs::mounts;
use crate::vfs::{Attr, FsContext, Identity, Kind as FileKind, OpenFile, Path, Sink, access, busy};

/// Scripts that name scripts: deeper is ELOOP.
const MAX_SCRIPT_DEPTH: usize = 5;
/// What Linux looks at of a script's first line.
const SCRIPT_LINE_SIZE: usize = 256;

/// An ELF file, checked.
pub struct Binary {
    file: Arc<OpenFile>,
    header: Header,
    program: Program,
    attr: Attr,
    running: Arc<busy::Running>,
}

/// A program ready to be mapped.
pub struct Image {
    pub binary: Binary,
    pub interpreter: Option<Binary>,
    /// The arguments, with what scripts put before them.
    pub args: Vec<Vec<u8>>,
}

/// A program in memory.
pub struct Loaded {
    /// Where it starts to run: in the interpreter if there is one.
    pub start: usize,
    /// AT_ENTRY, AT_BASE, AT_PHDR, AT_PHNUM.
    pub entry: usize,
    pub base: usize,
    pub headers: usize,
    pub header_count: usize,
    pub wants_executable_stack: bool,
}

impl Image {
    /// The program behind `path`: follows `#!` lines, checks permissions and headers.
    pub fn find(fs: &FsContext, who: &Identity, path: Path, name: &[u8], args: Vec<Vec<u8>>) -> Result<Image> {
        let mut args = args;
        let mut path = path;
        let mut name = name.to_vec();
        for _ in 0..=MAX_SCRIPT_DEPTH {
            let executable = open_executable(path, who)?;
            let file = &executable.file;
            let mut head = [0; SCRIPT_LINE_SIZE];
            let size = read_some(file, 0, &mut head)?;
            let Some(line) = script_line(&head[..size])? else {
                let binary = Binary::check(executable, &head[..size])?;
                let interpreter = binary.find_interpreter(fs, who)?;
                return Ok(Image { binary, interpreter, args });
            };
            args.splice(..args.len().min(1), line.args(&name));
            path = Walker::new(fs, who, fs.cwd(), line.interpreter.clone())?.walk(LastLink::Follow)?;
            name = line.interpreter;
        }
        err(Errno::ELOOP, "scripts that run scripts that run scripts")
    }

    /// Whether the program can only be at addresses it names.
    pub fn is_fixed(&self) -> bool {
        self.binary.header.kind == Kind::Fixed
    }

    /// The addresses it must have, if it names them.
    pub fn fixed_range(&self) -> Result<Option<Range<usize>>> {
        let program = &self.binary.program;
        let range = to_address(program.start)?..to_address(program.end)?;
        Ok(self.is_fixed().then_some(range))
    }

    /// While it stands, the program's file is not written.
    pub fn running(&self) -> &Arc<busy::Running> {
        &self.binary.running
    }

    pub fn path(&self) -> Option<&Path> {
        self.binary.file.path()
    }

    /// Of the program's file, for set-user-ID programs.
    pub fn attr(&self) -> &Attr {
        &self.binary.attr
    }

    /// Maps program and interpreter into `space`, which must be the current one (its pages are
    /// written), and places the heap.
    pub fn map(&self, space: &AddressSpace) -> Result<Loaded> {
        let bias = self.binary.map(space, Placement::Low)?;
        let program = &self.binary.program;
        space.set_brk_start(to_address(program.end)?.wrapping_add(bias));
        let entry = to_address(self.binary.header.entry)?.wrapping_add(bias);
        let (start, base) = match &self.interpreter {
            Some(interpreter) => {
                let base = interpreter.map(space, Placement::High)?;
                (to_address(interpreter.header.entry)?.wrapping_add(base), base)
            }
            None => (entry, 0),
        };
        let headers = program.table_address.map_or(Ok(0), to_address)?;
        Ok(Loaded {
            start,
            entry,
            base,
            headers: if headers == 0 { 0 } else { headers.wrapping_add(bias) },
            header_count: self.binary.header.table_count,
            wants_executable_stack: program.wants_executable_stack,
        })
    }
}

impl Binary {
    fn check(executable: Executable, head: &[u8]) -> Result<Binary> {
        let Executable { file, attr, running } = executable;
        let Some(head) = head.first_chunk::<HEADER_SIZE>() else {
            return err(Errno::ENOEXEC, "shorter than an ELF header");
        };
        let header = elf::parse_header(head).map_err(to_error)?;
        let mut table = vec![0; header.table_count * PROGRAM_HEADER_SIZE];
        if read_some(&file, header.table_offset, &mut table)? != table.len() {
            return err(Errno::ENOEXEC, "program headers beyond the end of the file");
        }
        let program = elf::parse_program(&header, &table).map_err(to_error)?;
        Ok(Binary { file, header, program, attr, running })
    }

    fn find_interpreter(&self, fs: &FsContext, who: &Identity) -> Result<Option<Binary>> {
        let Some((offset, size)) = self.program.interpreter else { return Ok(None) };
        let mut name = vec![0; size];
        if read_some(&self.file, offset, &mut name)? != size {
            return err(Errno::EIO, "interpreter name beyond the end of the file");
        }
        let Some((0, name)) = name.split_last().map(|(last, name)| (*last, name)) else {
            return err(Errno::ENOEXEC, "interpreter name without NUL");
        };
        // What lies behind a NUL inside is ignored, as by Linux.
        let name = name.split(|&byte| byte == 0).next().unwrap_or(name);
        let path = Walker::new(fs, who, fs.cwd(), name.to_vec())?.walk(LastLink::Follow)?;
        let executable = open_executable(path, who)?;
        let mut head = [0; HEADER_SIZE];
        if read_some(&executable.file, 0, &mut head)? != HEADER_SIZE {
            return err(Errno::EIO, "interpreter shorter than an ELF header");
        }
        let bad = |error: Error| match error.errno {
            Errno::ENOEXEC | Errno::EINVAL => Error::new(Errno::ELIBBAD, "the interpreter is no ELF for this machine"),
            _ => error,
        };
        Binary::check(executable, &head).map(Some).map_err(bad)
    }

    /// Maps all segments; gives what was added to their addresses.
    fn map(&self, space: &AddressSpace, placement: Placement) -> Result<usize> {
        let start = to_address(self.program.start)?;
        let size = to_address(self.program.end)? - start;
        let base = self.reserve(space, placement, start, size)?;
        let bias = base.wrapping_sub(start);
        for segment in &self.program.segments {
            self.map_segment(space, segment, bias)?;
        }
        Ok(bias)
    }

    /// Takes the whole range, so that nothing comes between the segments.
    fn reserve(
        &self,
        space: &AddressSpace,
        placement: Placement,
        start: usize,
        size: usize,
    ) -> Result<usize> {
        let reservation = MapRequest {
            is_unreserved: true,
            is_program: true,
            ..MapRequest::anonymous(size, Prot::NONE)
        };
        if self.header.kind == Kind::Fixed {
            return space.map(reservation.fixed_at(start));
        }
        let slack = to_address(self.program.alignment)? - PAGE_SIZE;
        let reservation = MapRequest { placement, size: size + slack, ..reservation };
        let base = space.map(reservation)?;
        let aligned = base.next_multiple_of(slack + PAGE_SIZE);
        if aligned > base {
            space.unmap(base, aligned - base)?;
        }
        let end = aligned + size.next_multiple_of(PAGE_SIZE);
        let taken_end = base + (size + slack).next_multiple_of(PAGE_SIZE);
        if taken_end > end {
            space.unmap(end, taken_end - end)?;
        }
        Ok(aligned)
    }

    fn map_segment(&self, space: &AddressSpace, segment: &Segment, bias: usize) -> Result<()> {
        let prot = protection(segment.flags);
        let address = to_address(segment.address)?.wrapping_add(bias);
        let start = address / PAGE_SIZE * PAGE_SIZE;
        let file_end = address + to_address(segment.file_size)?;
        let end = (address + to_address(segment.memory_size)?).next_multiple_of(PAGE_SIZE);
        let mut anonymous = start;
        if segment.file_size != 0 {
            anonymous = file_end.next_multiple_of(PAGE_SIZE);
            let offset = segment.offset - (address - start) as u64;
            let file = self.file.mappable()?;
            let request = MapRequest::file(file, offset, anonymous - start, prot);
            // A debugger changes code that is there.
            let is_shown = outside::is_debugged() && segment.flags & elf::PF_X != 0;
            space.map(MapRequest { is_program: true, is_populated: is_shown, ..request.fixed_at(start) })?;
            if let Some(path) = self.file.path().filter(|_| is_shown) {
                let process = super::current().map_or(0, |thread| thread.process().pid());
                let process = u64::from(process) | MAPPED_AS_PROGRAM;
                outside::tell_mapped(start, offset, &path.name(&mounts::root()).text, process);
            }
        }
        if end > anonymous {
            space.map(MapRequest::anonymous(end - anonymous, prot).fixed_at(anonymous))?;
        }
        let has_bss = segment.memory_size > segment.file_size;
        if has_bss && segment.file_size != 0 && segment.flags & elf::PF_W != 0 {
            user::zero(UserAddr(file_end), anonymous - file_end)?;
        }
        Ok(())
    }
}

fn protection(flags: u32) -> Prot {
    const PROT_READ: u64 = 1;
    const PROT_WRITE: u64 = 2;
    const PROT_EXEC: u64 = 4;
    let bit = |flag: u32, bit: u64| if flags & flag != 0 { bit } else { 0 };
    Prot::from_bits(bit(elf::PF_R, PROT_READ) | bit(elf::PF_W, PROT_WRITE) | bit(elf::PF_X, PROT_EXEC))
}

/// A file that may be executed, and is not written meanwhile.
struct Executable {
    file: Arc<OpenFile>,
    attr: Attr,
    running: Arc<busy::Running>,
}

fn open_executable(path: Path, who: &Identity) -> Result<Executable> {
    if path.dentry.kind() != FileKind::Regular {
        return err(Errno::EACCES, "not a regular file");
    }
    if path.mount.has(MS_NOEXEC) {
        return err(Errno::EACCES, "a noexec mount");
    }
    let attr = path.inode().attr()?;
    access::check_attr(&attr, who, access::MAY_EXEC)?;
    let running = Arc::new(busy::run(path.inode())?);
    Ok(Executable { file: OpenFile::open(path, O_RDONLY)?, attr, running })
}

/// Reads until `buf` is full or the file ends.
fn read_some(file: &OpenFile, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).filter(|&at| at <= i64::MAX as u64);
        let Some(at) = at else { break };
        match file.read_at(at, &mut Sink::kernel(&mut buf[done..]))? {
            0 => break,
            size => done += size,
        }
    }
    Ok(done)
}

/// The first line of a script.
struct ScriptLine {
    interpreter: Vec<u8>,
    arg: Option<Vec<u8>>,
}

impl ScriptLine {
    /// What replaces argv[0].
    fn args(&self, script: &[u8]) -> Vec<Vec<u8>> {
        let mut args = vec![self.interpreter.clone()];
        args.extend(self.arg.clone());
        args.push(script.to_vec());
        args
    }
}

/// `#! interpreter [one argument]`; `None` if the file is no script.
fn script_line(head: &[u8]) -> Result<Option<ScriptLine>> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let line_end = rest.iter().position(|&byte| byte == b'\n' || byte == 0);
    let is_cut = line_end.is_none() && head.len() == SCRIPT_LINE_SIZE;
    let line = rest[..line_end.unwrap_or(rest.len())].trim_ascii();
    let name_end = line.iter().position(|byte| is_blank(byte));
    if line.is_empty() || is_cut && name_end.is_none() {
        return err(Errno::ENOEXEC, "script without a usable interpreter");
    }
    let interpreter = line[..name_end.unwrap_or(line.len())].to_vec();
    let arg = name_end.map(|end| line[end..].trim_ascii().to_vec()).filter(|arg| !arg.is_empty());
    Ok(Some(ScriptLine { interpreter, arg }))
}

fn to_address(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::new(Errno::ENOEXEC, "address out of range"))
}

fn to_error(error: ElfError) -> Error {
    match error {
        ElfError::NotElf => Error::new(Errno::ENOEXEC, "neither ELF nor script"),
        ElfError::WrongMachine => Error::new(Errno::ENOEXEC, "an ELF for another machine"),
        ElfError::WrongType => Error::new(Errno::ENOEXEC, "an ELF, but no program"),
        ElfError::BadProgramHeaders => Error::new(Errno::ENOEXEC, "bad program headers"),
        ElfError::NothingToLoad => Error::new(Errno::EINVAL, "nothing to load"),
        ElfError::BadSegment => Error::new(Errno::EINVAL, "bad segment"),
        ElfError::BadInterpreter => Error::new(Errno::ENOEXEC, "bad interpreter name"),
    }
}

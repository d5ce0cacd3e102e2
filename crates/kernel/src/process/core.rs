//! Core files (core(5)): what a crashed program leaves for a debugger, as `core` in its working directory
//! if RLIMIT_CORE lets it.
//!
//! ```text
//! ELF header   program headers: one PT_NOTE, a PT_LOAD for each mapping
//! notes        NT_PRSTATUS (registers of the thread that crashed), NT_PRPSINFO, NT_AUXV, NT_FILE
//! contents     of mappings, page-aligned, in the order of the headers
//! ```
//! Constants and code that a file holds are left out but for the first page; a debugger reads them from the
//! file. What the limit cuts off is missing at the end. Other threads run on while it is written, and have no
//! registers in it.

use alloc::vec;
use alloc::vec::Vec;

use occlum_enclave::user::UserContext;

use super::{Process, Resource, Thread};
use crate::error::{Errno, Result, err};
use crate::mm::{Mapping, PAGE_SIZE, Prot};
use crate::signal::{SigInfo, Signal};
use crate::user::UserAddr;
use crate::vfs::create::{self, Mode};
use crate::vfs::flags::{O_CREAT, O_NOFOLLOW, O_TRUNC, O_WRONLY};
use crate::vfs::inode::Kind;
use crate::vfs::walk::Walker;
use crate::vfs::{OpenFile, Source};

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;
/// Most mappings a core file of this form can have (e_phnum has 16 bits).
const MAPPINGS_MAX: usize = 0xfff0;

/// Writes the core file; false if the limit forbids it, or it can't be written.
pub fn dump(thread: &Thread, context: &mut UserContext, signal: Signal, info: &SigInfo) -> bool {
    let limit = thread.process().limit(Resource::CORE).soft;
    if limit < PAGE_SIZE as u64 || !thread.process().is_dumpable() {
        return false;
    }
    match write(thread, context, signal, info, limit) {
        Ok(()) => true,
        Err(error) => {
            occlum_enclave::log!(Warn, "no core of process {}: {error:?}", thread.process().pid());
            false
        }
    }
}

fn write(thread: &Thread, context: &mut UserContext, signal: Signal, info: &SigInfo, limit: u64) -> Result<()> {
    let mut mappings: Vec<Mapping> = Vec::new();
    thread.space().for_each_mapping(|mapping| mappings.push(mapping.clone()));
    if mappings.len() > MAPPINGS_MAX {
        return err(Errno::E2BIG, "more mappings than a core file has room for");
    }
    let notes = notes(thread, context, signal, info, &mappings);
    let head = head(&mappings, notes.len());
    let mut to = Output { file: open(thread)?, left: limit };
    to.bytes(&head)?;
    to.bytes(&notes)?;
    let start = (head.len() + notes.len()).next_multiple_of(PAGE_SIZE);
    to.zeros(start - head.len() - notes.len())?;
    for mapping in &mappings {
        to.memory(mapping.start, dumped(mapping))?;
    }
    Ok(())
}

fn open(thread: &Thread) -> Result<alloc::sync::Arc<OpenFile>> {
    let who = thread.credentials().identity();
    let walker = Walker::new(thread.fs(), &who, thread.fs().cwd(), b"core".to_vec())?;
    let file = create::open(walker, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, Mode { bits: 0o600, umask: 0 })?;
    if file.inode().is_none_or(|inode| inode.kind() != Kind::Regular) {
        return err(Errno::EINVAL, "core is no regular file");
    }
    Ok(file)
}

/// Bytes of a mapping that are written.
fn dumped(mapping: &Mapping) -> usize {
    let size = mapping.end - mapping.start;
    let is_of_file = mapping.file.ino != 0;
    match mapping.prot.contains(Prot::READ) {
        false => 0,
        true if !is_of_file || (mapping.prot.contains(Prot::WRITE) && !mapping.is_shared) => size,
        true if mapping.offset == 0 => size.min(PAGE_SIZE),
        true => 0,
    }
}

fn head(mappings: &[Mapping], notes_size: usize) -> Vec<u8> {
    let count = mappings.len() + 1;
    let notes_at = HEADER_SIZE + count * PROGRAM_HEADER_SIZE;
    let mut head = Vec::with_capacity(notes_at);
    // ELF64, little-endian, version 1; ET_CORE, x86-64.
    head.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    head.extend_from_slice(&[4, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0, HEADER_SIZE as u64, 0] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    head.extend_from_slice(&0u32.to_le_bytes());
    for half in [HEADER_SIZE, PROGRAM_HEADER_SIZE, count, 0, 0, 0] {
        head.extend_from_slice(&(half as u16).to_le_bytes());
    }
    program_header(&mut head, [PT_NOTE, 0], [notes_at as u64, 0, 0, notes_size as u64, 0, 4]);
    let mut at = (notes_at + notes_size).next_multiple_of(PAGE_SIZE);
    for mapping in mappings {
        let flag = |prot, flag| if mapping.prot.contains(prot) { flag } else { 0 };
        let flags = flag(Prot::READ, 4) | flag(Prot::WRITE, 2) | flag(Prot::EXEC, 1);
        let size = dumped(mapping);
        let whole = (mapping.end - mapping.start) as u64;
        let words = [at as u64, mapping.start as u64, 0, size as u64, whole, PAGE_SIZE as u64];
        program_header(&mut head, [PT_LOAD, flags], words);
        at += size;
    }
    head
}

/// type, flags; offset, address, physical address, size in the file, size in memory, alignment.
fn program_header(to: &mut Vec<u8>, kind: [u32; 2], words: [u64; 6]) {
    kind.iter().for_each(|half| to.extend_from_slice(&half.to_le_bytes()));
    words.iter().for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
}

fn notes(
    thread: &Thread,
    context: &mut UserContext,
    signal: Signal,
    info: &SigInfo,
    mappings: &[Mapping],
) -> Vec<u8> {
    let process = thread.process();
    let mut notes = Vec::new();
    note(&mut notes, NT_PRSTATUS, &status(thread, context, signal, info));
    note(&mut notes, NT_PRPSINFO, &process_info(process, thread));
    let auxv: Vec<u8> = process.program().auxv.iter().flat_map(|word| word.to_le_bytes()).collect();
    note(&mut notes, NT_AUXV, &auxv);
    note(&mut notes, NT_FILE, &files(mappings));
    notes
}

fn note(to: &mut Vec<u8>, kind: u32, content: &[u8]) {
    const NAME: &[u8; 8] = b"CORE\0\0\0\0";
    for word in [5, content.len() as u32, kind] {
        to.extend_from_slice(&word.to_le_bytes());
    }
    to.extend_from_slice(NAME);
    to.extend_from_slice(content);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// `struct elf_prstatus`, 336 bytes.
fn status(thread: &Thread, context: &mut UserContext, signal: Signal, info: &SigInfo) -> Vec<u8> {
    const REGISTERS_AT: usize = 112;
    const SIZE: usize = 336;
    let process = thread.process();
    let mut status = vec![0; SIZE];
    let mut put = |at: usize, value: u32| status[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0, signal.number() as u32);
    put(4, info.code as u32);
    put(12, signal.number() as u32);
    for (at, id) in [(32, thread.tid()), (36, process.ppid()), (40, process.pgid()), (44, process.sid())] {
        put(at, id);
    }
    let fs_base = context.fs_base();
    let r = &context.regs;
    // `struct user_regs_struct`; selectors as Linux has them.
    let registers = [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi, r.rdi,
        u64::MAX, r.rip, 0x33, r.rflags, r.rsp, 0x2b, fs_base, 0, 0, 0, 0, 0,
    ];
    for (index, value) in registers.iter().enumerate() {
        let at = REGISTERS_AT + index * 8;
        status[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    status
}

/// `struct elf_prpsinfo`, 136 bytes.
fn process_info(process: &Process, thread: &Thread) -> Vec<u8> {
    const NAME_AT: usize = 40;
    const ARGUMENTS_AT: usize = 56;
    const SIZE: usize = 136;
    let mut info = vec![0; SIZE];
    info[1] = b'R';
    for (at, id) in [(24, process.pid()), (28, process.ppid()), (32, process.pgid()), (36, process.sid())] {
        info[at..at + 4].copy_from_slice(&id.to_le_bytes());
    }
    let name = thread.name();
    info[NAME_AT..NAME_AT + 15].iter_mut().zip(name.iter()).for_each(|(to, from)| *to = *from);
    let program = process.program();
    let arguments = program.command.iter().map(|&byte| if byte == 0 { b' ' } else { byte });
    info[ARGUMENTS_AT..SIZE - 1].iter_mut().zip(arguments).for_each(|(to, from)| *to = from);
    info
}

/// NT_FILE: count, page size, (start, end, offset in pages) of each mapped file, then their names.
fn files(mappings: &[Mapping]) -> Vec<u8> {
    let of_files: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.name.starts_with('/')).collect();
    let mut content = Vec::new();
    let mut put = |word: u64| content.extend_from_slice(&word.to_le_bytes());
    put(of_files.len() as u64);
    put(PAGE_SIZE as u64);
    for mapping in &of_files {
        put(mapping.start as u64);
        put(mapping.end as u64);
        put(mapping.offset / PAGE_SIZE as u64);
    }
    for mapping in &of_files {
        content.extend_from_slice(mapping.name.as_bytes());
        content.push(0);
    }
    content
}

struct Output {
    file: alloc::sync::Arc<OpenFile>,
    /// Until the limit.
    left: u64,
}

impl Output {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let size = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut source = Source::kernel(&bytes[..size]);
        while source.left() > 0 {
            self.file.write(&mut source)?;
        }
        self.left -= size as u64;
        Ok(())
    }

    fn zeros(&mut self, size: usize) -> Result<()> {
        self.bytes(&vec![0; size])
    }

    /// Memory of the program; zeros for pages that can't be read, as Linux has them.
    fn memory(&mut self, start: usize, size: usize) -> Result<()> {
        let mut at = start;
        while at < start + size && self.left > 0 {
            let step = PAGE_SIZE.min(start + size - at);
            let mut page = [0; PAGE_SIZE];
            // A page that is not there reads as zeros.
            let _ = crate::user::read_bytes(UserAddr(at), &mut page[..step]);
            self.bytes(&page[..step])?;
            at += step;
        }
        Ok(())
    }
}

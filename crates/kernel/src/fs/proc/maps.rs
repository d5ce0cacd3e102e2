//! What is mapped where: /proc/PID/maps and its longer forms.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::error::Result;
use crate::mm::{Mapping, Prot};
use crate::process::Thread;

fn all_mappings(thread: &Thread) -> Vec<Mapping> {
    let mut all = vec![];
    thread.space().for_each_mapping(|mapping| all.push(mapping.clone()));
    all
}

fn append_mapping(text: &mut String, mapping: &Mapping) {
    let bit = |prot, letter| if mapping.prot.contains(prot) { letter } else { '-' };
    let start = text.len();
    let _ = write!(
        text,
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
        mapping.start,
        mapping.end,
        bit(Prot::READ, 'r'),
        bit(Prot::WRITE, 'w'),
        bit(Prot::EXEC, 'x'),
        if mapping.is_shared { 's' } else { 'p' },
        mapping.offset,
        mapping.file.dev >> 8,
        mapping.file.dev & 0xff,
        mapping.file.ino,
    );
    if !mapping.name.is_empty() {
        // Linux puts names in column 73.
        while text.len() - start < 73 {
            text.push(' ');
        }
        text.push_str(&mapping.name);
    }
    text.push('\n');
}

pub fn maps(thread: &Thread) -> Result<Vec<u8>> {
    let mut text = String::new();
    all_mappings(thread).iter().for_each(|mapping| append_mapping(&mut text, mapping));
    Ok(text.into_bytes())
}

/// Bytes that are present, as smaps tells them apart. What is shared counts in full for each process.
#[derive(Clone, Copy, Default)]
struct Sizes {
    resident: usize,
    clean: usize,
    dirty: usize,
    shared: usize,
    anonymous: usize,
    locked: usize,
}

impl Sizes {
    fn of(mapping: &Mapping) -> Sizes {
        let resident = mapping.resident;
        let is_file = mapping.file.ino != 0;
        let is_clean = is_file && !mapping.prot.contains(Prot::WRITE);
        let (shared, private) = if mapping.is_shared { (resident, 0) } else { (0, resident) };
        Sizes {
            resident,
            shared,
            clean: if is_clean { private } else { 0 },
            dirty: if is_clean { 0 } else { private },
            anonymous: if is_file { 0 } else { resident },
            locked: if mapping.is_locked { mapping.end - mapping.start } else { 0 },
        }
    }

    fn add(&mut self, other: Sizes) {
        self.resident += other.resident;
        self.clean += other.clean;
        self.dirty += other.dirty;
        self.shared += other.shared;
        self.anonymous += other.anonymous;
        self.locked += other.locked;
    }

    fn append(&self, text: &mut String) {
        let rows = [
            ("Rss", self.resident),
            ("Pss", self.resident),
            ("Shared_Clean", 0),
            ("Shared_Dirty", self.shared),
            ("Private_Clean", self.clean),
            ("Private_Dirty", self.dirty),
            ("Referenced", self.resident),
            ("Anonymous", self.anonymous),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", self.locked),
        ];
        for (name, bytes) in rows {
            append_row(text, name, bytes);
        }
    }
}

fn append_row(text: &mut String, name: &str, bytes: usize) {
    let colon = alloc::format!("{name}:");
    // Writing to a String can't fail.
    let _ = writeln!(text, "{colon:<16}{:>8} kB", bytes / 1024);
}

pub fn smaps(thread: &Thread) -> Result<Vec<u8>> {
    let mut text = String::new();
    for mapping in all_mappings(thread) {
        append_mapping(&mut text, &mapping);
        append_row(&mut text, "Size", mapping.end - mapping.start);
        append_row(&mut text, "KernelPageSize", 4096);
        append_row(&mut text, "MMUPageSize", 4096);
        Sizes::of(&mapping).append(&mut text);
        text.push_str("THPeligible:           0\nVmFlags: ");
        for (prot, word) in [(Prot::READ, "rd "), (Prot::WRITE, "wr "), (Prot::EXEC, "ex ")] {
            text.push_str(if mapping.prot.contains(prot) { word } else { "" });
        }
        text.push_str(if mapping.is_shared { "sh mr mw me" } else { "mr mw me" });
        text.push_str(if mapping.is_locked { " lo \n" } else { " \n" });
    }
    Ok(text.into_bytes())
}

pub fn smaps_rollup(thread: &Thread) -> Result<Vec<u8>> {
    let all = all_mappings(thread);
    let mut sizes = Sizes::default();
    all.iter().for_each(|mapping| sizes.add(Sizes::of(mapping)));
    let (start, end) = (all.first().map_or(0, |first| first.start), all.last().map_or(0, |last| last.end));
    let mut text = alloc::format!("{start:08x}-{end:08x} ---p 00000000 00:00 0                          [rollup]\n");
    sizes.append(&mut text);
    Ok(text.into_bytes())
}

/// One node has everything.
pub fn numa_maps(thread: &Thread) -> Result<Vec<u8>> {
    let mut text = String::new();
    for mapping in all_mappings(thread) {
        let _ = write!(text, "{:08x} default", mapping.start);
        if !mapping.name.is_empty() && !mapping.name.starts_with('[') {
            let _ = write!(text, " file={}", mapping.name);
        }
        let pages = mapping.resident / 4096;
        if pages > 0 {
            let _ = write!(text, " anon={pages} dirty={pages} N0={pages}");
        }
        text.push_str(" kernelpagesize_kB=4\n");
    }
    Ok(text.into_bytes())
}

//! ELF headers of programs: whatever the bytes, parsing ends with an error or with segments that are
//! safe to map.
#![no_main]

extern crate alloc;

#[path = "../../crates/kernel/src/process/elf.rs"]
mod elf;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((head, table)) = bytes.split_first_chunk::<{ elf::HEADER_SIZE }>() else { return };
    parse(head, table);
    parse(&repaired(head), table);
});

fn parse(head: &[u8; elf::HEADER_SIZE], table: &[u8]) {
    let Ok(header) = elf::parse_header(head) else { return };
    let table = &table[..table.len().min(header.table_count * elf::PROGRAM_HEADER_SIZE)];
    if let Ok(program) = elf::parse_program(&header, table) {
        check(&program);
    }
}

/// With the fields made right that only one value is good for, so that the rest is reached.
fn repaired(head: &[u8; elf::HEADER_SIZE]) -> [u8; elf::HEADER_SIZE] {
    let mut head = *head;
    head[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let (kind, count) = (2 + (head[16] & 1), 1 + (head[56] & 7));
    head[16..20].copy_from_slice(&[kind, 0, 62, 0]);
    head[54..58].copy_from_slice(&[elf::PROGRAM_HEADER_SIZE as u8, 0, count, 0]);
    head
}

fn check(program: &elf::Program) {
    assert!(program.start < program.end && program.end <= 1 << 47);
    assert!(program.alignment.is_power_of_two() && program.alignment >= 4096);
    let mut last_end = program.start;
    for segment in &program.segments {
        assert!(segment.address >= last_end && segment.end() <= program.end);
        assert!(segment.file_size <= segment.memory_size && segment.file_end() <= segment.end());
        last_end = segment.end();
    }
    if let Some((offset, size)) = program.interpreter {
        assert!(size <= 4096 && offset.checked_add(size as u64).is_some());
    }
    if let Some(address) = program.table_address {
        assert!(address >= program.start && address < program.end);
    }
}

"""Site tables: what is found, and that each stub does what its window did.

objdump is the judge of what the instructions and branch targets are; iced decodes the stubs.
"""

import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from iced_x86 import Code, Decoder, Register

from occlum.elf.file import ElfError, ElfFile
from occlum.elf.sites import Analysis, Site, analyse, encode

LIBC = Path("/lib/x86_64-linux-gnu/libc.so.6")
LOADER = Path("/lib64/ld-linux-x86-64.so.2")
BUSYBOX = Path("/bin/busybox")
MUSL = Path("/usr/lib/x86_64-linux-musl/libc.so")
FAR = 0x10_0000  # a stub's distance from its window


@pytest.fixture(params=[LIBC, LOADER, BUSYBOX, MUSL], ids=lambda path: path.name)
def binary(request) -> Path:
    if not request.param.exists():
        pytest.skip(f"{request.param} is not installed")
    return request.param.resolve()


def test_every_site_of_the_c_libraries_is_found_and_patched(binary):
    listing = disassemble(binary)
    analysis = analyse(binary)
    kinds = ("syscall", "cpuid")
    listed = {address for address, text in listing.items() if text.startswith(kinds)}
    found = {address_of(binary, site) for site in analysis.sites}
    assert found <= listed
    # musl's trampoline for signal return keeps its bytes; see docs/format/sites.md.
    unpatched = analysis.found - analysis.patched
    assert unpatched == (1 if binary.name in ("libc.so", "ld-musl-x86_64.so.1") else 0)


def test_objdump_agrees_where_the_instructions_of_a_window_begin(binary):
    listing = disassemble(binary)
    for site in analyse(binary).sites:
        start = address_of(binary, site) - site.site_at
        assert start + site.length in listing
        for window_at, _ in site.maps:
            assert start + window_at in listing, hex(start)


def test_objdump_agrees_that_nothing_jumps_into_a_window(binary):
    targets = set()
    for text in disassemble(binary).values():
        if match := re.match(r"(?:bnd |notrack )?(?:j\w+|call|loop\w*)\s+(?:0x)?([0-9a-f]+)", text):
            targets.add(int(match[1], 16))
    with ElfFile(binary) as elf:
        symbols = {symbol.address for symbol in elf.symbols()}
    for site in analyse(binary).sites:
        start = address_of(binary, site) - site.site_at
        inside = set(range(start + 1, start + site.length))
        assert not inside & targets, hex(start)
        assert not inside & symbols, hex(start)


def test_each_stub_does_what_its_window_did(binary):
    with ElfFile(binary) as elf:
        for site in analyse(binary).sites:
            start = next(
                s.address + site.offset - s.offset
                for s in elf.executable_segments
                if s.offset <= site.offset < s.offset + s.file_size
            )
            check_stub(start, elf.read(site.offset, site.length), site)


def check_stub(start: int, window: bytes, site: Site) -> None:
    """Place the stub elsewhere, as the kernel does, and follow it beside the window."""
    stub = bytearray(site.stub)
    for fix in site.fixes:
        value = struct.unpack_from("<i", stub, fix)[0] - FAR
        struct.pack_into("<i", stub, fix, value)
    moved = list(Decoder(64, bytes(stub), ip=start + FAR))
    original = list(Decoder(64, window, ip=start))
    maps = dict(site.maps)
    code = (Code.SYSCALL, Code.CPUID)[site.kind]
    assert [i.code for i in original].count(code) == 1
    for instruction in original:
        at = instruction.ip - start
        twin = next(i for i in moved if i.ip - start - FAR == maps[at])
        if instruction.code == code:
            assert at == site.site_at
            assert maps[at] == site.stub_call
            check_entry(twin, moved, start, site)
            continue
        assert twin.code == instruction.code
        assert str(twin) == str(instruction)
        if instruction.is_ip_rel_memory_operand:
            assert twin.ip_rel_memory_address == instruction.ip_rel_memory_address
    last = moved[-1]
    if site.site_at + 2 == site.length:
        assert site.stub_ret == len(site.stub)
    else:
        assert last.code == Code.JMP_REL32_64
        assert last.near_branch_target == start + site.length
        assert maps[site.length] == last.ip - start - FAR


def check_entry(lea, moved, start: int, site: Site) -> None:
    jump = next(i for i in moved if i.ip == lea.next_ip)
    assert lea.code == Code.LEA_R64_M
    assert lea.op0_register == (Register.RCX, Register.RDX)[site.kind]
    assert jump.code == Code.JMP_RM64
    assert jump.segment_prefix == Register.GS
    assert jump.memory_displacement == (0x10, 0x18)[site.kind]
    assert jump.memory_base == Register.NONE
    assert jump.next_ip == start + FAR + site.stub_ret
    ends_window = site.site_at + 2 == site.length
    continues = start + site.length if ends_window else start + FAR + site.stub_ret
    assert lea.ip_rel_memory_address == continues


def test_the_table_has_the_documented_layout(binary):
    analysis = analyse(binary)
    table = encode(analysis.sites)
    magic, version, zero, count, stub_bytes = struct.unpack_from("<4sHHII", table)
    assert (magic, version, zero, count) == (b"OSIT", 1, 0, len(analysis.sites))
    at, end, total = 16, 0, 0
    for site in analysis.sites:
        offset, length, call, stub_len, _, _, fixes, maps, kind = struct.unpack_from(
            "<Q8B", table, at
        )
        assert offset >= end and 5 <= length <= 45 and call + 2 <= length
        assert fixes <= 4 and 1 <= maps <= 6 and kind == site.kind
        assert table[at + 32 : at + 32 + stub_len] == site.stub
        end = offset + length
        total += -(-stub_len // 16) * 16
        at += 32 + -(-stub_len // 4) * 4
    assert (at, total) == (len(table), stub_bytes)


ASSEMBLY = """
    .globl _start, jumped_into, reads_rcx, table, alone, relative, identify
    .text
_start:      mov $39, %eax
             syscall
             ret
jumped_into: mov $39, %eax
1:           syscall
             test %rax, %rax
             js 1b
             ret
reads_rcx:   jmp 1f
1:           syscall
             mov %rcx, %rax
             mov %rcx, %rdx
             ret
relative:    jmp 1f
1:           syscall
             mov value(%rip), %rbx
             ret
table:       lea entries(%rip), %rdx
             movslq (%rdx,%rdi,4), %rax
             add %rdx, %rax
             jmp *%rax
2:           mov $1, %eax
3:           syscall
             ret
identify:    xor %ecx, %ecx
             cpuid
             mov %ecx, %eax
             ret
constants:   mov $0x050f, %ebx
             mov $0xa20f, %ebx
             ret
    .section .rodata
entries:     .long 2b - entries, 3b - entries
    .data
value:       .quad 7
"""


@pytest.fixture(scope="module")
def assembled(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("assembled")
    source = directory / "sites.s"
    functions = set(re.findall(r"^([a-z_]+):", ASSEMBLY, re.MULTILINE)) - {"entries", "value"}
    types = "".join(f"    .type {name}, @function\n" for name in functions)
    source.write_text(types + ASSEMBLY)
    program = directory / "sites"
    subprocess.run(
        ["gcc", "-nostdlib", "-static", "-o", program, source], check=True, capture_output=True
    )
    return program


def site_in(program: Path, name: str) -> Site | None:
    """The site of one function of the assembled program."""
    symbols = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    starts = sorted((int(line.split()[0], 16), line.split()[2]) for line in symbols.splitlines())
    index = next(i for i, (_, symbol) in enumerate(starts) if symbol == name)
    low, high = starts[index][0], starts[index + 1][0]
    sites = analyse(program).sites
    return next((s for s in sites if low <= address_of(program, s) < high), None)


def test_a_window_prefers_the_instruction_before(assembled):
    site = site_in(assembled, "_start")
    assert (site.length, site.site_at) == (7, 5)


def test_a_branch_to_the_system_call_keeps_it_first_in_its_window(assembled):
    site = site_in(assembled, "jumped_into")
    assert (site.site_at, site.length) == (0, 5)


def test_an_instruction_that_reads_the_return_address_stays(assembled):
    assert site_in(assembled, "reads_rcx") is None


def test_cpuid_is_a_site_of_its_own_kind(assembled):
    site = site_in(assembled, "identify")
    assert (site.kind, site.site_at, site.length) == (1, 2, 6)


def test_a_relative_operand_leads_to_the_same_place(assembled):
    site = site_in(assembled, "relative")
    assert site.site_at == 0
    assert len(site.fixes) == 2


def test_a_jump_table_entry_is_a_jump_target(assembled):
    assert site_in(assembled, "table") is None


def test_bytes_inside_an_instruction_are_no_site(assembled):
    assert analyse(assembled).found == 6


def test_broken_files_are_errors_of_ours(tmp_path):
    original = BUSYBOX.resolve().read_bytes() if BUSYBOX.exists() else LOADER.read_bytes()
    original = LOADER.resolve().read_bytes()
    generator = random.Random(7)
    for round_number in range(60):
        data = bytearray(original)
        for _ in range(generator.randrange(1, 20)):
            data[generator.randrange(0, 0x400)] = generator.randrange(256)
        if round_number % 3 == 0:
            del data[generator.randrange(len(data)) :]
        path = tmp_path / "broken"
        path.write_bytes(data)
        try:
            assert isinstance(analyse(path), Analysis)
        except ElfError as error:
            assert str(path) in str(error)


def test_go_programs_are_found_by_their_own_table(tmp_path):
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed")
    source = tmp_path / "main.go"
    source.write_text('package main\nimport "fmt"\nfunc main() { fmt.Println("hi") }\n')
    program = tmp_path / "program"
    subprocess.run(
        [go, "build", "-ldflags", "-s -w", "-o", program, source], check=True, cwd=tmp_path
    )
    analysis = analyse(program)
    assert analysis.found > 30
    assert analysis.found - analysis.patched <= 1


_listings: dict[Path, dict[int, str]] = {}


def disassemble(path: Path) -> dict[int, str]:
    """Instructions by address, as objdump sees them."""
    if path not in _listings:
        text = subprocess.run(
            ["objdump", "-d", "--no-show-raw-insn", path],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        lines = re.findall(r"^\s*([0-9a-f]+):\t(.*)$", text, re.MULTILINE)
        _listings[path] = {int(address, 16): text for address, text in lines}
    return _listings[path]


def address_of(path: Path, site: Site) -> int:
    """Address of the replaced instruction."""
    with ElfFile(path) as elf:
        for segment in elf.executable_segments:
            if segment.offset <= site.offset < segment.offset + segment.file_size:
                return segment.address + site.offset - segment.offset + site.site_at
    raise AssertionError("a site lies in an executable segment")

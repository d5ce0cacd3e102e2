"""One ELF file: headers, dynamic section, symbols.

A reader of our own over a memory map, because an image has thousands of files and node alone a
hundred thousand symbols; pyelftools, which reads the kernel ELF (`occlum.image.enclave`), takes
milliseconds per file. Every offset and length comes from the file and is checked before use: a
broken file raises `ElfError` and nothing else.

::

    0   e_ident  7f 'E' 'L' 'F' class(2 = 64 bit) data(1 = little)
    16  e_type u16, e_machine u16, e_version u32
    24  e_entry u64, e_phoff u64, e_shoff u64, e_flags u32
    52  e_ehsize u16, e_phentsize u16, e_phnum u16, e_shentsize u16, e_shnum u16, e_shstrndx u16
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from occlum.errors import Error

MAGIC = b"\x7fELF"
EM_X86_64 = 62
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_GNU_EH_FRAME = 1, 2, 3, 0x6474E550
PF_X, PF_W = 1, 2
SHT_SYMTAB, SHT_NOBITS, SHT_DYNSYM = 2, 8, 11
STT_FUNC = 2
DT_NEEDED, DT_STRTAB, DT_SONAME, DT_RPATH, DT_STRSZ, DT_RUNPATH = 1, 5, 14, 15, 10, 29

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")


class ElfError(Error):
    """The file is no x86-64 ELF, or a broken one."""

    code = "elf"


@dataclass(frozen=True)
class Segment:
    """A program header. ``offset``/``file_size`` lie inside the file."""

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int

    @property
    def is_executable(self) -> bool:
        return self.kind == PT_LOAD and bool(self.flags & PF_X)


@dataclass(frozen=True)
class Section:
    name: str
    kind: int
    address: int
    offset: int
    size: int
    link: int


@dataclass(frozen=True)
class Symbol:
    """A defined function or label."""

    address: int
    size: int
    is_function: bool


@dataclass(frozen=True)
class Dynamic:
    """What the dynamic section says about libraries."""

    needed: tuple[str, ...] = ()
    soname: str | None = None
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()


def is_elf(path: Path) -> bool:
    """Whether the file begins like an ELF file."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


class ElfFile:
    """An open x86-64 ELF file; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ElfError(f"{path} is empty") from None
        try:
            self._read_header()
        except Exception:
            self.data.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.data.close()

    def _read_header(self) -> None:
        if len(self.data) < _HEADER.size or self.data[:4] != MAGIC:
            raise ElfError(f"{self.path} is not an ELF file")
        header = _HEADER.unpack_from(self.data)
        if header[0][4:6] != b"\x02\x01" or header[2] != EM_X86_64:
            raise ElfError(
                f"{self.path} is built for another machine (e_machine {header[2]}); "
                "expected 64-bit x86"
            )
        self.kind: int = header[1]
        self.entry: int = header[4]
        _, self._phoff, self._shoff = header[4:7]
        _, self._phentsize, self._phnum, self._shentsize, self._shnum, self._shstrndx = header[8:]
        self.segments = tuple(self._program_headers())

    def _program_headers(self) -> Iterator[Segment]:
        if self._phnum and self._phentsize != _PROGRAM_HEADER.size:
            raise ElfError(f"{self.path} has program headers of {self._phentsize} bytes")
        table = self.read(self._phoff, self._phnum * _PROGRAM_HEADER.size)
        for row in _PROGRAM_HEADER.iter_unpack(table):
            kind, flags, offset, address, _, file_size, memory_size, _ = row
            if kind != PT_LOAD or offset + file_size <= len(self.data):
                yield Segment(kind, flags, offset, address, file_size, memory_size)
                continue
            raise ElfError(f"{self.path} is cut off: a segment ends at {offset + file_size}")

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; raises `ElfError` beyond its end."""
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise ElfError(f"{self.path} is cut off: {size} bytes expected at offset {offset}")
        return self.data[offset : offset + size]

    def offset_of(self, address: int) -> int | None:
        """The file offset of a virtual address."""
        for segment in self.segments:
            if segment.kind == PT_LOAD and 0 <= address - segment.address < segment.file_size:
                return address - segment.address + segment.offset
        return None

    @property
    def executable_segments(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.is_executable]

    def segment(self, kind: int) -> Segment | None:
        """The first segment of this kind."""
        return next((segment for segment in self.segments if segment.kind == kind), None)

    @property
    def interpreter(self) -> str | None:
        """The ELF interpreter's path."""
        segment = self.segment(PT_INTERP)
        if segment is None:
            return None
        return _text(self.read(segment.offset, segment.file_size), 0)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """Section headers; empty when there are none or they make no sense."""
        if not self._shoff or self._shentsize != _SECTION_HEADER.size:
            return ()
        try:
            table = self.read(self._shoff, self._shnum * _SECTION_HEADER.size)
        except ElfError:
            return ()
        rows = list(_SECTION_HEADER.iter_unpack(table))
        if self._shstrndx >= len(rows):
            return ()
        names_at, names_size = rows[self._shstrndx][4:6]
        names = self.data[names_at : names_at + names_size]
        return tuple(
            Section(_text(names, row[0]), row[1], row[3], row[4], row[5], row[6]) for row in rows
        )

    def section(self, name: str) -> Section | None:
        return next((section for section in self.sections if section.name == name), None)

    def contents(self, section: Section) -> bytes:
        """The section's bytes, as far as the file has them."""
        if section.kind == SHT_NOBITS:
            return b""
        return self.data[section.offset : section.offset + section.size]

    def symbols(self) -> Iterator[Symbol]:
        """Defined symbols of both tables."""
        for section in self.sections:
            if section.kind not in (SHT_SYMTAB, SHT_DYNSYM):
                continue
            table = self.contents(section)
            whole = len(table) - len(table) % _SYMBOL.size
            for _, info, _, index, address, size in _SYMBOL.iter_unpack(table[:whole]):
                if index and address:
                    yield Symbol(address, size, info & 0xF == STT_FUNC)

    @cached_property
    def dynamic(self) -> Dynamic:
        """Libraries this file names; empty for a static program."""
        segment = self.segment(PT_DYNAMIC)
        if segment is None:
            return Dynamic()
        table = self.read(segment.offset, segment.file_size - segment.file_size % _DYNAMIC.size)
        entries = list(_DYNAMIC.iter_unpack(table))
        tags = dict(entries)
        strings_at = self.offset_of(tags.get(DT_STRTAB, 0))
        if strings_at is None:
            return Dynamic()
        strings = self.read(strings_at, tags.get(DT_STRSZ, 0))

        def paths(tag: int) -> tuple[str, ...]:
            text = _text(strings, tags[tag]) if tag in tags else ""
            return tuple(part for part in text.split(":") if part)

        return Dynamic(
            needed=tuple(_text(strings, value) for tag, value in entries if tag == DT_NEEDED),
            soname=_text(strings, tags[DT_SONAME]) if DT_SONAME in tags else None,
            rpath=paths(DT_RPATH),
            runpath=paths(DT_RUNPATH),
        )


def _text(table: bytes, offset: int) -> str:
    """The NUL-terminated string at this offset of a string table."""
    end = table.find(b"\0", offset)
    if end < 0:
        end = len(table)
    return table[offset:end].decode("utf-8", "surrogateescape")

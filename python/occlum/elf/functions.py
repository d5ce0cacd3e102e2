"""Where functions begin and end.

The first source that knows an address wins:

1. ``.eh_frame``, through the sorted index ``.eh_frame_hdr``, or read from its start when a static
   program has no index
2. the symbol tables
3. Go's ``.gopclntab``, which a stripped Go program keeps

An address that no source knows lies in a gap between known functions: assembly that ends its unwind
information early (glibc's ``clone``), static functions of a stripped library, or data in text.

::

    .eh_frame_hdr  version u8 = 1, encodings u8 x3, eh_frame pointer, count, (start, entry) pairs
    .eh_frame      records: length u32 (0xffffffff: u64 follows), id u32 (0 = CIE; else distance
                   back to the CIE), CIE or FDE body; length 0 ends it
    .gopclntab     magic u32, 0 u16, quantum u8, pointer size u8, function count u64, files u64,
                   text start u64, 4 offsets u64, functab offset u64; functab: (start, _) u32 pairs
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from occlum.elf.file import PT_GNU_EH_FRAME, ElfError, ElfFile

# DWARF pointer encodings (LSB 5.0, 10.5.1): low four bits the format, then what it is relative to.
_ABSOLUTE_8, _UDATA_4, _SDATA_4, _SDATA_8 = 0x00, 0x03, 0x0B, 0x0C
_PC_RELATIVE, _DATA_RELATIVE, _OMITTED = 0x10, 0x30, 0xFF
_FORMATS = {
    _ABSOLUTE_8: struct.Struct("<Q"),
    0x02: struct.Struct("<H"),
    _UDATA_4: struct.Struct("<I"),
    0x04: struct.Struct("<Q"),
    0x0A: struct.Struct("<h"),
    _SDATA_4: struct.Struct("<i"),
    _SDATA_8: struct.Struct("<q"),
}
_GO_MAGICS = (0xFFFFFFF0, 0xFFFFFFF1)


@dataclass(frozen=True, order=True)
class Function:
    """Addresses ``start <= a < end``. Ordered by start, so that lists can be searched."""

    start: int
    end: int
    has_unwind_info: bool = False


class Functions:
    """Finds the function an address is in."""

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf

    def at(self, address: int) -> Function | None:
        """The function that holds the address."""
        return self._unwind.at(address) or _pick(self._symbols, address) or _pick(self._go, address)

    def gap_at(self, address: int) -> Function | None:
        """The stretch between known functions that holds the address; it may be data.

        It includes the function before it where that has unwind information.
        """
        within = self._section(address)
        if within is None:
            return None
        befores = [self._unwind.before(address), *(_last(f, address) for f in self._listed)]
        afters = [self._unwind.after(address), *(_next(f, address) for f in self._listed)]
        before = max((f for f in befores if f is not None), key=lambda f: f.end, default=None)
        start = max(within.start, before.end if before else 0)
        end = min([within.end, *(after for after in afters if after is not None)])
        if not start <= address < end:
            return None
        # Unwind information may end in the middle of a function, so the gap goes on from there.
        if before is not None and before.has_unwind_info and before.end == start:
            start = before.start
        return Function(start, end)

    @property
    def _listed(self) -> tuple[list[Function], list[Function]]:
        return self._symbols, self._go

    @cached_property
    def _unwind(self) -> _Unwind:
        return _Unwind(self._elf)

    @cached_property
    def _symbols(self) -> list[Function]:
        """Function symbols, each up to its size or, without one, to the next symbol."""
        symbols = sorted({(s.address, s.size) for s in self._elf.symbols() if s.is_function})
        functions = []
        after = 0
        for start, size in reversed(symbols):
            end = start + size if size else after or self._segment_end(start)
            functions.append(Function(start, end))
            after = start
        return functions[::-1]

    @cached_property
    def _go(self) -> list[Function]:
        return list(_go_functions(self._elf))

    def _section(self, address: int) -> Function | None:
        for section in self._elf.sections:
            if section.address and section.address <= address < section.address + section.size:
                return Function(section.address, section.address + section.size)
        for segment in self._elf.executable_segments:
            if segment.address <= address < segment.address + segment.file_size:
                return Function(segment.address, segment.address + segment.file_size)
        return None

    def _segment_end(self, address: int) -> int:
        for segment in self._elf.executable_segments:
            if segment.address <= address < segment.address + segment.file_size:
                return segment.address + segment.file_size
        return address


def _pick(functions: list[Function], address: int) -> Function | None:
    """The last function that starts at or before the address, if it reaches so far."""
    index = bisect_right(functions, Function(address, 1 << 64, True)) - 1
    # Aliases and nested labels: a few entries back may be the one that is long enough.
    for candidate in functions[max(index - 8, 0) : index + 1][::-1]:
        if candidate.start <= address < candidate.end:
            return candidate
    return None


def _last(functions: list[Function], address: int) -> Function | None:
    """The last function that starts at or before the address."""
    index = bisect_right(functions, Function(address, 1 << 64, True))
    return functions[index - 1] if index else None


def _next(functions: list[Function], address: int) -> int | None:
    """The start of the first function after the address."""
    index = bisect_right(functions, Function(address, 1 << 64, True))
    return functions[index].start if index < len(functions) else None


class _Unwind:
    """Functions by ``.eh_frame``."""

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf
        self._index: list[tuple[int, int]] = []
        self._listed: list[Function] = []
        try:
            self._index = self._read_index()
            if not self._index:
                self._listed = sorted(self._read_all())
        except (ElfError, struct.error, KeyError, IndexError, ValueError):
            # Unwind information is a help, not a need; what can't be read is not used.
            self._index, self._listed = [], []

    def at(self, address: int) -> Function | None:
        """The function that holds the address."""
        function = _pick(self._listed, address) if self._listed else self.before(address)
        return function if function and function.start <= address < function.end else None

    def before(self, address: int) -> Function | None:
        """The last function that starts at or before the address."""
        if not self._index:
            return _last(self._listed, address)
        row = self._row(address)
        if row < 0:
            return None
        try:
            return self._entry(self._index[row][1])
        except (ElfError, struct.error, KeyError, IndexError, ValueError):
            return None

    def after(self, address: int) -> int | None:
        """The start of the first function after the address."""
        if not self._index:
            return _next(self._listed, address)
        row = self._row(address) + 1
        return self._index[row][0] if row < len(self._index) else None

    def _row(self, address: int) -> int:
        return bisect_right(self._index, (address, 1 << 64)) - 1

    def _read_index(self) -> list[tuple[int, int]]:
        """(function start, FDE address) in ascending order."""
        header = self._elf.segment(PT_GNU_EH_FRAME)
        if header is None:
            return []
        data = self._elf.read(header.offset, header.file_size)
        if len(data) < 12 or data[0] != 1 or data[2] != _UDATA_4:
            return []
        if data[3] != _DATA_RELATIVE | _SDATA_4 or data[1] & 0xF not in (_SDATA_4, _UDATA_4):
            return []
        count = struct.unpack_from("<I", data, 8)[0]
        rows = struct.iter_unpack("<ii", data[12 : 12 + 8 * count])
        return [(header.address + start, header.address + entry) for start, entry in rows]

    def _entry(self, address: int) -> Function | None:
        """The FDE at this address."""
        offset = self._elf.offset_of(address)
        if offset is None:
            return None
        length, cie_distance = struct.unpack("<II", self._elf.read(offset, 8))
        if length in (0, 0xFFFFFFFF) or cie_distance == 0:
            return None
        cie = offset + 4 - cie_distance
        form = _read_cie(self._elf.read(cie, 4 + _record_length(self._elf, cie)))
        body = self._elf.read(offset + 8, length - 4)
        return _function(body, address + 8, form)

    def _read_all(self) -> Iterator[Function]:
        section = self._elf.section(".eh_frame")
        if section is None:
            return
        data = self._elf.contents(section)
        forms: dict[int, _Form] = {}
        at = 0
        while at + 8 <= len(data):
            length, ident = struct.unpack_from("<II", data, at)
            if length in (0, 0xFFFFFFFF):
                break
            if ident == 0:
                forms[at] = _read_cie(data[at : at + 4 + length])
            else:
                body = data[at + 8 : at + 4 + length]
                function = _function(body, section.address + at + 8, forms[at + 4 - ident])
                if function is not None:
                    yield function
            at += 4 + length


def _record_length(elf: ElfFile, offset: int) -> int:
    length: int = struct.unpack("<I", elf.read(offset, 4))[0]
    return length


@dataclass(frozen=True)
class _Form:
    """What a CIE says about its FDEs: how their pointers are written, and what they are for."""

    encoding: int = _ABSOLUTE_8
    is_signal_frame: bool = False


def _function(body: bytes, address: int, form: _Form) -> Function | None:
    """The range an FDE covers; ``address`` is where ``body`` stands in memory."""
    pointer = _FORMATS[form.encoding & 0xF]
    start = pointer.unpack_from(body)[0]
    # The length has the same format, but is never relative or negative.
    length = pointer.unpack_from(body, pointer.size)[0] & (1 << 8 * pointer.size) - 1
    if form.encoding & 0x70 == _PC_RELATIVE:
        start += address
    end = start + length
    if form.is_signal_frame:
        # A signal trampoline's range begins one byte early, in the padding before it: unwinders
        # look up the address before a return address.
        start += 1
    return Function(start, end, True) if start < end else None


def _read_cie(cie: bytes) -> _Form:
    """A CIE with its length field."""
    end = cie.index(b"\0", 9)
    augmentation = cie[9:end]
    if not augmentation.startswith(b"z"):
        return _Form()
    is_signal_frame = b"S" in augmentation
    at = _skip_leb128(cie, _skip_leb128(cie, end + 1))
    at += 1 if cie[8] == 1 else _skip_leb128(cie, at) - at  # return address register
    at = _skip_leb128(cie, at)  # length of the augmentation data
    for letter in augmentation[1:]:
        if letter == ord("R"):
            return _Form(cie[at], is_signal_frame)
        if letter == ord("L"):
            at += 1
        elif letter == ord("P"):
            at += 1 + _FORMATS[cie[at] & 0xF].size
    return _Form(is_signal_frame=is_signal_frame)


def _skip_leb128(data: bytes, at: int) -> int:
    while data[at] & 0x80:
        at += 1
    return at + 1


def _go_functions(elf: ElfFile) -> Iterator[Function]:
    section = elf.section(".gopclntab") or elf.section(".data.rel.ro.gopclntab")
    if section is None:
        return
    table = elf.contents(section)
    if len(table) < 72 or struct.unpack_from("<I", table)[0] not in _GO_MAGICS or table[7] != 8:
        return
    count, _, text, _, _, _, _, functab = struct.unpack_from("<8Q", table, 8)
    if not text:
        section = elf.section(".text")
        text = section.address if section else 0
    rows = table[functab : functab + 8 * count + 4]
    starts = [text + struct.unpack_from("<I", rows, 8 * i)[0] for i in range(len(rows) // 8)]
    if len(rows) % 8 >= 4:
        starts.append(text + struct.unpack_from("<I", rows, 8 * len(starts))[0])
    for start, end in itertools.pairwise(starts):
        yield Function(start, end)

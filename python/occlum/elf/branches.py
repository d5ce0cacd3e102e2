"""Which addresses of a program are jumped to.

A window of instructions may only be moved if nothing jumps into its middle. `Targets.among` answers
for a small set of addresses, from everything that names an address in code:

- direct branches with a 32-bit distance, anywhere in the file: found by their opcode bytes at every
  offset, so that also code no one decoded counts (a false hit only leaves a site unpatched)
- direct branches with an 8-bit distance: these are near, so found by bytes and then decoded
- symbols, which include the labels of hand-written assembly
- jump tables of functions that jump through a register or memory
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

from iced_x86 import FlowControl, Instruction, OpKind

from occlum.elf.file import ElfFile
from occlum.elf.functions import Function

# call, jmp, jcc with a 32-bit distance, and xbegin.
_FAR = re.compile(rb"[\xe8\xe9]|\x0f[\x80-\x8f]|\xc7\xf8")
_NEAR_OPCODES = frozenset([*range(0x70, 0x80), 0xEB, *range(0xE0, 0xE4)])
_DISTANCE = struct.Struct("<i")
_MAX_TABLE = 4096

Code = Mapping[Function, list[Instruction]]


class Targets:
    """What is jumped to in one file. ``code`` holds the decoded functions."""

    def __init__(self, elf: ElfFile, code: Code) -> None:
        self._elf = elf
        self._code = code

    def among(self, addresses: Iterable[int]) -> set[int]:
        """Those of the addresses that something jumps to."""
        wanted = frozenset(addresses)
        if not wanted:
            return set()
        found = {s.address for s in self._elf.symbols()} & wanted
        found.update(self._far(wanted))
        found.update(self._near(wanted))
        for instructions in self._code.values():
            found.update(wanted & set(_tables(self._elf, instructions)))
        return found

    def _far(self, wanted: frozenset[int]) -> Iterator[int]:
        """Branches with a 32-bit distance, by their bytes."""
        ordered = sorted(wanted)
        low, high = ordered[0], ordered[-1]
        unpack = _DISTANCE.unpack_from
        for segment in self._elf.executable_segments:
            end = segment.offset + segment.file_size
            base = segment.address - segment.offset + 4
            for match in _FAR.finditer(self._elf.data, segment.offset, max(end - 4, 0)):
                at = match.end()
                target = base + at + unpack(self._elf.data, at)[0]
                if low <= target <= high and target in wanted:
                    yield target

    def _near(self, wanted: frozenset[int]) -> Iterator[int]:
        """Branches with an 8-bit distance, in the functions that were decoded."""
        ordered = sorted(wanted)
        for function, instructions in self._code.items():
            first = bisect_left(ordered, function.start - 128)
            if first == len(ordered) or ordered[first] > function.end + 128:
                continue
            for instruction in instructions:
                if instruction.op0_kind == OpKind.NEAR_BRANCH64:
                    target = instruction.near_branch_target
                    if target in wanted:
                        yield target


def _tables(elf: ElfFile, instructions: list[Instruction]) -> Iterator[int]:
    """Entries of the jump tables a function may use.

    gcc and clang address a table of 32-bit distances from its own start by ``lea table(%rip)``, or,
    in code with fixed addresses, index a table of 64-bit addresses directly.
    """
    if not any(i.flow_control == FlowControl.INDIRECT_BRANCH for i in instructions):
        return
    low, high = instructions[0].ip, instructions[-1].next_ip
    for instruction in instructions:
        if instruction.is_ip_rel_memory_operand:
            table = instruction.ip_rel_memory_address
            yield from _entries(elf, table, "<i", table, (low, high))
        elif instruction.flow_control == FlowControl.INDIRECT_BRANCH:
            yield from _entries(elf, instruction.memory_displacement, "<Q", 0, (low, high))


def _entries(
    elf: ElfFile, table: int, form: str, base: int, bounds: tuple[int, int]
) -> Iterator[int]:
    """Entries of one table, up to the first that leads out of the function."""
    offset = elf.offset_of(table)
    if offset is None:
        return
    width = struct.calcsize(form)
    for index in range(_MAX_TABLE):
        at = offset + index * width
        if at + width > len(elf.data):
            return
        target = base + struct.unpack_from(form, elf.data, at)[0]
        if not bounds[0] <= target < bounds[1]:
            return
        yield target

"""The site table of an ELF file: where ``syscall`` and ``cpuid`` are in it and what replaces each.

The kernel reaches a system call without a trap by overwriting a *window*, the instruction and up to
two neighbours, with a jump to a *stub* that holds the neighbours and a jump into the kernel. The
format, and what the kernel may rely on, is `docs/format/sites.md`; the rules about which
instructions may move are in `_Planner`.

`analyse` never guesses: a site that no window fits is left out and traps, which is slower but
right.

::

    header   "OSIT" | version u16 | 0 u16 | count u32 | stub_bytes u32
    record   window_off u64 | window_len, site_at, stub_len, stub_call, stub_ret, fix_count,
             map_count, kind: u8 each | fixes u8 x4 | maps (window u8, stub u8) x6
             | stub code, padded to a multiple of 4
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iced_x86 import (
    Code,
    Decoder,
    FlowControl,
    Instruction,
    InstructionInfoFactory,
    Mnemonic,
    OpAccess,
    Register,
    RegisterExt,
)

from occlum.elf.branches import Targets
from occlum.elf.file import ElfFile
from occlum.elf.functions import Function, Functions

VERSION = 1
MAGIC = b"OSIT"
MAX_MAPS = 6
MAX_FIXES = 4
JUMP_SIZE = 5

_HEADER = struct.Struct("<4sHHII")
_RECORD = struct.Struct("<Q8B4s12s")
_DISTANCE = struct.Struct("<i")

_SITE = re.compile(rb"\x0f[\x05\xa2]")
_ENTER = b"\x65\xff\x24\x25"  # jmp *%gs:disp32
_ENTER_SIZE = len(_ENTER) + 4
_JUMP = b"\xe9"  # jmp rel32
_STUB_ALIGN = 16

# (instructions before, after) in the order they are tried. Before is better: what follows a system
# call then runs at its own address.
_SHAPES = ((1, 0), (2, 0), (0, 1), (1, 1), (0, 2))
_RT_SIGRETURN = 15
_RAX = (Register.RAX, Register.EAX)
_NUMBER_REACH = 12


@dataclass(frozen=True)
class _Kind:
    """What is replaced. The address to continue at is left where the instruction puts a result."""

    number: int
    lea: bytes  # lea REGISTER, [rip + disp32]
    entry: int  # offset at GS

    @property
    def enter(self) -> bytes:
        return _ENTER + _DISTANCE.pack(self.entry)


_KINDS = {
    Code.SYSCALL: _Kind(0, b"\x48\x8d\x0d", 0x10),  # RCX
    Code.CPUID: _Kind(1, b"\x48\x8d\x15", 0x18),  # RDX
}


@dataclass(frozen=True)
class Site:
    """One patched site; offsets as in the record."""

    kind: int
    offset: int
    length: int
    site_at: int
    stub: bytes
    stub_call: int
    stub_ret: int
    fixes: tuple[int, ...]
    maps: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Analysis:
    """``found`` counts the instructions, patched or not."""

    found: int
    sites: tuple[Site, ...]

    @property
    def patched(self) -> int:
        return len(self.sites)


def analyse(path: Path) -> Analysis:
    """Find and plan every site of an ELF file; raises `ElfError` if it is none."""
    with ElfFile(path) as elf:
        code = _decode_around(elf, _raw_hits(elf))
        calls = {
            instruction.ip: (function, index)
            for function, instructions in code.items()
            for index, instruction in enumerate(instructions)
            if instruction.code in _KINDS
        }
        ordered = [calls[address] for address in sorted(calls)]
        return Analysis(len(ordered), tuple(_Planner(elf, code).plan(ordered)))


def encode(sites: tuple[Site, ...]) -> bytes:
    """The table as the image stores it."""
    stub_bytes = sum(-(-len(site.stub) // _STUB_ALIGN) * _STUB_ALIGN for site in sites)
    table = bytearray(_HEADER.pack(MAGIC, VERSION, 0, len(sites), stub_bytes))
    for site in sites:
        table += _RECORD.pack(
            site.offset,
            site.length,
            site.site_at,
            len(site.stub),
            site.stub_call,
            site.stub_ret,
            len(site.fixes),
            len(site.maps),
            site.kind,
            bytes(site.fixes),
            b"".join(bytes(pair) for pair in site.maps),
        )
        table += site.stub + bytes(-len(site.stub) % 4)
    return bytes(table)


def _raw_hits(elf: ElfFile) -> Iterator[int]:
    """Addresses where the two bytes of an instruction stand in executable memory."""
    for segment in elf.executable_segments:
        end = segment.offset + segment.file_size
        for match in _SITE.finditer(elf.data, segment.offset, end):
            yield match.start() - segment.offset + segment.address


def _decode_around(elf: ElfFile, hits: Iterator[int]) -> dict[Function, list[Instruction]]:
    """The functions that hold a hit, decoded."""
    functions = Functions(elf)
    code: dict[Function, list[Instruction]] = {}
    not_code: set[Function] = set()
    for hit in hits:
        function = functions.at(hit)
        if function is not None:
            if function not in code:
                code[function] = _decode(elf, function)
            continue
        gap = functions.gap_at(hit)
        if gap is None or gap in code or gap in not_code:
            continue
        instructions = _decode(elf, gap)
        if _looks_like_code(instructions):
            code[gap] = instructions
        else:
            not_code.add(gap)
    return code


def _decode(elf: ElfFile, function: Function) -> list[Instruction]:
    offset = elf.offset_of(function.start)
    if offset is None:
        return []
    data = elf.data[offset : offset + function.end - function.start]
    return list(Decoder(64, data, ip=function.start))


def _looks_like_code(instructions: list[Instruction]) -> bool:
    """Whether bytes between functions are code beyond doubt: patching data would destroy it.

    All of it decodes, none of it is privileged (but ``hlt``, by which libcs crash), and the number
    of most system calls is loaded shortly before, which chance does not do in tables of constants.
    """
    for instruction in instructions:
        if instruction.code == Code.INVALID:
            return False
        if instruction.is_privileged and instruction.mnemonic != Mnemonic.HLT:
            return False
    calls = [index for index, i in enumerate(instructions) if i.code == Code.SYSCALL]
    plausible = [
        index
        for index in calls
        if any(_loads_number(i) for i in instructions[max(index - _NUMBER_REACH, 0) : index])
    ]
    return 2 * len(plausible) > len(calls)


def _loads_number(instruction: Instruction) -> bool:
    return (
        instruction.op_count > 0
        and instruction.op0_register in _RAX
        and (
            instruction.mnemonic
            in (Mnemonic.MOV, Mnemonic.MOVSXD, Mnemonic.XOR, Mnemonic.LEA, Mnemonic.POP)
        )
    )


class _Planner:
    """Chooses a window for each site and writes its stub."""

    def __init__(self, elf: ElfFile, code: dict[Function, list[Instruction]]) -> None:
        self._elf = elf
        self._code = code
        self._info = InstructionInfoFactory()

    def plan(self, calls: list[tuple[Function, int]]) -> Iterator[Site]:
        targets = Targets(self._elf, self._code).among(
            instruction.ip
            for function, index in calls
            for instruction in self._code[function][max(index - 2, 0) : index + 3]
        )
        taken_to = 0
        for function, index in calls:
            if not function.has_unwind_info and self._is_signal_return(function, index):
                continue
            for before, after in _SHAPES:
                window = self._window(function, index, before, after)
                if window is None or window[0].ip < taken_to:
                    continue
                if any(instruction.ip in targets for instruction in window[1:]):
                    continue
                taken_to = window[-1].next_ip
                yield self._site(window, before)
                break

    def _window(
        self, function: Function, index: int, before: int, after: int
    ) -> list[Instruction] | None:
        """The instructions of a window of this shape, if they may move."""
        instructions = self._code[function]
        if index < before or index + after >= len(instructions):
            return None
        window = instructions[index - before : index + after + 1]
        if sum(instruction.len for instruction in window) < JUMP_SIZE:
            return None
        moved = window[:before] + window[before + 1 :]
        if not all(self._may_move(instruction) for instruction in moved):
            return None
        is_call = window[before].code == Code.SYSCALL
        if is_call and any(self._reads_rcx(instruction) for instruction in window[before + 1 :]):
            return None
        return window

    def _may_move(self, instruction: Instruction) -> bool:
        """Whether the instruction does the same at another address, after its distance is fixed.

        Branches, calls, traps and invalid bytes may not move; neither may what addresses memory by
        EIP, whose 32-bit wrap the fix does not keep.
        """
        if instruction.flow_control != FlowControl.NEXT:
            return False
        if instruction.mnemonic in (Mnemonic.ENDBR64, Mnemonic.INVALID):
            return False
        return instruction.memory_base != Register.EIP

    def _reads_rcx(self, instruction: Instruction) -> bool:
        """Whether it would see the return address, which differs when it runs in the stub."""
        reads = (OpAccess.READ, OpAccess.READ_WRITE, OpAccess.COND_READ, OpAccess.READ_COND_WRITE)
        return any(
            used.access in reads and RegisterExt.full_register(used.register) == Register.RCX
            for used in self._info.info(instruction).used_registers()
        )

    def _is_signal_return(self, function: Function, index: int) -> bool:
        """Unwinders know a signal frame without unwind information by these very bytes."""
        if index == 0:
            return False
        previous = self._code[function][index - 1]
        loads = (Code.MOV_R32_IMM32, Code.MOV_RM32_IMM32, Code.MOV_RM64_IMM32)
        return previous.code in loads and previous.immediate(1) == _RT_SIGRETURN

    def _site(self, window: list[Instruction], before: int) -> Site:
        """The stub for this window, written as if it stood at the window's own address."""
        start, call = window[0].ip, window[before]
        end = window[-1].next_ip - start
        stub = _Stub()
        for instruction in window[:before]:
            stub.move(instruction, self._bytes(instruction), start)
        stub.map(call.ip - start)
        stub_call = len(stub.code)
        kind = _KINDS[call.code]
        ends_window = before == len(window) - 1
        stub_ret = stub_call + len(kind.lea) + 4 + _ENTER_SIZE
        if ends_window:
            stub.refer(kind.lea, end)
        else:
            # Within the stub: a distance that no move changes.
            stub.code += kind.lea + _DISTANCE.pack(_ENTER_SIZE)
        stub.code += kind.enter
        for instruction in window[before + 1 :]:
            stub.move(instruction, self._bytes(instruction), start)
        if not ends_window:
            stub.map(end)
            stub.refer(_JUMP, end)
        offset = self._elf.offset_of(start)
        assert offset is not None, "a decoded instruction lies in the file"
        return Site(
            kind.number,
            offset,
            end,
            call.ip - start,
            bytes(stub.code),
            stub_call,
            stub_ret,
            tuple(stub.fixes),
            tuple(stub.maps),
        )

    def _bytes(self, instruction: Instruction) -> bytes:
        offset = self._elf.offset_of(instruction.ip)
        assert offset is not None, "a decoded instruction lies in the file"
        return self._elf.data[offset : offset + instruction.len]


class _Stub:
    """A stub being written; positions count from the window's start."""

    def __init__(self) -> None:
        self.code = bytearray()
        self.fixes: list[int] = []
        self.maps: list[tuple[int, int]] = []

    def map(self, window_at: int) -> None:
        """The instruction at this offset of the window continues here."""
        self.maps.append((window_at, len(self.code)))

    def refer(self, opcode: bytes, window_at: int) -> None:
        """An instruction whose 32-bit distance leads to an offset of the window."""
        self.code += opcode
        self.fixes.append(len(self.code))
        self.code += _DISTANCE.pack(window_at - (len(self.code) + 4))

    def move(self, instruction: Instruction, encoded: bytes, start: int) -> None:
        """An instruction of the window, with its distance corrected for the new place."""
        window_at = instruction.ip - start
        self.map(window_at)
        moved = bytearray(encoded)
        if instruction.is_ip_rel_memory_operand:
            at = Decoder(64, encoded, ip=instruction.ip)
            decoded = at.decode()
            field = at.get_constant_offsets(decoded).displacement_offset
            distance = _DISTANCE.unpack_from(moved, field)[0] + window_at - len(self.code)
            _DISTANCE.pack_into(moved, field, distance)
            self.fixes.append(len(self.code) + field)
        self.code += moved

"""The kernel ELF, placed and relocated: the bytes that its pages have in the enclave.

The kernel is a static PIE. It is relocated here, at build time, and not by itself at start: so the
pages that are measured are the pages that run, and what only relocation writes (RELRO) is read-only
in the enclave from the first instruction. Neighbour: ``occlum.image.enclave`` lays the rest out.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import Segment

from occlum._core import PAGE_SIZE
from occlum.errors import Error

_PF_X, _PF_W, _PF_R = 1, 2, 4
_RELATIVE = 8
_RELA = struct.Struct("<QQq")
_WORD = struct.Struct("<Q")
#: Dynamic entries of what a self-contained kernel does not have.
_UNWANTED_TAGS = ("DT_NEEDED", "DT_REL", "DT_RELR", "DT_JMPREL", "DT_TEXTREL")


class KernelError(Error):
    """The kernel ELF is not one that can be placed in an enclave."""

    code = "kernel-broken"


@dataclass(frozen=True)
class Pages:
    """Neighbouring pages with the same permissions; ``data`` is a whole number of pages."""

    address: int
    readable: bool
    writable: bool
    executable: bool
    data: bytes


@dataclass(frozen=True)
class Kernel:
    """Where execution starts, and all pages by ascending address."""

    entry: int
    pages: list[Pages]


def load_kernel(path: Path, base: int, room: int) -> Kernel:
    """The kernel in ``path`` as it stands at address ``base``, in at most ``room`` bytes."""
    try:
        elf = ELFFile(io.BytesIO(path.read_bytes()))
        return _place(elf, base, room)
    except OSError as error:
        raise KernelError(f"the kernel {path} can't be read: {error.strerror}") from error
    except (ELFError, struct.error, ValueError, OverflowError) as error:
        raise KernelError(f"the kernel {path} is not a sound ELF: {error}") from error


def _place(elf: ELFFile, base: int, room: int) -> Kernel:
    _check_header(elf)
    segments = list(elf.iter_segments("PT_LOAD"))
    memory = bytearray(_size_in_memory(segments, room))
    for segment in segments:
        data = segment.data()
        memory[segment["p_vaddr"] : segment["p_vaddr"] + len(data)] = data
    _relocate(elf, memory, base)
    protection = _protection(elf, segments, len(memory) // PAGE_SIZE)
    _check_entry(elf["e_entry"], protection)
    return Kernel(base + elf["e_entry"], list(_runs(memory, protection, base)))


def _check_header(elf: ELFFile) -> None:
    if elf.elfclass != 64 or elf["e_machine"] != "EM_X86_64" or elf["e_type"] != "ET_DYN":
        raise KernelError("the kernel must be an x86-64 static PIE")
    kinds = {segment["p_type"] for segment in elf.iter_segments()}
    for unwanted in ("PT_INTERP", "PT_TLS"):
        if unwanted in kinds:
            raise KernelError(f"the kernel has a {unwanted} segment, which nothing in it can serve")


def _size_in_memory(segments: list[Segment], room: int) -> int:
    if not segments:
        raise KernelError("the kernel has nothing to load")
    if any(segment["p_filesz"] > segment["p_memsz"] for segment in segments):
        raise KernelError("the kernel has a segment that is bigger in the file than in memory")
    size = _round_up(max(_end(segment) for segment in segments))
    if size > room:
        raise KernelError(f"the kernel takes {size} bytes; there is room for {room}")
    return size


def _check_entry(entry: int, protection: list[int]) -> None:
    page = entry // PAGE_SIZE
    if page >= len(protection) or not protection[page] & _PF_X:
        raise KernelError(f"the kernel's entry point {entry:#x} is not executable")


def _relocate(elf: ELFFile, memory: bytearray, base: int) -> None:
    """Applies the R_X86_64_RELATIVE relocations, the only kind that a static PIE has."""
    for offset, info, addend in _relocations(elf, memory):
        if info != _RELATIVE:
            raise KernelError(f"the kernel has a relocation of type {info & 0xFFFFFFFF}")
        if offset > len(memory) - _WORD.size:
            raise KernelError(f"the kernel has a relocation outside itself, at {offset:#x}")
        _WORD.pack_into(memory, offset, base + addend)


def _relocations(elf: ELFFile, memory: bytearray) -> Iterator[tuple[int, int, int]]:
    tags: dict[str, int] = {}
    for segment in elf.iter_segments("PT_DYNAMIC"):
        assert isinstance(segment, DynamicSegment)
        tags.update((tag.entry.d_tag, tag.entry.d_val) for tag in segment.iter_tags())
    for unwanted in _UNWANTED_TAGS:
        if unwanted in tags:
            raise KernelError(f"the kernel has {unwanted} in its dynamic section")
    start, size = tags.get("DT_RELA", 0), tags.get("DT_RELASZ", 0)
    # Read as one table: the reader that pyelftools has is a hundred times slower.
    return _RELA.iter_unpack(bytes(memory[start : start + size]))


def _protection(elf: ELFFile, segments: list[Segment], count: int) -> list[int]:
    """PF_* bits for each page; 0 where no segment lies."""
    protection = [0] * count
    for segment in segments:
        flags = segment["p_flags"]
        if flags & _PF_W and flags & _PF_X:
            raise KernelError("the kernel has a segment that is writable and executable")
        for page in range(segment["p_vaddr"] // PAGE_SIZE, _round_up(_end(segment)) // PAGE_SIZE):
            if protection[page] not in (0, flags):
                raise KernelError(f"two segments share the page at {page * PAGE_SIZE:#x}")
            protection[page] = flags
    for relro in elf.iter_segments("PT_GNU_RELRO"):
        # Its first page holds nothing else that is writable: linkers put it first in its segment.
        first, end = relro["p_vaddr"] // PAGE_SIZE, _end(relro) // PAGE_SIZE
        for page in range(first, min(end, count)):
            protection[page] &= ~_PF_W
    return protection


def _runs(memory: bytearray, protection: list[int], base: int) -> Iterator[Pages]:
    """Pages with equal permissions, together."""
    first = 0
    for page in range(1, len(protection) + 1):
        if page < len(protection) and protection[page] == protection[first]:
            continue
        flags = protection[first]
        if flags:
            yield Pages(
                address=base + first * PAGE_SIZE,
                readable=bool(flags & _PF_R),
                writable=bool(flags & _PF_W),
                executable=bool(flags & _PF_X),
                data=bytes(memory[first * PAGE_SIZE : page * PAGE_SIZE]),
            )
        first = page


def _end(segment: Segment) -> int:
    return int(segment["p_vaddr"]) + int(segment["p_memsz"])


def _round_up(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE

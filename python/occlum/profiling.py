"""Where time goes in an enclave: ``occlum profile``.

The host program interrupts the vCPUs a thousand times a second and writes where each was
(``crates/host/src/profile.rs``); here places become functions, and counts a table or a flame graph.
Only debuggable enclaves can be looked into. Time outside the enclave, waiting included, is not
seen.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

KERNEL_BASE = 0x1F00_0000_0000
KERNEL_SIZE = 256 << 20
PAGE = 4096

Stack = tuple[str, ...]
"""From the program to the function."""


@dataclass(frozen=True)
class _Part:
    start: int
    offset: int
    path: str


class Symbols:
    """Functions of an ELF file by address."""

    def __init__(self, path: Path) -> None:
        self._starts: list[int] = []
        self._names: list[str] = []
        self._code: list[tuple[int, int, int]] = []
        with open(path, "rb") as file:
            elf = ELFFile(file)
            for segment in elf.iter_segments("PT_LOAD"):
                if segment["p_flags"] & 1:
                    self._code.append((segment["p_offset"], segment["p_vaddr"], segment["p_memsz"]))
            found = dict(self._functions(elf))
        for start in sorted(found):
            self._starts.append(start)
            self._names.append(found[start])

    def _functions(self, elf: ELFFile) -> Iterator[tuple[int, str]]:
        for name in (".dynsym", ".symtab"):
            section = elf.get_section_by_name(name)
            if isinstance(section, SymbolTableSection):
                for symbol in section.iter_symbols():
                    if (
                        symbol["st_info"]["type"] in ("STT_FUNC", "STT_NOTYPE")
                        and symbol["st_value"]
                    ):
                        yield symbol["st_value"], symbol.name

    def bias(self, start: int, offset: int) -> int:
        """What was added to the addresses in the file, whose part at ``offset`` is at ``start``."""
        for part, address, _ in self._code:
            if part - part % PAGE == offset:
                return start - (address - address % PAGE)
        return start - offset

    def size_from(self, offset: int) -> int:
        """Bytes of the code segment at ``offset``."""
        return max((s for part, _, s in self._code if part - part % PAGE == offset), default=PAGE)

    def name(self, address: int) -> str:
        at = bisect.bisect_right(self._starts, address) - 1
        return demangled(self._names[at]) if at >= 0 else f"{address:#x}"


_ESCAPES = {"LT": "<", "GT": ">", "RF": "&", "BP": "*", "LP": "(", "RP": ")", "C": ",", "u20": " "}


def demangled(name: str) -> str:
    """A Rust path for Rust's older mangling; other names as they are."""
    if not name.startswith("_ZN") or not name.endswith("E"):
        return name
    parts = []
    rest = name[3:-1]
    while match := re.match(r"(\d+)", rest):
        size = int(match[1])
        begin = match.end()
        parts.append(rest[begin : begin + size])
        rest = rest[begin + size :]
    if parts and re.fullmatch(r"h[0-9a-f]{16}", parts[-1]):
        parts.pop()
    text = "::".join(parts)
    text = re.sub(r"\$(\w+?)\$", lambda m: _ESCAPES.get(m[1], m[0]), text)
    return text.replace("..", "::").replace("_<", "<")


@dataclass
class Profile:
    """Counts of samples by stack."""

    stacks: Counter[Stack] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return sum(self.stacks.values())

    def functions(self) -> list[tuple[int, Stack]]:
        """Counts of functions by program, the most frequent first."""
        return [(count, stack) for stack, count in self.stacks.most_common()]


def read(lines: Iterable[str], image: Path, kernel: Path) -> Profile:
    """The profile of what the host program wrote."""
    profile = Profile()
    places = _Places(image, kernel)
    for line in lines:
        match line.rstrip("\n").split(" ", 5):
            case ["m", process, is_program, start, offset, path]:
                part = _Part(int(start, 16), int(offset, 16), path)
                places.add(int(process), is_program == "1", part)
            case ["s", process, rip]:
                profile.stacks[places.stack(int(process), int(rip, 16))] += 1
            case _:
                pass
    return profile


class _Places:
    def __init__(self, image: Path, kernel: Path) -> None:
        self._image = image
        self._kernel = Symbols(kernel)
        self._symbols: dict[str, Symbols | None] = {}
        self._parts: dict[int, tuple[int, _Part]] = {}
        self._starts: list[int] = []
        self._programs: dict[int, str] = {}

    def add(self, process: int, is_program: bool, part: _Part) -> None:
        symbols = self._of(part.path)
        size = symbols.size_from(part.offset) if symbols else PAGE
        if part.start not in self._parts:
            bisect.insort(self._starts, part.start)
        self._parts[part.start] = (part.start + size, part)
        is_loader = Path(part.path).name.startswith("ld-")
        if is_program and not is_loader:
            self._programs[process] = Path(part.path).name

    def stack(self, process: int, rip: int) -> Stack:
        program = self._programs.get(process) or self._programs.get(0, f"process {process}")
        if KERNEL_BASE <= rip < KERNEL_BASE + KERNEL_SIZE:
            return program, "kernel", self._kernel.name(rip - KERNEL_BASE)
        at = bisect.bisect_right(self._starts, rip) - 1
        if at >= 0:
            end, part = self._parts[self._starts[at]]
            symbols = self._of(part.path)
            if rip < end and symbols:
                address = rip - symbols.bias(part.start, part.offset)
                return program, Path(part.path).name, symbols.name(address)
        return program, "elsewhere", f"{rip & ~0xFFF:#x}"

    def _of(self, path: str) -> Symbols | None:
        if path not in self._symbols:
            try:
                self._symbols[path] = Symbols(self._file(path))
            except (OSError, ELFError):
                # A program that was made inside, or no ELF file.
                self._symbols[path] = None
        return self._symbols[path]

    def _file(self, path: str) -> Path:
        """The file of the image that is ``path`` inside."""
        found = self._image / path.lstrip("/")
        for _ in range(40):
            if not found.is_symlink():
                break
            target = found.readlink()
            above = self._image if target.is_absolute() else found.parent
            found = above / str(target).lstrip("/")
        return found


WIDTH = 1200
ROW = 18


def flame_graph(profile: Profile, title: str) -> str:
    """The profile as SVG: width is time, each row what the row below called or holds."""
    from html import escape

    boxes: list[tuple[int, int, int, str]] = []
    _lay_out(sorted(profile.stacks.items()), 0, 0, boxes)
    total = profile.total or 1
    depth = max((level for level, *_ in boxes), default=0) + 1
    height = (depth + 2) * ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'font-family="monospace" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="6" y="14">{escape(title)}: {profile.total} samples</text>',
    ]
    for level, start, count, name in boxes:
        x, width = WIDTH * start / total, WIDTH * count / total
        y = height - (level + 1) * ROW - 4
        hue = 10 + sum(map(ord, name)) % 45
        shown = escape(name[: max(0, int(width / 7.3) - 1)])
        lines.append(
            f"<g><title>{escape(name)}: {count} samples, {100 * count / total:.1f}%</title>"
            f'<rect x="{x:.1f}" y="{y}" width="{max(width - 0.5, 0.3):.1f}" height="{ROW - 1}" '
            f'fill="hsl({hue},80%,65%)" rx="1"/>'
            f'<text x="{x + 3:.1f}" y="{y + 13}">{shown}</text></g>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _lay_out(
    stacks: list[tuple[Stack, int]], level: int, start: int, boxes: list[tuple[int, int, int, str]]
) -> None:
    """Boxes (level, start, samples, name) of the stacks, which begin alike up to ``level``."""
    groups: dict[str, list[tuple[Stack, int]]] = {}
    for stack, count in stacks:
        if len(stack) > level:
            groups.setdefault(stack[level], []).append((stack, count))
    for name, group in groups.items():
        count = sum(each for _, each in group)
        boxes.append((level, start, count, name))
        _lay_out(group, level + 1, start, boxes)
        start += count

"""The table of system calls as a page: `python tools/syscalls.py [--check]`.

The kernel's table (`crates/kernel/src/syscall/*.rs`) is the one source; `--check` fails if
`docs/syscalls.md` says something else.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "crates/kernel/src/syscall"
PAGE = ROOT / "docs/syscalls.md"

_ROW = re.compile(
    r'Syscall::full\(\s*(?P<number>\d+),\s*"(?P<name>\w+)",.*?\bsys_\w+,?\s*\)'
    r'(?:\s*\.(?P<kind>but|never)\((?P<note>[^()]*(?:\([^()]*\)[^()]*)*)\))?',
    re.DOTALL,
)
_CONSTANT = re.compile(r'const (\w+): &str =\s*"((?:[^"\\]|\\.|\\\n)*)";')


@dataclass(frozen=True, order=True)
class Row:
    number: int
    name: str
    support: str
    note: str


def rows() -> list[Row]:
    """Every row of the kernel's table, by number."""
    found = [row for path in sorted(SOURCES.glob("*.rs")) for row in _rows_of(path.read_text())]
    return sorted(found)


def _rows_of(text: str) -> list[Row]:
    constants = dict(_CONSTANT.findall(text))
    support = {None: "full", "but": "partial", "never": "no"}
    return [
        Row(
            int(match["number"]),
            match["name"],
            support[match["kind"]],
            _note(match["note"] or "", constants),
        )
        for match in _ROW.finditer(text)
    ]


def _note(expression: str, constants: dict[str, str]) -> str:
    value = expression.strip().rstrip(",").strip()
    value = constants.get(value, value.strip('"'))
    return re.sub(r"\\\n\s*", "", value).replace('\\"', '"')


def page() -> str:
    """The page in Markdown."""
    table = rows()
    counts = {kind: sum(row.support == kind for row in table) for kind in ("full", "partial", "no")}
    lines = [
        "# System calls",
        "",
        "Made from the kernel's own table by `tools/syscalls.py`. A number that is not here",
        "answers ENOSYS and is named once in the log at level `warn`.",
        "",
        f"{counts['full']} full, {counts['partial']} partial, {counts['no']} refused.",
        "",
        "| number | name | support | what is missing, or why it is refused |",
        "|---|---|---|---|",
        *(f"| {row.number} | {row.name} | {row.support} | {row.note} |" for row in table),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        return 0
    if PAGE.is_file() and PAGE.read_text() == text:
        return 0
    print("docs/syscalls.md is not the kernel's table; run python tools/syscalls.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())

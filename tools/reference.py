"""Pages of the documentation that are generated from the program: docs/errors.md, docs/commands.md.

python tools/reference.py            write both
python tools/reference.py --check    exit status 1 if docs/errors.md, the kept one, is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from occlum.catalogue import ENTRIES
from occlum.cli.reference import markdown

DOCS = Path(__file__).resolve().parent.parent / "docs"


def errors() -> str:
    """docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "What fails on purpose has a code, which the hint names; `occlum explain CODE` says this.",
        "Generated from `python/occlum/catalogue.py` by `tools/reference.py`.",
        "",
        "| code | cause | remedy |",
        "|---|---|---|",
    ]
    lines += [f"| `{code}` | {each.cause} | {each.remedy} |" for code, each in ENTRIES.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    path = DOCS / "errors.md"
    if sys.argv[1:] == ["--check"]:
        if path.read_text(encoding="utf-8") == errors():
            return 0
        print("docs/errors.md is out of date; run tools/reference.py")
        return 1
    path.write_text(errors(), encoding="utf-8")
    (DOCS / "commands.md").write_text(markdown(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

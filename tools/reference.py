"""Pages of the documentation that are generated from the program.

docs/errors.md is kept, docs/commands.md and docs/generated/ are made for the site. Without
arguments all are written; with --check the exit status is 1 if docs/errors.md is stale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from occlum.catalogue import ENTRIES
from occlum.cli.reference import markdown
from occlum.config.schema import schema

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


def configuration() -> str:
    """The keys of Occlum.json with their defaults, from the schema."""
    whole = schema()
    lines = ["## Keys", "", "| key | default | meaning |", "|---|---|---|"]
    for section, reference in whole["properties"].items():
        name = str(reference.get("$ref", "")).rpartition("/")[2]
        members = whole["$defs"][name]["properties"] if name else {}
        if not members:
            lines.append(f"| `{section}` | | {reference.get('description', '[below](#mounts)')} |")
        for key, about in members.items():
            default = json.dumps(about.get("default")) if "default" in about else ""
            shown = f"`{default}`" if default not in ("", "null") else ""
            lines.append(f"| `{section}.{key}` | {shown} | {about.get('description', '')} |")
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
    (DOCS / "generated").mkdir(exist_ok=True)
    (DOCS / "generated/configuration.md").write_text(configuration(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Every error that is raised on purpose has an entry that explains it, and the page is current."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import occlum
from occlum.catalogue import ENTRIES
from occlum.errors import Error

SOURCE = Path(occlum.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
NOT_OURS_TO_IMPORT = ("__main__", "gdb_extension")
"""The second runs inside GDB, which brings its own Python."""


def classes() -> dict[str, type[Error]]:
    for path in sorted(SOURCE.rglob("*.py")):
        if path.stem not in NOT_OURS_TO_IMPORT:
            parts = path.relative_to(SOURCE).with_suffix("").parts
            importlib.import_module(".".join(("occlum", *parts)).removesuffix(".__init__"))
    found = {Error.__name__: Error}
    waiting = [Error]
    while waiting:
        for each in waiting.pop().__subclasses__():
            found[each.__name__] = each
            waiting.append(each)
    return found


def raises() -> Iterator[tuple[str, ast.Call]]:
    known = classes()
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if is_call and node.func.id in known:
                yield f"{path.relative_to(SOURCE.parent)}:{node.lineno}", node


def code_of(call: ast.Call) -> str | None:
    for keyword in call.keywords:
        if keyword.arg == "code":
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else "computed"
    return classes()[call.func.id].code if isinstance(call.func, ast.Name) else None


def test_every_raise_has_a_code_with_an_entry():
    missing = [
        f'{where}: give it code="..." and an entry in python/occlum/catalogue.py (now "{code}")'
        for where, call in raises()
        if (code := code_of(call)) not in {*ENTRIES, "computed"}
    ]
    assert not missing, "\n".join(missing)


def test_every_entry_is_raised_somewhere():
    used = {code_of(call) for _, call in raises()}
    text = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.stem != "catalogue")
    used |= {each.code for each in classes().values()}
    from occlum.bom import Exit

    used |= {f"bom-{each.name.lower().replace('_', '-')}" for each in Exit}
    assert [c for c in ENTRIES if c not in used and f'"{c}"' not in text] == []


@pytest.mark.parametrize("code", ENTRIES)
def test_an_entry_says_cause_and_remedy(code: str):
    entry = ENTRIES[code]
    assert entry.cause.endswith(".")
    assert len(entry.remedy) > 3


def test_the_page_is_current():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/reference.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""`docs/syscalls.md` is what the kernel's table says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_the_kernels_table():
    command = [sys.executable, str(ROOT / "tools/syscalls.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_row_is_lost():
    sources = (ROOT / "crates/kernel/src/syscall").glob("*.rs")
    rows = sum(len(re.findall(r"Syscall::full\(\s*\d+", path.read_text())) for path in sources)
    page = (ROOT / "docs/syscalls.md").read_text()
    assert rows == len(re.findall(r"^\| \d+ \|", page, re.MULTILINE)) > 200

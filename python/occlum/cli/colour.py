"""Colour where a person sees it: on a terminal, unless NO_COLOR or TERM=dumb says otherwise."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_CODES = {"red": 31, "green": 32, "yellow": 33, "bold": 1}


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """The text in a colour, or as it is where colour is not wanted."""
    if not is_wanted(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def is_wanted(stream: TextIO) -> bool:
    """Whether colour is wanted on this stream (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()

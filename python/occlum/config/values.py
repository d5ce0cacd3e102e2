"""Value types of ``Occlum.json``: sizes, absolute paths, identifiers, environment entries.

Each is a pydantic annotated type whose check says what it expected and, where it can, what to
write instead; `occlum.config.load` adds file, line and key.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
MAX_SIZE = 16 << 40
"""Sizes above this don't fit the enclave's linear range."""

_SIZE = re.compile(r"(\d+)(B|KB|MB|GB|TB)")
_LOOSE_SIZE = re.compile(r"\s*(\d+)\s*([KMGT]?)[A-Z]*\s*", re.IGNORECASE)


def refuse(expected: str, hint: str = "") -> PydanticCustomError:
    """The error of a value that is not what it should be."""
    return PydanticCustomError("occlum", "{expected}", {"expected": expected, "hint": hint})


def _size(value: Any) -> int:
    expected = "a number with B, KB, MB, GB or TB"
    if not isinstance(value, str) or (match := _SIZE.fullmatch(value)) is None:
        loose = _LOOSE_SIZE.fullmatch(str(value))
        number, unit = loose.groups() if loose else ("12", "G")
        raise refuse(expected, f'write "{number}{unit.upper() or "G"}B"')
    size = int(match[1]) * UNITS[match[2]]
    if not 0 < size <= MAX_SIZE:
        raise refuse("a size above 0 and at most 16TB")
    return size


def size_text(size: int) -> str:
    """The size as ``Occlum.json`` writes it: ``256MB``."""
    for unit in ("TB", "GB", "MB", "KB"):
        if size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]}{unit}"
    return f"{size}B"


def _absolute_path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        suggestion = f'write "/{value}"' if isinstance(value, str) and value else ""
        raise refuse("an absolute path", suggestion)
    parts = value.split("/")
    if "\0" in value or ".." in parts or "." in parts:
        raise refuse("a path without . and ..", "write the directory that is meant")
    return "/" + "/".join(part for part in parts if part)


def _hex_u64(value: Any) -> int:
    expected = 'a 64-bit number in a string, such as "0x1f"'
    if not isinstance(value, str):
        raise refuse(expected)
    try:
        number = int(value, 0)
    except ValueError:
        raise refuse(expected) from None
    if not 0 <= number < 1 << 64:
        raise refuse(expected)
    return number


def _assignment(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value or value.find("=") < 1:
        hint = f'write "{value}=value"' if isinstance(value, str) and value else ""
        raise refuse("NAME=value", hint)
    return value


def _variable_name(value: Any) -> str:
    if not isinstance(value, str) or not value or "=" in value or "\0" in value:
        raise refuse("the name of an environment variable", "values come from the host")
    if "*" in value[:-1]:
        raise refuse("a name, or the beginning of names followed by one *")
    return value


def _like(pattern: str, example: str) -> WithJsonSchema:
    """The JSON Schema of a string; what the check above says more exactly."""
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(size_text, return_type=str),
    _like("^[0-9]+(B|KB|MB|GB|TB)$", "256MB"),
]
"""Bytes, written as a number with a unit."""
AbsolutePath = Annotated[str, BeforeValidator(_absolute_path), _like("^/", "/usr/bin")]
"""A path in the enclave's tree, without empty parts, ``.`` or ``..``."""
HexU64 = Annotated[
    int,
    BeforeValidator(_hex_u64),
    PlainSerializer(hex, return_type=str),
    _like("^(0[xX][0-9a-fA-F]+|[0-9]+)$", "0x1f"),
]
Assignment = Annotated[str, BeforeValidator(_assignment), _like("^[^=]+=", "HOME=/root")]
VariableName = Annotated[str, BeforeValidator(_variable_name), _like("^[^=]+$", "TERM")]

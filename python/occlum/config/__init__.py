"""``Occlum.json``: read, checked, explained, and converted for the kernel.

`load` gives a `Config` or raises a `ConfigError` that names file, line, key, what was found and
what was expected; the other problems of the same file hang on it as ``also``. A file whose name
ends in ``.yaml`` is YAML; any other is JSON with comments.
"""

from __future__ import annotations

from pathlib import Path

from occlum.config.boot import CpuMode, ForkCopies, stores, to_boot_json, vcpus
from occlum.config.document import ConfigError, Document, parse, read
from occlum.config.model import Config
from occlum.config.rules import problems
from occlum.config.validate import joined, validate

__all__ = [
    "Config",
    "ConfigError",
    "CpuMode",
    "ForkCopies",
    "check",
    "default_text",
    "load",
    "parse",
    "stores",
    "to_boot_json",
    "vcpus",
]


def load(path: Path) -> Config:
    """The configuration in this file; raises `ConfigError`."""
    return check(read(path))


def check(document: Document) -> Config:
    """The configuration in a parsed document; raises `ConfigError`."""
    config = validate(Config, document, "occlum new writes a default one")
    broken = [document.error(key, what, hint) for key, what, hint in problems(config)]
    if broken:
        raise joined(broken)
    return config


def default_text() -> str:
    """What `occlum new` writes as ``Occlum.json``."""
    return (Path(__file__).parent / "default.json").read_text(encoding="utf-8")

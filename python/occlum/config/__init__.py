"""``Occlum.json``: read, checked, explained, and converted for the kernel.

`load` gives a `Config` or raises a `ConfigError` that names file, line, key, what was found and
what was expected; the other problems of the same file hang on it as ``also``. A file whose name
ends in ``.yaml`` is YAML; any other is JSON with comments.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from occlum.config.boot import CpuMode, ForkCopies, stores, to_boot_json, vcpus
from occlum.config.document import ConfigError, Document, parse, parse_named, read
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


def effective(path: Path) -> Document:
    """The checked file with every default filled in, as it would be written."""
    return Document(path.name, load(path).model_dump(mode="json", by_alias=True, exclude_none=True))


def replace_checked(path: Path, text: str) -> None:
    """Write the file in one step, if the text is a good configuration."""
    check(parse_named(text, path.name))
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staging.write_text(text, encoding="utf-8")
        shutil.copymode(path, staging)
        staging.replace(path)
    except OSError as problem:
        staging.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} can't be written: {problem.strerror}", code="config-write"
        ) from None


def schema_text() -> str:
    """The JSON Schema of the file, as `schema.json` ships it."""
    from occlum.config.schema import schema

    return json.dumps(schema(), indent=2) + "\n"


def default_text() -> str:
    """What `occlum new` writes as ``Occlum.json``."""
    return (Path(__file__).parent / "default.json").read_text(encoding="utf-8")

"""``Occlum.json``: read, checked, explained, and converted for the kernel.

`load` gives a `Config` or raises a `ConfigError` that names file, line, key, what was found and
what was expected; the other problems of the same file hang on it as ``also``.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from occlum.config.boot import CpuMode, to_boot_json, vcpus
from occlum.config.document import ConfigError, Document, Key, dotted, parse, read
from occlum.config.model import Config
from occlum.config.rules import problems

__all__ = [
    "Config",
    "ConfigError",
    "CpuMode",
    "check",
    "default_text",
    "load",
    "parse",
    "to_boot_json",
    "vcpus",
]


def load(path: Path) -> Config:
    """The configuration in this file; raises `ConfigError`."""
    return check(read(path))


def check(document: Document) -> Config:
    """The configuration in a parsed document; raises `ConfigError`."""
    if not isinstance(document.value, dict):
        raise document.error((), "the file holds no object", 'it begins with "{"')
    try:
        config = Config.model_validate(document.value)
    except ValidationError as error:
        raise _joined([_explain(document, dict(item)) for item in error.errors()]) from None
    broken = [document.error(key, what, hint) for key, what, hint in problems(config)]
    if broken:
        raise _joined(broken)
    return config


def default_text() -> str:
    """What `occlum new` writes as ``Occlum.json``."""
    return (Path(__file__).parent / "default.json").read_text(encoding="utf-8")


def _joined(errors: list[ConfigError]) -> ConfigError:
    first = errors[0]
    first.also = tuple(errors[1:])
    return first


# pydantic's error types, as a person would say them.
_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "string_type": "a string",
    "tuple_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "too_short": "at least one entry",
}


def _explain(document: Document, item: dict[str, Any]) -> ConfigError:
    key: Key = tuple(item["loc"])
    name = dotted(key)
    context = item.get("ctx", {})
    match item["type"]:
        case "extra_forbidden":
            return document.error(key, f"{name} is not a known key", _nearest(key))
        case "missing":
            return document.error(key[:-1], f"{name} is missing", "occlum new writes a default one")
        case "occlum":
            expected, hint = context["expected"], context["hint"] or None
        case "enum":
            expected, hint = context["expected"].replace("'", ""), None
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            expected, hint = item["msg"].removeprefix("Input should be "), None
        case kind:
            expected, hint = _EXPECTED.get(kind, item["msg"]), None
    got = json.dumps(item["input"])
    if len(got) > 60:
        got = got[:57] + "..."
    return document.error(key, f"{name} is {got}; expected {expected}", hint)


def _nearest(key: Key) -> str | None:
    """A known key that resembles the unknown one."""
    known = _known_keys(Config, key[:-1])
    matches = difflib.get_close_matches(str(key[-1]), known, n=1)
    if matches:
        return f'did you mean "{matches[0]}"?'
    return f"known here: {', '.join(known)}" if known else None


def _known_keys(model: type[BaseModel], parents: Key) -> list[str]:
    for part in parents:
        if isinstance(part, int):
            continue
        field = next(
            (info for name, info in model.model_fields.items() if (info.alias or name) == part),
            None,
        )
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model of a field's type, or of its elements."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None

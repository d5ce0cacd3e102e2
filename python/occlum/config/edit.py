"""One value of a configuration file changed in place: comments, order and layout stay.

`set_value` works on the text: it replaces the span of the value, or inserts a member into the
object that is to hold it. In YAML only values on one line can be changed so; what can't be done
says so.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from occlum.config.document import ConfigError, Document, Json, Key, dotted, parse, parse_named

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def parse_key(text: str) -> Key:
    """The path that ``mount[0].options.MAC`` means."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        at += text.startswith(".", at) and at > 0
        match = _PART.match(text, at)
        if match is None:
            raise ConfigError(
                f'"{text}" is no key', hint="for example: resource_limits.user_space_size"
            )
        parts.append(match[1] if match[1] else int(match[2]))
        at = match.end()
    return tuple(parts)


def get(document: Document, key: Key) -> Json:
    """The value that the file gives at a key; raises `KeyError` when it gives none."""
    value = document.value
    for part in key:
        try:
            value = value[part]  # type: ignore[index]
        except (TypeError, IndexError):
            raise KeyError(dotted(key)) from None
    return value


def set_value(path: Path, key: Key, value: Json) -> str:
    """The text of the file with one value changed."""
    return set_text(path.read_text(encoding="utf-8"), path.name, key, value)


def set_text(text: str, name: str, key: Key, value: Json) -> str:
    """The text of the file with this name, with one value changed."""
    if name.endswith((".yaml", ".yml")):
        return _set_yaml(text, parse_named(text, name), key, value)
    return set_json(text, name, key, value)


def set_json(text: str, name: str, key: Key, value: Json) -> str:
    """The JSON text with one value changed or added."""
    document = parse(text, name)
    if key in document.spans:
        begin, end = document.spans[key]
        return text[:begin] + _written(value, _indent_at(text, begin)) + text[end:]
    parent = key[:-1]
    while parent not in document.spans:
        value, key, parent = {str(key[-1]): value}, parent, parent[:-1]
    return _insert(text, document, key, value)


def _insert(text: str, document: Document, key: Key, value: Json) -> str:
    parent, name = key[:-1], key[-1]
    holder = get(document, parent)
    if not isinstance(holder, dict) or not isinstance(name, str):
        raise document.error(parent, f"{dotted(key)} can't be added here", "edit the file by hand")
    begin, end = document.spans[parent]
    outer = _indent_at(text, begin)
    if holder and "\n" not in text[begin:end]:
        last = document.spans[(*parent, list(holder)[-1])][1]
        return text[:last] + f", {json.dumps(name)}: {json.dumps(value)}" + text[last:]
    inner = outer + "    "
    member = f"{json.dumps(name)}: {_written(value, inner)}"
    if not holder:
        return text[:begin] + f"{{\n{inner}{member}\n{outer}}}" + text[end:]
    last = document.spans[(*parent, list(holder)[-1])][1]
    rest = text[last:end]
    comma = re.match(r"\s*,", rest)
    at = last + (comma.end() if comma else 0)
    return text[:at] + ("" if comma else ",") + f"\n{inner}{member}" + text[at:]


def _indent_at(text: str, at: int) -> str:
    """The white space at the beginning of the line."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip())]


def _written(value: Json, indent: str) -> str:
    if isinstance(value, (dict, list)) and value:
        return json.dumps(value, indent=4).replace("\n", f"\n{indent}")
    return json.dumps(value)


def _set_yaml(text: str, document: Document, key: Key, value: Json) -> str:
    span = document.spans.get(key)
    if span is None or isinstance(value, (dict, list)) or "\n" in text[slice(*span)]:
        what = "is not there" if span is None else "is more than one line"
        raise document.error(key, f"{dotted(key)} {what}, so it can't be set", "edit it by hand")
    return text[: span[0]] + json.dumps(value) + text[span[1] :]

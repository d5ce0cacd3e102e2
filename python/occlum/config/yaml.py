"""YAML read so that every value knows its line, as `occlum.config.document` does it for JSON.

The C loader of PyYAML composes nodes; this module walks them, so nothing in a file can construct
an object. Refused: a key given twice, keys that are not strings, tags of other types, and aliases
that make a small file expand without end.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from occlum.config.document import ConfigError, Document, Json, Key, dotted

_MAX_VALUES = 100_000
_MAX_DEPTH = 64
_PREFIX = "tag:yaml.org,2002:"
_SCALARS = {"null", "bool", "int", "float", "str", "timestamp"}


def parse_yaml(text: str, name: str) -> Document:
    """Parse the text; raises `ConfigError` with file and line."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        return _Walk(loader, name).document(node)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else 1
        what = problem.problem or problem.context or "is no YAML"
        raise ConfigError(f"{name}:{line}: {what}", hint="the file is YAML") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{name}:1: {problem}", hint="the file is YAML in UTF-8") from None
    finally:
        loader.dispose()


class _Walk:
    def __init__(self, loader: Any, name: str) -> None:
        self._loader = loader
        self._out = Document(name, None)
        self._count = 0

    def document(self, node: Any) -> Document:
        self._out.value = self._value(node, ()) if node is not None else None
        return self._out

    def _value(self, node: Any, key: Key) -> Json:
        self._out.lines.setdefault(key, node.start_mark.line + 1)
        self._out.spans[key] = (node.start_mark.index, node.end_mark.index)
        self._count += 1
        if self._count > _MAX_VALUES or len(key) > _MAX_DEPTH:
            raise self._out.error(key, "the file is too large or nested too deeply")
        if node.id == "mapping":
            return self._mapping(node, key)
        if node.id == "sequence":
            return [self._value(each, (*key, index)) for index, each in enumerate(node.value)]
        return self._scalar(node, key)

    def _mapping(self, node: Any, key: Key) -> Json:
        members: dict[str, Json] = {}
        for name_node, value_node in node.value:
            name = self._scalar(name_node, key) if name_node.id == "scalar" else None
            if not isinstance(name, str):
                line = name_node.start_mark.line + 1
                raise ConfigError(
                    f"{self._out.name}:{line}: found a key that is not a string",
                    hint='write it in "quotes"',
                )
            member = (*key, name)
            if name in members:
                self._out.lines[member] = name_node.start_mark.line + 1
                raise self._out.error(member, f"{dotted(member)} is given twice", "remove one")
            self._out.lines[member] = name_node.start_mark.line + 1
            members[name] = self._value(value_node, member)
        return members

    def _scalar(self, node: Any, key: Key) -> Json:
        if node.tag.removeprefix(_PREFIX) not in _SCALARS:
            raise self._out.error(key, f"{dotted(key)} has the tag {node.tag}", "remove the tag")
        try:
            value = self._loader.construct_object(node)
        except ValueError:
            value = None
            if node.tag != f"{_PREFIX}timestamp":
                raise self._out.error(key, f'"{node.value}" is no valid value') from None
        if isinstance(value, date) or node.tag == f"{_PREFIX}timestamp":
            return str(node.value)
        plain: Json = value
        return plain

"""JSON with comments, read so that every value knows its line (YAML: `occlum.config.yaml`).

``read`` gives a `Document`: the plain Python value and the line of each value by its path, which
is what lets `occlum.config` say "Occlum.json:4". Accepted beyond RFC 8259: ``//`` and ``/* */``
comments and a comma after the last element; refused: a key given twice.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from occlum.errors import Error

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Key = tuple[str | int, ...]
"""Path of a value: object keys and list indexes from the root."""


class ConfigError(Error):
    """Something in a configuration file can't be used."""

    code = "config"


@dataclass
class Document:
    """A parsed file.

    ``lines`` maps each value's path to the line (from 1) where its key stands, ``spans`` to the
    offsets where the value itself begins and ends.
    """

    name: str
    value: Json
    lines: dict[Key, int] = field(default_factory=dict)
    spans: dict[Key, tuple[int, int]] = field(default_factory=dict)

    def line(self, key: Key) -> int:
        """The line of the value, or of its nearest parent that is in the file."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)

    def error(self, key: Key, what: str, hint: str | None = None) -> ConfigError:
        """An error about one value, with the file and line before it."""
        return ConfigError(f"{self.name}:{self.line(key)}: {what}", hint=hint)


def read(path: Path) -> Document:
    """Parse the file; raises `ConfigError` with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path.name} is not in {path.parent}", hint="occlum init writes one"
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} can't be read: {problem}") from None
    return parse_named(text, path.name)


def parse_named(text: str, name: str) -> Document:
    """Parse the text of a file with this name: YAML or JSON."""
    if name.endswith((".yaml", ".yml")):
        from occlum.config.yaml import parse_yaml

        return parse_yaml(text, name)
    return parse(text, name)


def parse(text: str, name: str) -> Document:
    """Parse the text; ``name`` is the file's name for messages."""
    return _Parser(text, name).document()


_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORDS: dict[str, Json] = {"true": True, "false": False, "null": None}
_MAX_DEPTH = 64


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.at = 0
        self.out = Document(name, None)

    def document(self) -> Document:
        self.out.value = self.element((), 0)
        self.skip()
        if self.at < len(self.text):
            raise self.unexpected("the end of the file")
        return self.out

    def element(self, key: Key, depth: int) -> Json:
        self.skip()
        self.out.lines.setdefault(key, self.line_here())
        if depth > _MAX_DEPTH:
            raise self.unexpected(f"at most {_MAX_DEPTH} levels")
        begin = self.at
        value = self.of_any_kind(key, depth)
        self.out.spans[key] = (begin, self.at)
        return value

    def of_any_kind(self, key: Key, depth: int) -> Json:
        start = self.text[self.at : self.at + 1]
        if start == "{":
            return self.object(key, depth)
        if start == "[":
            return self.array(key, depth)
        if start == '"':
            return self.string()
        return self.scalar()

    def object(self, key: Key, depth: int) -> Json:
        self.at += 1
        members: dict[str, Json] = {}
        while not self.take("}"):
            if members:
                self.expect(",", "a comma or }")
                if self.take("}"):
                    break
            self.skip()
            line = self.line_here()
            name = self.string()
            member = (*key, name)
            self.out.lines[member] = line
            if name in members:
                raise self.out.error(member, f"{dotted(member)} is given twice", "remove one")
            self.expect(":", "a colon")
            members[name] = self.element(member, depth + 1)
        return members

    def array(self, key: Key, depth: int) -> Json:
        self.at += 1
        elements: list[Json] = []
        while not self.take("]"):
            if elements:
                self.expect(",", "a comma or ]")
                if self.take("]"):
                    break
            elements.append(self.element((*key, len(elements)), depth + 1))
        return elements

    def string(self) -> str:
        match = _STRING.match(self.text, self.at)
        if match is None:
            raise self.unexpected('a string in "quotes"')
        try:
            text: str = json.loads(match.group())
        except ValueError:
            raise self.unexpected("a string with valid escapes") from None
        self.at = match.end()
        return text

    def scalar(self) -> Json:
        match = _NUMBER.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            number: int | float = json.loads(match.group())
            return number
        for word, value in _WORDS.items():
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return value
        raise self.unexpected("a value")

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def take(self, token: str) -> bool:
        self.skip()
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def expect(self, token: str, wanted: str) -> None:
        if not self.take(token):
            raise self.unexpected(wanted)

    def line_here(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    def unexpected(self, wanted: str) -> ConfigError:
        rest = self.text[self.at :].split("\n", 1)[0].strip()[:20]
        got = f'"{rest}"' if rest else "the end of the line"
        if self.at >= len(self.text):
            got = "the end of the file"
        return ConfigError(
            f"{self.out.name}:{self.line_here()}: found {got}; expected {wanted}",
            hint="the file is JSON; // and /* */ comments are allowed",
        )


def dotted(key: Key) -> str:
    """``mount[0].options.MAC`` for a path of keys."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text

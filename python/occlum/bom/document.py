"""A BOM file and all it includes: `read` gives checked `Bom` objects, included ones first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from occlum.bom import TEMPLATES, BomError, Exit
from occlum.config.document import ConfigError, Document, Key, dotted
from occlum.config.validate import validate
from occlum.config.values import refuse
from occlum.config.yaml import parse_yaml

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def _list(value: Any) -> Any:
    return () if value is None else value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise refuse("a name", "" if isinstance(value, str) else "write it in quotes")
    return value


def _target(value: Any) -> str:
    path = _text(value)
    if not path.startswith("/"):
        raise refuse("an absolute path in the image", f"write /{path}")
    if ".." in path.split("/"):
        raise refuse("a path without ..")
    return os.path.normpath(path)


def _inside(value: Any) -> str:
    path = _text(value)
    if ".." in path.split("/"):
        raise refuse("a path without ..")
    return path


def _hash(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise refuse("64 hexadecimal digits of a SHA-256", "sha256sum FILE prints them; quote them")
    return value.lower()


def _file(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_text)]
Inside = Annotated[str, BeforeValidator(_inside)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Part):
    name: Text
    hash: Annotated[str, BeforeValidator(_hash)] | None = None
    autodep: Annotated[bool, Field(strict=True)] = True
    rename: Inside | None = None


class Copy(_Part):
    source: Annotated[Text, Field(alias="from")] = "."
    dirs: Annotated[tuple[Text, ...], BeforeValidator(_list)] = ()
    files: Annotated[
        tuple[Annotated[File, BeforeValidator(_file)], ...], BeforeValidator(_list)
    ] = ()


class Link(_Part):
    src: Text
    linkname: Inside


class Target(_Part):
    target: Annotated[str, BeforeValidator(_target)]
    mkdirs: Annotated[tuple[Inside, ...], BeforeValidator(_list)] = ()
    createlinks: Annotated[tuple[Link, ...], BeforeValidator(_list)] = ()
    copies: Annotated[tuple[Copy, ...], Field(alias="copy"), BeforeValidator(_list)] = ()


class Content(_Part):
    """What the file says."""

    includes: Annotated[tuple[Text, ...], BeforeValidator(_list)] = ()
    excludes: Annotated[tuple[Text, ...], BeforeValidator(_list)] = ()
    targets: Annotated[tuple[Target, ...], BeforeValidator(_list)] = ()


@dataclass(frozen=True)
class Bom:
    """One file. ``at`` gives "NAME:LINE" of a value in it."""

    path: Path
    content: Content
    document: Document

    def at(self, *key: str | int) -> str:
        return f"{self.document.name}:{self.document.line(key)}"


def read(path: Path, include_directories: tuple[Path, ...] = ()) -> list[Bom]:
    """The BOM and what it includes, each once, included files before those that include them."""
    if not path.is_file():
        raise BomError(f"{path} is not there", exit_status=Exit.MISSING_FILE, code="bom-missing")
    found: dict[Path, Bom] = {}
    _read(path, include_directories, found, ())
    return list(found.values())


def _read(
    path: Path, directories: tuple[Path, ...], found: dict[Path, Bom], parents: tuple[Path, ...]
) -> None:
    real = path.resolve()
    if real in found:
        return
    bom = _parse(path)
    for index, name in enumerate(bom.content.includes):
        included = _find(bom, index, name, (path.parent, *directories, TEMPLATES))
        if included.resolve() in (*parents, real):
            raise _bad(f"{bom.at('includes', index)}: {name} includes itself, by way of {path}")
        _read(included, directories, found, (*parents, real))
    found[real] = bom


def _find(bom: Bom, index: int, name: str, directories: tuple[Path, ...]) -> Path:
    for directory in directories:
        if (directory / name).is_file():
            return directory / name
    raise BomError(
        f"{bom.at('includes', index)}: {name} is in none of "
        + ", ".join(map(str, dict.fromkeys(directories))),
        hint="--include-dir names a directory to look in",
        exit_status=Exit.MISSING_FILE,
        code="bom-missing",
    )


def _parse(path: Path) -> Bom:
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"), path.name)
        document.value = {} if document.value is None else document.value
        document.value = _expand(document, (), document.value, path)
        return Bom(path, validate(Content, document, "docs/bom.md has an example"), document)
    except ConfigError as problem:
        raise _as_bom_error(problem) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise _bad(f"{path} can't be read: {problem}") from None


def _expand(document: Document, key: Key, value: Any, path: Path) -> Any:
    """The value with ``$NAME`` and ``${NAME}`` replaced in every string."""
    if isinstance(value, dict):
        return {name: _expand(document, (*key, name), v, path) for name, v in value.items()}
    if isinstance(value, list):
        return [_expand(document, (*key, n), each, path) for n, each in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name == "BOM_DIR":
            return str(path.resolve().parent)
        if not os.environ.get(name):
            what = f"{dotted(key)} needs the environment variable {name}, which is not set"
            raise document.error(key, what, f"export {name}=...")
        return os.environ[name]

    return _VARIABLE.sub(replace, value)


def _bad(what: str) -> BomError:
    return BomError(what, exit_status=Exit.BAD_BOM, code="bom-invalid")


def _as_bom_error(problem: ConfigError) -> BomError:
    def convert(each: ConfigError) -> BomError:
        hint = each.hint
        return BomError(str(each), hint=hint, exit_status=Exit.BAD_BOM, code="bom-invalid")

    error = convert(problem)
    error.also = tuple(convert(each) for each in problem.also if isinstance(each, ConfigError))
    return error


def targets(boms: list[Bom]) -> Iterator[tuple[Bom, int, Target]]:
    """Every target with its file and number."""
    for bom in boms:
        for number, target in enumerate(bom.content.targets):
            yield bom, number, target

"""A parsed document against a pydantic model: every problem at once, with file, line and key."""

from __future__ import annotations

import difflib
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from occlum.config.document import ConfigError, Document, Key, dotted

Model = TypeVar("Model", bound=BaseModel)

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


def validate(model: type[Model], document: Document, example: str) -> Model:
    """The document as the model; raises `ConfigError`. ``example``: where a good one is found."""
    if not isinstance(document.value, dict):
        raise document.error((), "the file holds no object", example)
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        items = [_explain(model, document, dict(item), example) for item in error.errors()]
        raise joined(items) from None


def joined(errors: list[ConfigError]) -> ConfigError:
    """One error that carries the others."""
    first = errors[0]
    first.also = tuple(errors[1:])
    return first


def _explain(
    model: type[BaseModel], document: Document, item: dict[str, Any], example: str
) -> ConfigError:
    key: Key = tuple(item["loc"])
    name = dotted(key)
    context = item.get("ctx", {})
    match item["type"]:
        case "extra_forbidden":
            return document.error(key, f"{name} is not a known key", _nearest(model, key))
        case "missing":
            return document.error(key[:-1], f"{name} is missing", example)
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


def _nearest(root: type[BaseModel], key: Key) -> str | None:
    """A known key that resembles the unknown one."""
    known = known_keys(root, key[:-1])
    matches = difflib.get_close_matches(str(key[-1]), known, n=1)
    if matches:
        return f'did you mean "{matches[0]}"?'
    return f"known here: {', '.join(known)}" if known else None


def known_keys(model: type[BaseModel], parents: Key) -> list[str]:
    """The keys that may stand at a path of the model; none if the path leads nowhere."""
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

"""The JSON Schema of ``Occlum.json``, from the models; editors check and complete with it.

``python/occlum/config/schema.json`` ships it, and a test says when it is out of date.
"""

from __future__ import annotations

from typing import Any

from occlum.config.model import Config


def schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Occlum.json",
        **_without_titles(Config.model_json_schema(mode="serialization")),
    }


def _without_titles(node: Any) -> Any:
    """The same without the titles that only repeat a key."""
    if isinstance(node, list):
        return [_without_titles(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _without_titles(value)
        for key, value in node.items()
        if key != "title" or not isinstance(value, str)
    }

"""`occlum config`: one value changed in place, the schema, and YAML beside JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occlum import config
from occlum.config import ConfigError, edit
from occlum.config.document import parse, parse_named
from occlum.config.yaml import parse_yaml

DEFAULT = config.default_text()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resource_limits.user_space_size", "2GB"),
        ("resource_limits.user_space_max_size", "8GB"),
        ("env.untrusted", ["A", "B"]),
        ("mount[1].options.disk_size", "1GB"),
        ("mount[1].type", "hostfs"),
        ("metadata.family_id", {"high": "0x1", "low": "0x2"}),
    ],
)
def test_setting_changes_that_value_and_no_comment(key, value):
    parsed = edit.parse_key(key)
    text = edit.set_json(DEFAULT, "Occlum.json", parsed, value)
    before, after = parse(DEFAULT, "x"), parse(text, "x")
    assert edit.get(after, parsed) == value
    for comment in (line for line in DEFAULT.splitlines() if "//" in line):
        assert comment in text
    same = [k for k in before.spans if k[:1] != parsed[:1]]
    for other in (k for k in same if k):
        assert edit.get(before, other) == edit.get(after, other)


@pytest.mark.parametrize("text", ["{}", "{ }", '{"a": 1}', '{"a": 1,}', '{\n "a": 1, // c\n}'])
def test_a_member_is_added_to_any_object(text):
    after = parse(edit.set_json(text, "x", ("b", "c"), [1, 2]), "x").value
    assert isinstance(after, dict)
    assert after["b"] == {"c": [1, 2]}


@pytest.mark.parametrize("key", ["", "a..b", "a[", "a[x]", "[", "."])
def test_a_broken_key_is_refused_or_means_the_whole(key):
    if key == "":
        assert edit.parse_key(key) == ()
        return
    with pytest.raises(ConfigError):
        edit.parse_key(key)


def test_yaml_is_set_where_the_value_is_on_one_line():
    text = "# memory\nresource_limits:\n  user_space_size: 1GB  # enough\nentry_points: [/bin]\n"
    key = ("resource_limits", "user_space_size")
    assert edit.set_text(text, "Occlum.yaml", key, "2GB") == text.replace("1GB", '"2GB"')
    with pytest.raises(ConfigError, match="is not there"):
        edit.set_text(text, "Occlum.yaml", ("process", "default_stack_size"), "1MB")


def test_yaml_means_the_same_as_json_and_keeps_lines(tmp_path: Path):
    import yaml

    path = tmp_path / "Occlum.yaml"
    path.write_text(yaml.safe_dump(parse(DEFAULT, "x").value, sort_keys=False))
    (tmp_path / "Occlum.json").write_text(DEFAULT)
    assert config.load(path) == config.load(tmp_path / "Occlum.json")
    path.write_text(path.read_text().replace("user_space_size: 4GB", "user_space_size: 12Q"))
    with pytest.raises(ConfigError, match=r'^Occlum.yaml:2: .*is "12Q"; expected a number'):
        config.load(path)


def test_the_shipped_schema_is_that_of_the_models():
    shipped = Path(config.__file__).with_name("schema.json").read_text()
    hint = "occlum config schema > python/occlum/config/schema.json"
    assert shipped == config.schema_text(), hint


def test_the_schema_knows_every_key_of_the_default_file():
    schema = json.loads(config.schema_text())
    assert schema["additionalProperties"] is False
    assert set(parse(DEFAULT, "x").value) <= set(schema["properties"])  # type: ignore[arg-type]
    size = schema["$defs"]["ResourceLimits"]["properties"]["user_space_size"]
    assert size["type"] == "string"
    assert size["default"] == "4GB"
    assert "description" in size


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), values, max_size=4), values)
def test_what_is_set_is_what_is_read(document, value):
    for key in [("a",), ("new", "er")]:
        if len(key) == 2 and not isinstance(document.get("new", {}), dict):
            continue
        text = edit.set_json(json.dumps(document), "x", key, value)
        assert edit.get(parse(text, "x"), key) == value


@given(st.text(max_size=200))
def test_no_text_makes_the_readers_fail_otherwise_than_by_their_error(text):
    for name in ("x.json", "x.yaml"):
        try:
            parse_named(text, name)
        except ConfigError as problem:
            assert str(problem).startswith(f"{name}:")


@given(st.binary(max_size=200))
def test_yaml_of_any_bytes(data):
    try:
        parse_yaml(data.decode("latin-1"), "x")
    except ConfigError as problem:
        assert str(problem).startswith("x:")

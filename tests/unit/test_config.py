"""Occlum.json: what is accepted, and how what is not is explained."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occlum import _core, config
from occlum.config import ConfigError, CpuMode, check, default_text, parse, to_boot_json

NAME = "Occlum.json"


def refused(old: str, new: str) -> ConfigError:
    """The error for the default configuration with one text replaced."""
    text = default_text()
    assert old in text
    with pytest.raises(ConfigError) as caught:
        check(parse(text.replace(old, new, 1), NAME))
    return caught.value


def line_of(text: str) -> int:
    before, found, _ = default_text().partition(text)
    assert found
    return before.count("\n") + 1


def test_default_configuration_is_accepted_and_suits_real_programs():
    settings = check(parse(default_text(), NAME))
    assert "/usr/bin" in settings.entry_points
    assert settings.resource_limits.user_space_limit >= 1 << 30
    assert settings.metadata.debuggable


def test_published_example_with_every_field_is_accepted():
    text = """
    { "resource_limits": { "user_space_size": "256MB", "user_space_max_size": "1GB",
        "kernel_space_heap_size": "32MB", "kernel_space_heap_max_size": "64MB",
        "kernel_space_stack_size": "1MB", "init_num_of_threads": 16, "max_num_of_threads": 32 },
      "process": { "default_stack_size": "4MB", "default_heap_size": "16MB",
        "default_mmap_size": "32MB" },
      "entry_points": ["/bin"],
      "env": { "default": ["OCCLUM=yes"], "untrusted": ["EXAMPLE"] },
      "metadata": { "product_id": 0, "version_number": 0, "debuggable": true,
        "disable_log": false, "enable_kss": false, "family_id": {"high": "0x0", "low": "0x0"},
        "ext_prod_id": {"high": "0x0", "low": "0x0"}, "pkru": 0 },
      "feature": { "amx": 0, "pkru": 2, "io_uring": 0, "enable_edmm": false,
        "enable_posix_shm": false },
      "mount": [ { "target": "/", "type": "unionfs", "options": { "layers": [
          { "target": "/", "type": "sefs", "source": "./build/mount/__ROOT",
            "options": { "MAC": "" } },
          { "target": "/", "type": "sefs", "source": "./run/mount/__ROOT" } ] } },
        { "target": "/host", "type": "hostfs", "source": "." },
        { "target": "/proc", "type": "procfs" }, { "target": "/dev", "type": "devfs" } ] }
    """
    settings = check(parse(text, NAME))
    assert settings.resource_limits.user_space_limit == 1 << 30
    assert settings.mount[0].options.layers[0].options.mac == ""


@pytest.mark.parametrize(
    ("old", "new", "says", "hint"),
    [
        (
            '"4GB"',
            '"12Q"',
            'resource_limits.user_space_size is "12Q"; expected a number with B, KB, MB, GB or TB',
            'write "12GB"',
        ),
        ('"4GB"', "4096", "resource_limits.user_space_size is 4096; expected a number", "4096GB"),
        ('"4GB"', '"1KB"', "resource_limits.user_space_size is 1KB; expected at least 16MB", None),
        ('"256KB"', '"5000B"', "kernel_space_stack_size is 5000B; expected whole pages", "256KB"),
        (
            "user_space_size",
            "user_spce_size",
            "user_spce_size is not a known key",
            'did you mean "user_space_size"?',
        ),
        ('"/bin"', '"bin"', 'entry_points[0] is "bin"; expected an absolute path', 'write "/bin"'),
        ('"/bin"', '"/bin/../etc"', "expected a path without . and ..", None),
        ('"OCCLUM=yes"', '"OCCLUM"', 'env.default[2] is "OCCLUM"; expected NAME=value', None),
        ('"EXAMPLE"', '"A=b"', 'env.untrusted[1] is "A=b"; expected the name', None),
        ('"product_id": 0', '"product_id": 65536', "metadata.product_id is 65536; expected", None),
        (
            '"debuggable": true',
            '"debuggable": 1',
            "metadata.debuggable is 1; expected true or false",
            None,
        ),
        (
            '"family_id": { "high": "0x0"',
            '"family_id": { "high": "0xfg"',
            "expected a 64-bit",
            None,
        ),
        (
            '"family_id": { "high": "0x0"',
            '"family_id": { "high": "0x1"',
            "key separation is off",
            "enable_kss",
        ),
        ('"amx": 0', '"amx": 1', "feature.amx is 1 (required)", "write 2"),
        ('"unionfs"', '"ramfs"', "mount[0].type is ramfs; expected unionfs or sefs", None),
        ('"hostfs"', '"nfs"', 'mount[2].type is "nfs"; expected unionfs, sefs', None),
        ('"source": "."', '"source": ""', "mount[2] is hostfs without a source", '"."'),
        ('"/tmp", "type": "ramfs"', '"/proc", "type": "ramfs"', "/proc is always procfs", None),
        ('"/tmp", "type": "ramfs"', '"/x", "type": "devfs"', "is devfs on /x; expected /dev", None),
        ('"/tmp"', '"/host"', "/host is mounted twice", None),
        (
            '"MAC"',
            '"MC"',
            "mount[0].options.layers[0].options.MC is not a known key",
            'did you mean "MAC"?',
        ),
        (
            '"max_num_of_threads": 16384',
            '"max_num_of_threads": 4',
            "is above max_num_of_threads",
            None,
        ),
    ],
)
def test_a_wrong_value_is_explained(old, new, says, hint):
    error = refused(old, new)
    problems = [error, *error.also]
    assert any(says in str(problem) for problem in problems), [str(p) for p in problems]
    if hint is not None:
        assert any(hint in (problem.hint or "") for problem in problems)


def test_the_line_is_that_of_the_value():
    error = refused('"4GB"', '"12Q"')
    assert str(error).startswith(f"{NAME}:{line_of('user_space_size')}: ")
    error = refused('"target": "/host"', '"target": "host"')
    assert str(error).startswith(f"{NAME}:{line_of('hostfs')}: ")


def test_every_problem_of_a_file_is_reported():
    text = default_text().replace('"4GB"', '"x"').replace('"1GB"', '"y"')
    with pytest.raises(ConfigError) as caught:
        check(parse(text, NAME))
    assert len(caught.value.also) == 1


def test_a_missing_root_mount_is_an_error():
    settings = json.loads(re.sub(r"//.*", "", default_text()))
    del settings["mount"][0]
    with pytest.raises(ConfigError, match="no entry for the target /"):
        check(parse(json.dumps(settings), NAME))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1,\n "a": 2}', "Occlum.json:2: a is given twice"),
        ('{"a": 1\n "b": 2}', 'Occlum.json:2: found ""b": 2}"; expected a comma or }'),
        ('{"a": [1, 2', "Occlum.json:1: found the end of the file; expected a comma or ]"),
        ("{'a': 1}", "expected a string"),
        ("[" * 100, "at most 64 levels"),
        ('{"a": "\x01"}', "expected a string"),
        ("{} x", "expected the end of the file"),
    ],
)
def test_broken_json_is_explained(text, says):
    with pytest.raises(ConfigError) as caught:
        parse(text, NAME)
    assert says in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_all_json_is_read_as_the_standard_library_reads_it(value):
    text = json.dumps(value, indent=1)
    assert parse(text, NAME).value == json.loads(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        check(parse(text, NAME))
    except ConfigError as error:
        assert str(error).startswith(f"{NAME}:")


def test_boot_configuration_is_what_the_kernel_reads():
    settings = check(parse(default_text(), NAME))
    boot = json.loads(to_boot_json(settings, CpuMode.SIMULATION, bytes(range(32))))
    assert [mount["target"] for mount in boot["mounts"]] == ["/", "/dev", "/host", "/proc", "/tmp"]
    assert boot["image_root"] == list(range(32))
    encoded = _core.encode_boot_config(json.dumps(boot))
    assert int.from_bytes(encoded[:8], "little") == len(encoded) - 8


def test_a_missing_file_names_the_directory(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        config.load(tmp_path / "Occlum.json")


def mounts(*mounts: object) -> str:
    root = {"target": "/", "type": "sefs"}
    return json.dumps({"entry_points": ["/bin"], "mount": [root, *mounts]})


def test_stores_reach_the_kernel_with_their_options():
    layer = {"target": "/", "type": "sefs", "source": "./build/mount/x"}
    text = mounts(
        {"target": "/a", "type": "sefs", "source": "run/a", "options": {"disk_size": "1GB"}},
        {"target": "/b", "type": "sefs", "options": {"temporary": True, "cache_size": "1MB"}},
        {
            "target": "/c",
            "type": "unionfs",
            "options": {
                "layers": [layer, {**layer, "source": "run/c", "options": {"autokey_policy": 1}}]
            },
        },
    )
    settings = check(parse(text, NAME))
    assert [store.source for store in config.stores(settings)] == ["run/a", "run/c"]
    boot = json.loads(to_boot_json(settings, CpuMode.SIMULATION, bytes(32)))
    kinds = {mount["target"]: mount["kind"] for mount in boot["mounts"]}
    store = {"policy": "Mrsigner", "size_limit": 0, "is_read_only": False, "pin": ""}
    assert kinds["/"] == "Root"
    assert kinds["/a"] == {"Store": {"store": {**store, "source": "run/a", "size_limit": 1 << 30}}}
    assert kinds["/b"] == {"Ramfs": {"size_limit": 0}}
    assert kinds["/c"] == {"Union": {"store": {**store, "source": "run/c", "policy": "Mrenclave"}}}
    assert boot["page_cache_size"] == 1 << 20
    _core.encode_boot_config(json.dumps(boot))


@pytest.mark.parametrize(
    ("mount", "says"),
    [
        ({"type": "sefs"}, "mount[1] is a store without a source"),
        ({"type": "sefs", "source": "x", "options": {"MAC": "12"}}, "is not 80 hexadecimal digits"),
        ({"type": "sefs", "source": "x", "options": {"disk_size": "1MB"}}, "expected at least 8"),
        ({"type": "ext2", "source": "x"}, "this version can't mount disk images"),
        ({"type": "hostfs", "source": "x", "options": {"layers": []}}, "only fits unionfs"),
        ({"type": "unionfs"}, "mount[1].options.layers has 0 entries"),
    ],
)
def test_stores_that_can_not_be_are_refused(mount: dict[str, object], says: str):
    with pytest.raises(ConfigError, match=re.escape(says)):
        check(parse(mounts({"target": "/x", **mount}), NAME))

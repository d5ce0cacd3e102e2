"""Container images: what layers do to each other, what is refused, what any bytes can't do."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from occlum.errors import Error
from occlum.image import skeleton
from occlum.instance import Instance
from occlum.oci import OciError
from occlum.oci.importing import import_image
from occlum.oci.layers import Root

Member = tuple[str, str, Any]
"""(kind, name, content or link target)."""

SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

KINDS = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE,
         "device": tarfile.CHRTYPE, "fifo": tarfile.FIFOTYPE}  # fmt: skip


def layer(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for kind, name, what in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if kind == "file":
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
                continue
            info.type = KINDS[kind]
            info.linkname = what or ""
            tar.addfile(info)
    return out.getvalue()


def apply(root: Path, *layers: bytes) -> Root:
    root.mkdir(exist_ok=True)
    tree = Root(root)
    for data in layers:
        tree.apply(io.BytesIO(data))
    tree.finish()
    return tree


def content(root: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def test_later_layers_replace_remove_and_empty(tmp_path: Path):
    lower = layer(
        ("dir", "etc", None), ("file", "etc/a", b"1"), ("file", "etc/b", b"1"),
        ("dir", "var", None), ("dir", "var/sub", None), ("file", "var/sub/x", b"1"),
        ("file", "swap", b"1"), ("dir", "tree", None), ("file", "tree/leaf", b"1"),
    )  # fmt: skip
    upper = layer(
        ("file", "etc/a", b"2"), ("file", "etc/.wh.b", b""),
        ("dir", "var", None), ("dir", "var/sub", None), ("file", "var/sub/y", b"2"),
        ("file", "var/.wh..wh..opq", b""), ("dir", "swap", None), ("file", "swap/in", b"2"),
        ("file", "tree", b"2"),
    )  # fmt: skip
    apply(tmp_path / "r", lower, upper)
    assert content(tmp_path / "r") == {
        "etc/a": b"2", "var/sub/y": b"2", "swap/in": b"2", "tree": b"2"}  # fmt: skip


def test_a_whiteout_before_or_after_its_replacement_means_the_same(tmp_path: Path):
    lower = layer(("dir", "d", None), ("file", "d/old", b"1"))
    new = [("dir", "d", None), ("file", "d/new", b"2"), ("file", ".wh.d", b"")]
    for number, order in enumerate((new, new[::-1], [new[0], new[2], new[1]])):
        root = tmp_path / str(number)
        apply(root, lower, layer(*order))
        assert "d/old" not in content(root)
        assert content(root).get("d/new") == b"2"


def test_hard_links_links_modes_and_devices(tmp_path: Path):
    tree = apply(
        tmp_path / "r",
        layer(("file", "a", b"x"), ("hard", "b", "a"), ("link", "c", "/a"), ("device", "d", None)),
    )
    root = tmp_path / "r"
    assert (root / "a").stat().st_ino == (root / "b").stat().st_ino
    assert os.readlink(root / "c") == "/a"
    assert (root / "a").stat().st_mode & 0o777 == 0o755
    assert tree.left_out == {"device": 1}


ATTACKS: dict[str, tuple[Member, ...]] = {
    "a name that climbs": (("file", "../evil", b"x"),),
    "a name that climbs later": (("file", "a/../../evil", b"x"),),
    "a hard link outside": (("hard", "a", "../outside"),),
    "a hard link to a directory": (("dir", "d", None), ("hard", "a", "d")),
    "a hard link to the root": (("hard", "a", "."),),
    "a whiteout of the parent": (("file", ".wh...", b""),),
    "a whiteout of itself": (("dir", "d", None), ("file", "d/.wh..", b"")),
    "a loop of links": (("link", "a", "b"), ("link", "b", "a"), ("file", "a/x", b"")),
}  # fmt: skip


@pytest.mark.parametrize("what", ATTACKS)
def test_attacks_are_refused(tmp_path: Path, what: str):
    (tmp_path / "outside").write_text("secret")
    before = content(tmp_path)
    with pytest.raises(OciError):
        apply(tmp_path / "r", layer(*ATTACKS[what]))
    after = {k: v for k, v in content(tmp_path).items() if not k.startswith("r/")}
    assert after == before


def test_links_out_of_the_image_stay_inside(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    apply(
        tmp_path / "r",
        layer(
            ("link", "abs", str(outside)), ("link", "up", "../../../" + str(outside)[1:]),
            ("file", "abs/evil", b"x"), ("file", "up/evil2", b"x"), ("file", "abs/.wh.kept", b""),
        ),
    )  # fmt: skip
    assert content(outside) == {"kept": b"kept"}
    inside = tmp_path / "r" / str(outside)[1:]
    assert set(content(inside)) == {"evil", "evil2"}


def test_a_hard_link_through_a_link_stays_inside(tmp_path: Path):
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(OciError):
        apply(tmp_path / "r", layer(("link", "l", str(tmp_path)), ("hard", "a", "l/secret")))


names = st.lists(
    st.sampled_from(["a", "b", "c", "..", ".", "", ".wh.a", ".wh..wh..opq", ".wh.", ".wh..."]),
    min_size=1, max_size=4,
).map("/".join)  # fmt: skip
members = st.tuples(st.sampled_from(["file", *KINDS]), names, names | st.just("/a/../../x"))


@settings(SETTINGS, max_examples=150)
@given(st.lists(st.lists(members, max_size=6), max_size=3))
def test_no_layers_reach_out_of_the_root(tmp_path: Path, layers: list[list[Member]]):
    base = tmp_path / "box"
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    (base / "x").write_text("outside")
    encoded = [
        layer(*((k, n, w.encode() if k == "file" else w) for k, n, w in each)) for each in layers
    ]
    with contextlib.suppress(OciError):
        apply(base / "r", *encoded)
    assert [path.name for path in sorted(base.iterdir()) if path.name != "r"] == ["x"]
    assert (base / "x").read_text() == "outside"
    assert (base / "x").stat().st_nlink == 1


@settings(SETTINGS, max_examples=100)
@given(st.binary(max_size=1500), st.integers(0, 1023))
def test_a_damaged_layer_is_an_error_of_ours(tmp_path: Path, noise: bytes, at: int):
    good = bytearray(layer(("file", "a", b"x" * 100), ("link", "b", "a")))
    good[at : at + len(noise)] = noise
    root = tmp_path / "r"
    shutil.rmtree(root, ignore_errors=True)
    with contextlib.suppress(OciError):
        apply(root, bytes(good))


def save(path: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    (path / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (path / "blobs/sha256" / digest).write_bytes(data)
    return f"sha256:{digest}"


def layout(path: Path, *layers: bytes, config: dict[str, Any] | None = None) -> Path:
    """An OCI layout with gzip layers."""
    document = {
        "config": config or {},
        "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]},
    }
    manifest = {
        "config": {"digest": save(path, json.dumps(document).encode())},
        "layers": [{"digest": save(path, gzip.compress(each))} for each in layers],
    }
    index = {"manifests": [{"digest": save(path, json.dumps(manifest).encode())}]}
    (path / "index.json").write_text(json.dumps(index))
    return path


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return skeleton.create(tmp_path / "instance", new=True)


def bring(instance: Instance, source: Path, **options: Any) -> Any:
    return import_image(
        instance, source, options.get("reference"), lambda *_: None, options.get("replace", False)
    )


BIN = layer(("dir", "usr/bin", None), ("file", "usr/bin/app", b"#!"), ("link", "bin", "usr/bin"))


def test_settings_of_the_image_reach_the_configuration(instance: Instance, tmp_path: Path):
    source = layout(
        tmp_path / "oci", BIN,
        config={"Entrypoint": ["app"], "Cmd": ["-x"], "Env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
                "WorkingDir": "/srv", "User": "www"},
    )  # fmt: skip
    done = bring(instance, source)
    assert done.command == ("/usr/bin/app", "-x")
    assert any("/srv" in note for note in done.notes)
    from occlum import config

    env = config.load(instance.config).env.default
    assert {"PATH=/usr/bin", "LANG=C.UTF-8", "OCCLUM=yes"} <= set(env)
    assert (instance.image / "proc").is_dir()
    assert "//" in instance.config.read_text()


def test_an_image_in_use_is_only_replaced_when_asked(instance: Instance, tmp_path: Path):
    (instance.image / "opt/mine").write_text("mine")
    source = layout(tmp_path / "oci", BIN)
    with pytest.raises(OciError, match="did not put there"):
        bring(instance, source)
    assert (instance.image / "opt/mine").exists()
    bring(instance, source, replace=True)
    assert not (instance.image / "opt/mine").exists()


Change = Callable[[Path], None]


def damage_layer(path: Path) -> None:
    blob = max((path / "blobs/sha256").iterdir(), key=lambda each: each.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[-9] ^= 1
    blob.write_bytes(data)


def damage_manifest(path: Path) -> None:
    for blob in (path / "blobs/sha256").iterdir():
        if b'"layers"' in blob.read_bytes():
            blob.write_bytes(blob.read_bytes() + b" ")


def cut_index(path: Path) -> None:
    (path / "index.json").write_text('{"manifests": [')


def point_outside(path: Path) -> None:
    (path / "index.json").write_text('{"manifests": [{"digest": "sha256:../../etc/passwd"}]}')


def link_blob(path: Path) -> None:
    for blob in (path / "blobs/sha256").iterdir():
        blob.unlink()
        blob.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    "change", [damage_layer, damage_manifest, cut_index, point_outside, link_blob]
)
def test_a_changed_image_is_refused_and_changes_nothing(instance, tmp_path, change: Change):
    source = layout(tmp_path / "oci", BIN)
    change(source)
    before = content(instance.root)
    with pytest.raises(OciError):
        bring(instance, source)
    assert content(instance.root) == before


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.just("sha256:" + "0" * 64),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["manifests", "config", "layers", "digest", "rootfs", "diff_ids", "Config",
                         "Layers", "RepoTags", "annotations", "platform"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(SETTINGS, max_examples=100)
@given(json_values, st.sampled_from(["index.json", "manifest.json"]))
def test_any_index_is_an_error_of_ours(tmp_path: Path, value: Any, name: str):
    from occlum.oci.archive import find
    from occlum.oci.blobs import open_blobs

    directory = tmp_path / "layout"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / name).write_text(json.dumps(value))
    with pytest.raises(Error):
        find(open_blobs(directory), None)


needs_tools = pytest.mark.skipif(
    not (shutil.which("umoci") and shutil.which("skopeo")), reason="umoci or skopeo is missing"
)


@needs_tools
@pytest.mark.parametrize("form", ["directory", "oci-archive", "docker-archive", "zstd"])
def test_images_that_umoci_and_skopeo_write(instance: Instance, tmp_path: Path, form: str):
    if form == "zstd" and shutil.which("zstd") is None:
        pytest.skip("zstd is missing")
    source = umoci_image(tmp_path)
    target = {"directory": source, "zstd": tmp_path / "z"}.get(form, tmp_path / f"{form}.tar")
    if form == "zstd":
        copy = ["--dest-compress-format", "zstd", "--dest-compress", f"oci:{source}:app",
                f"oci:{target}:app"]  # fmt: skip
        skopeo("copy", *copy)
    elif form != "directory":
        skopeo("copy", f"oci:{source}:app", f"{form}:{target}:example/app:1")
    done = bring(instance, target)
    assert done.command == ("/usr/bin/app", "--serve")
    root = instance.image
    assert (root / "usr/bin/app").read_bytes() == b"#!second"
    assert not (root / "opt/gone").exists()
    assert (root / "opt/one").stat().st_ino == (root / "opt/two").stat().st_ino


def skopeo(*arguments: str) -> None:
    policy = ["--insecure-policy"]
    subprocess.run(["skopeo", *policy, *arguments], check=True, capture_output=True)


def umoci_image(tmp_path: Path) -> Path:
    """An image of two layers, made by umoci."""
    source, bundle = tmp_path / "umoci", tmp_path / "bundle"

    def umoci(*arguments: str) -> None:
        rootless = ["--rootless"] if os.geteuid() != 0 and arguments[0] == "unpack" else []
        subprocess.run(["umoci", *arguments, *rootless], check=True, capture_output=True)

    umoci("init", "--layout", str(source))
    umoci("new", "--image", f"{source}:app")
    umoci("unpack", "--image", f"{source}:app", str(bundle))
    root = bundle / "rootfs"
    (root / "usr/bin").mkdir(parents=True)
    (root / "opt").mkdir()
    (root / "usr/bin/app").write_bytes(b"#!first")
    (root / "opt/gone").write_text("gone")
    (root / "opt/one").write_text("linked")
    os.link(root / "opt/one", root / "opt/two")
    umoci("repack", "--image", f"{source}:app", str(bundle))
    shutil.rmtree(bundle)
    umoci("unpack", "--image", f"{source}:app", str(bundle))
    (root / "usr/bin/app").write_bytes(b"#!second")
    (root / "opt/gone").unlink()
    umoci("repack", "--image", f"{source}:app", str(bundle))
    umoci("config", "--image", f"{source}:app", "--config.entrypoint", "/usr/bin/app",
          "--config.cmd", "--serve", "--config.env", "LANG=C.UTF-8")  # fmt: skip
    return source

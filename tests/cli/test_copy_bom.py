"""`copy_bom`: a tree brought to what a BOM says, and how each kind of failure ends."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import OCCLUM

CopyBom = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def copy_bom(tmp_path: Path) -> CopyBom:
    """Runs ``copy_bom`` on the text of a BOM, in a directory with a few files."""
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "data/.git").mkdir()
    for name in ("one.txt", "two.txt", "data/three.txt", "data/deep/four.txt", "data/.git/five"):
        (tmp_path / name).write_text(name)

    def run(text: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "bom.yaml").write_text(text)
        return subprocess.run(
            [OCCLUM.with_name("copy_bom"), "-f", "bom.yaml", "--root", "image", *options],
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


EVERYTHING = """
includes:
  - base.yaml
excludes: [.git]
targets:
  - target: /opt/demo
    mkdirs: [empty, deep/er]
    createlinks:
      - {src: ../demo/one.txt, linkname: link}
    copy:
      - from: .
        dirs: [data]
        files:
          - one.txt
          - name: two.txt
            hash: SHA256
            autodep: false
            rename: zwei.txt
  - target: /contents
    copy:
      - dirs: [data/]
""".replace("SHA256", hashlib.sha256(b"two.txt").hexdigest().upper())


def test_every_key_of_the_schema_does_what_it_says(copy_bom: CopyBom, tmp_path: Path):
    done = copy_bom(EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    demo = tmp_path / "image/opt/demo"
    expected = {"one.txt", "zwei.txt", "link", "data/three.txt", "data/deep/four.txt"}
    assert names(demo) == expected
    assert (demo / "empty").is_dir()
    assert (demo / "deep/er").is_dir()
    assert os.readlink(demo / "link") == "../demo/one.txt"
    assert names(tmp_path / "image/contents") == {"three.txt", "deep/four.txt"}
    assert (tmp_path / "image/etc/passwd").is_file()
    assert os.readlink(tmp_path / "image/bin") == "usr/bin"


def test_a_copy_without_dirs_and_files_copies_the_whole_source(copy_bom: CopyBom, tmp_path: Path):
    assert copy_bom("targets: [{target: /d, copy: [{from: data}]}]").returncode == 0
    assert names(tmp_path / "image/d") == {"three.txt", "deep/four.txt", ".git/five"}


def test_the_second_time_copies_nothing_and_reports_what_is_stale(copy_bom, tmp_path):
    assert copy_bom(EVERYTHING).returncode == 0
    (tmp_path / "image/opt/demo/old").write_text("left over")
    done = copy_bom(EVERYTHING)
    assert done.stdout.startswith("0 files copied")
    assert done.stderr == "note: opt/demo/old is in the tree but in no BOM\n"


def test_a_dry_run_says_what_it_would_do_and_does_nothing(copy_bom, tmp_path):
    done = copy_bom(EVERYTHING, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"copy {tmp_path}/one.txt -> image/opt/demo/one.txt" in done.stdout
    assert not (tmp_path / "image").exists()


def test_programs_bring_their_libraries_unless_told_otherwise(copy_bom, tmp_path):
    text = "targets: [{target: /bin, copy: [{files: [{name: /bin/ls, autodep: %s}]}]}]"
    assert copy_bom(text % "false").returncode == 0
    assert names(tmp_path / "image") == {"bin/ls"}
    assert copy_bom(text % "true").returncode == 0
    assert any(name.endswith("libc.so.6") for name in names(tmp_path / "image"))
    assert any("ld-linux-x86-64.so.2" in name for name in names(tmp_path / "image"))


def test_wildcards_and_variables(copy_bom, tmp_path):
    text = "targets: [{target: /t, copy: [{from: $WHERE, files: ['*.txt'], dirs: ['${D}a*/']}]}]"
    done = copy_bom(text, WHERE=str(tmp_path), D="dat")
    assert done.returncode == 0, done.stderr
    assert {"one.txt", "two.txt", "three.txt"} <= names(tmp_path / "image/t")


def test_includes_are_found_beside_in_include_dirs_and_among_the_bundled(copy_bom, tmp_path):
    (tmp_path / "else").mkdir()
    (tmp_path / "else/far.yaml").write_text("targets: [{target: /far, mkdirs: [x]}]")
    (tmp_path / "near.yaml").write_text("includes: [far.yaml]\ntargets: []\n")
    done = copy_bom("includes: [near.yaml, base.yaml]", "-i", "else", "-i", "no/such/directory")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "image/far/x").is_dir()


FAILURES = {
    "a missing file": ("targets:\n- target: /\n  copy: [{files: [gone]}]", 255, "bom.yaml:3"),
    "a missing directory": ("targets: [{target: /, copy: [{dirs: [gone]}]}]", 255, "gone"),
    "a pattern without match": ("targets: [{target: /, copy: [{files: ['x*']}]}]", 255, "x*"),
    "a missing include": ("includes: [gone.yaml]", 255, "--include-dir"),
    "an unknown key": ("targets:\n- target: /\n  mkdir: [a]", 253, 'did you mean "mkdirs"?'),
    "no YAML": ("targets: [", 253, "bom.yaml:2: did not"),
    "a relative target": ("targets: [{target: bin}]", 253, "write /bin"),
    "a target outside": ("targets: [{target: /../x}]", 253, "a path without .."),
    "a directory outside": ("targets: [{target: /, mkdirs: [../x]}]", 253, "without .."),
    "a short hash": ("targets: [{target: /, copy: [{files: [{name: a, hash: ab}]}]}]", 253, "64"),
    "a key twice": ("targets: []\ntargets: []", 253, "bom.yaml:2: targets is given twice"),
    "an unset variable": ("includes: [$NO_SUCH_VARIABLE]", 253, "NO_SUCH_VARIABLE"),
    "itself included": ("includes: [bom.yaml]", 253, "includes itself"),
    "a directory over a file": (
        "targets: [{target: /, copy: [{files: [one.txt]}]}, {target: /one.txt}]", 252, "one.txt"),
    "a link over a directory": (
        "targets: [{target: /, mkdirs: [d], createlinks: [{src: e, linkname: d}]}]", 251, "/d is"),
    "a wrong hash": (
        "targets: [{target: /, copy: [{files: [{name: one.txt, hash: %s}]}]}]" % ("ab" * 32),
        249, "has the SHA-256"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
def test_each_kind_of_failure_has_its_exit_status_and_line(copy_bom, what):
    text, status, says = FAILURES[what]
    done = copy_bom(text)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("error: ")
    assert says in done.stderr


def test_a_missing_library_of_a_named_file_is_an_error(copy_bom, tmp_path):
    (tmp_path / "f.c").write_text("int f(void) { return 0; }")
    (tmp_path / "main.c").write_text("int f(void); int main(void) { return f(); }")
    gcc = ["gcc", "-o"]
    subprocess.run([*gcc, "libgone.so", "-shared", "-fPIC", "f.c"], cwd=tmp_path, check=True)
    subprocess.run([*gcc, "lost", "main.c", "-L.", "-lgone"], cwd=tmp_path, check=True)
    done = copy_bom("targets: [{target: /bin, copy: [{files: [lost]}]}]")
    assert done.returncode == 248
    assert "lost needs libgone.so" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_told_apart(copy_bom, tmp_path):
    (tmp_path / "one.txt").chmod(0)
    done = copy_bom("targets: [{target: /, copy: [{files: [one.txt]}]}]")
    assert done.returncode == 254


def test_wrong_use_exits_with_2(copy_bom):
    assert copy_bom("targets: []", "--frobnicate").returncode == 2


def test_an_alias_bomb_is_refused(copy_bom):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    done = copy_bom("\n".join(lines))
    assert done.returncode == 253
    assert "too large" in done.stderr


def test_yaml_cannot_construct_objects(copy_bom):
    done = copy_bom("includes: [!!python/object/apply:os.system ['true']]")
    assert done.returncode == 253

"""Releases: who may sign, what may be packaged, and what the package holds."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from conftest import OCCLUM, Instance, occlum


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key.pem"
    subprocess.run(
        ["openssl", "genrsa", "-3", "-out", path, "3072"], check=True, capture_output=True
    )
    public = ["openssl", "pkey", "-in", path, "-pubout", "-out", path.with_name("public.pem")]
    subprocess.run(public, check=True)
    return path


def tool(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode()


def test_a_tool_that_keeps_the_key_signs(instance: Instance, tmp_path: Path, key: Path):
    signer = tool(tmp_path / "signer", f"exec openssl dgst -sha256 -sign {key}")
    public = key.with_name("public.pem")
    done = instance.occlum("build", "--sign-tool", signer, "--sign-key", public)
    assert done.returncode == 0, said(done)
    by_tool = instance.occlum("print", "mrsigner").stdout
    assert instance.occlum("build", "--sign-key", key).returncode == 0
    assert instance.occlum("print", "mrsigner").stdout == by_tool


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 3", "status 3"),
        ("echo short", "expected status 0 and 384 bytes"),
        ("head -c 384 /dev/zero", "is not one of the key"),
    ],
)
def test_a_tool_that_fails_or_lies_is_refused(instance, tmp_path, key, script: str, says: str):
    signer = tool(tmp_path / "signer", script)
    done = instance.occlum("build", "--sign-tool", signer, "--sign-key", key)
    assert done.returncode == 1
    assert says in said(done)
    assert instance.occlum("status").stdout == b"initialized\n"


def test_a_tool_without_its_public_key_is_refused(instance: Instance, tmp_path: Path):
    done = instance.occlum("build", "--sign-tool", tool(tmp_path / "signer", "true"))
    assert "--sign-key PUBLIC.pem" in said(done)


def test_a_release_refuses_debug_keys_and_takes_others(instance: Instance, key: Path):
    assert instance.occlum("build").returncode == 0
    assert instance.occlum("config", "set", "metadata.debuggable", "false").returncode == 0
    done = instance.occlum("build")
    assert done.returncode == 1
    assert "occlum explain release-debug-key" in said(done)
    debug = Path(os.environ["XDG_DATA_HOME"]) / "occlum/debug-key.pem"
    assert instance.occlum("build", "--sign-key", debug).returncode == 1
    assert instance.occlum("build", "--sign-key", key).returncode == 0


def test_a_package_needs_a_build_and_for_simulation_the_word_debug(instance: Instance):
    assert "is not built" in said(instance.occlum("package"))
    instance.build()
    done = instance.occlum("package")
    assert done.returncode == 1
    assert "simulated CPU" in said(done)
    assert not list(instance.root.glob("*.tar.gz"))


@pytest.mark.enclave
def test_a_package_runs_elsewhere_and_is_the_same_each_time(instance: Instance, tmp_path: Path):
    program = tmp_path / "hello.c"
    program.write_text('#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n')
    subprocess.run(["gcc", "-o", instance.image / "bin/hello", program], check=True)
    instance.build()
    first = instance.occlum("package", "--debug", tmp_path / "app.tar.gz")
    assert first.returncode == 0, said(first)
    data = (tmp_path / "app.tar.gz").read_bytes()
    assert instance.occlum("package", "--debug", tmp_path / "app").returncode == 0
    assert (tmp_path / "app.tar.gz").read_bytes() == data
    shutil.rmtree(instance.root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with tarfile.open(tmp_path / "app.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(elsewhere, filter="data")
    assert not [name for name in names if "sites.cache" in name or "/image/" in name]
    done = occlum("run", "/bin/hello", cwd=elsewhere / "app")
    assert (done.stdout, done.returncode) == (b"hello\n", 0), said(done)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_cannot_be_printed_is_an_error(instance: Instance):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [OCCLUM, "doctor"], cwd=instance.root, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert said(done).startswith("error: No space left on device")


def test_a_package_into_a_missing_directory_is_told(instance: Instance):
    instance.build()
    done = instance.occlum("package", "--debug", "no/such/app.tar.gz")
    assert done.returncode == 1
    assert "can't be written: No such file" in said(done)


def test_doctor_and_the_others_print_json(instance: Instance):
    findings = json.loads(instance.occlum("doctor", "--json").stdout)
    assert {"kernel", "fsgsbase", "/dev/fuse"} <= {each["name"] for each in findings}
    for each in findings:
        assert each["state"] == "good" or each["means"], each
    assert "occlum" in json.loads(instance.occlum("version", "--json").stdout)
    assert json.loads(instance.occlum("status", "--json").stdout)["state"] == "initialized"
    instance.build()
    printed = json.loads(instance.occlum("print", "--json", "mrenclave").stdout)
    assert len(printed["mrenclave"]) == 64


def test_doctor_notices_a_missing_runtime(tmp_path: Path):
    done = occlum("doctor", cwd=tmp_path, env={"OCCLUM_PREFIX": str(tmp_path)})
    assert done.returncode == 1
    assert b"missing  runtime" in done.stdout


def test_explain_knows_every_code_and_guesses(tmp_path: Path):
    assert b"cause:" in occlum("explain", "oci-digest", cwd=tmp_path).stdout
    done = occlum("explain", "oci-digst", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean oci-digest?" in said(done)


def on_a_terminal(*arguments: str, cwd: Path, **env: str) -> str:
    """What a command prints when both its outputs are a terminal."""
    command = " ".join([str(OCCLUM), *arguments])
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        cwd=cwd, env={**os.environ, "TERM": "xterm", **env},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.stdout


@pytest.mark.skipif(shutil.which("script") is None, reason="script(1) is not installed")
def test_colour_is_for_terminals_that_want_it(tmp_path: Path):
    os.environ.pop("NO_COLOR", None)
    assert "\x1b[31merror\x1b[0m: " in on_a_terminal("status", cwd=tmp_path)
    assert "\x1b[" not in on_a_terminal("status", cwd=tmp_path, NO_COLOR="1")
    assert "\x1b[" not in on_a_terminal("status", cwd=tmp_path, TERM="dumb")
    assert b"\x1b[" not in occlum("status", cwd=tmp_path).stderr

"""The wrappers of compilers: what they make is position independent and runs on Linux as well."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import OCCLUM, MakeInstance
from occlum.elf.file import ET_DYN

C = '#include <stdio.h>\nint main(void) { puts("hello"); return 3; }\n'
CXX = "#include <iostream>\nint main() { std::cout << \"hello\\n\"; return 3; }\n"
GO = 'package main\nimport (\n"fmt"\n"os"\n)\nfunc main() { fmt.Println("hello"); os.Exit(3) }\n'
RUST = 'fn main() { println!("hello"); std::process::exit(3) }\n'

PROGRAMS = {
    "gcc": ("gcc", {"hello.c": C}, ["hello.c", "-o", "hello"]),
    "gcc -static": ("gcc", {"hello.c": C}, ["-static", "hello.c", "-o", "hello"]),
    "musl": ("gcc", {"hello.c": C}, ["hello.c", "-o", "hello"]),
    "g++": ("g++", {"hello.cc": CXX}, ["-O2", "hello.cc", "-o", "hello"]),
    "go": ("go", {"hello.go": GO}, ["build", "-o", "hello", "hello.go"]),
    "rustc": ("rustc", {"hello.rs": RUST}, ["hello.rs", "-o", "hello"]),
}
TOOLS = {"musl": "musl-gcc"}


def wrapper(name: str, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OCCLUM.with_name(f"occlum-{name}"), *arguments],
        cwd=cwd, env={**os.environ, "GOFLAGS": "-mod=mod", **env},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def compiled(directory: Path, name: str) -> Path:
    tool, sources, arguments = PROGRAMS[name]
    if shutil.which(TOOLS.get(name, tool)) is None:
        pytest.skip(f"{TOOLS.get(name, tool)} is not installed")
    for file, text in sources.items():
        (directory / file).write_text(text)
    libc = {"OCCLUM_LIBC": "musl"} if name == "musl" else {}
    done = wrapper(tool, *arguments, cwd=directory, **libc)
    assert done.returncode == 0, done.stderr
    return directory / "hello"


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_they_make_is_position_independent_and_runs_here(tmp_path: Path, name: str):
    program = compiled(tmp_path, name)
    header = program.read_bytes()[:18]
    assert int.from_bytes(header[16:18], "little") == ET_DYN
    done = subprocess.run([program], capture_output=True, check=False)
    assert (done.stdout, done.returncode) == (b"hello\n", 3)


@pytest.mark.enclave
def test_and_in_the_enclave(tmp_path: Path, make_instance: MakeInstance):
    made = {}
    for name in PROGRAMS:
        directory = tmp_path / name.replace(" ", "")
        directory.mkdir()
        if shutil.which(TOOLS.get(name, PROGRAMS[name][0])):
            made[name] = compiled(directory, name).rename(directory / name.replace(" ", ""))
    instance = make_instance("compilers", *made.values())
    for name, program in made.items():
        done = instance.run(f"/usr/local/bin/{program.name}")
        assert (done.stdout, done.returncode) == (b"hello\n", 3), f"{name}: {done.stderr.decode()}"


def test_libraries_and_objects_can_still_be_made(tmp_path: Path):
    (tmp_path / "f.c").write_text("int f(void) { return 3; }\n")
    (tmp_path / "main.c").write_text("int f(void); int main(void) { return f(); }\n")
    assert wrapper("gcc", "-c", "f.c", cwd=tmp_path).returncode == 0
    assert wrapper("ar", "rcs", "libf.a", "f.o", cwd=tmp_path).returncode == 0
    assert wrapper("gcc", "-shared", "-fPIC", "f.c", "-o", "libf.so", cwd=tmp_path).returncode == 0
    assert wrapper("gcc", "main.c", "libf.a", "-o", "main", cwd=tmp_path).returncode == 0
    assert wrapper("strip", "main", cwd=tmp_path).returncode == 0
    assert wrapper("ld", "-r", "f.o", "-o", "g.o", cwd=tmp_path).returncode == 0
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 3


def test_cargo_builds_a_package(tmp_path: Path):
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/main.rs").write_text(RUST)
    (tmp_path / "Cargo.toml").write_text(
        '[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
    )
    done = wrapper("cargo", "build", "--offline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([tmp_path / "target/debug/hello"], check=False).returncode == 3


def test_java_is_compiled_and_runs(tmp_path: Path):
    if shutil.which("javac") is None:
        pytest.skip("javac is not installed")
    (tmp_path / "Hello.java").write_text(
        'class Hello { public static void main(String[] a) { System.out.println("hello"); } }'
    )
    assert wrapper("javac", "Hello.java", cwd=tmp_path).returncode == 0
    assert wrapper("java", "-cp", ".", "Hello", cwd=tmp_path).stdout == "hello\n"


def test_the_tools_own_failure_and_status_come_through(tmp_path: Path):
    done = wrapper("gcc", "no-such.c", cwd=tmp_path)
    assert done.returncode == 1
    assert "no-such.c" in done.stderr


def test_a_tool_that_is_not_there_is_named(tmp_path: Path):
    done = wrapper("gcc", "x.c", cwd=tmp_path, OCCLUM_CC="no-such-compiler")
    assert done.returncode == 127
    assert "no-such-compiler is not in PATH" in done.stderr

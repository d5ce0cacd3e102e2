"""`occlum add`: an image that holds all a program needs, proved by running it in a chroot."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from conftest import Instance

needs_chroot = pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")


def add(instance: Instance, *arguments: str | Path) -> str:
    done = instance.occlum("add", *arguments, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def in_chroot(instance: Instance, *command: str) -> str:
    """Output of a command that sees the image and nothing else (but /dev/null)."""
    null = instance.image / "dev/null"
    if not null.exists():
        subprocess.run(["mknod", null, "c", "1", "3"], check=True)
    try:
        return subprocess.run(
            ["/usr/sbin/chroot", instance.image, *command],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": "/usr/bin:/bin:/usr/sbin"},
            stdin=subprocess.DEVNULL,
        ).stdout
    finally:
        null.unlink()


@needs_chroot
@pytest.mark.parametrize(
    ("program", "command", "says"),
    [
        ("/bin/ls", ["/bin/ls", "/"], "proc"),
        ("/usr/bin/python3", ["/usr/bin/python3", "-c",
         "import json, sqlite3, hashlib, ssl, ctypes, zlib, lzma; "
         "print(sqlite3.connect(':memory:').execute('select 6*7').fetchone())"], "(42,)"),
        ("perl", ["/usr/bin/perl", "-e",
         "use List::Util qw(sum); use POSIX; use JSON::PP; print sum(40, 2)"], "42"),
        ("node", ["/usr/bin/node", "-e", "console.log(6 * 7)"], "42"),
        ("lua5.4", ["/usr/bin/lua5.4", "-e", "print(6 * 7)"], "42"),
        ("sqlite3", ["/usr/bin/sqlite3", ":memory:", "select 6*7"], "42"),
        ("/bin/busybox", ["/bin/busybox", "echo", "42"], "42"),
    ],
)  # fmt: skip
def test_a_program_runs_with_only_the_image(instance, program, command, says):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    add(instance, program)
    assert says in in_chroot(instance, *command)


def test_adding_again_copies_nothing(instance: Instance):
    add(instance, "/bin/ls")
    assert add(instance, "/bin/ls").startswith("0 files copied")


def test_links_to_a_program_are_kept(instance: Instance):
    add(instance, "/usr/bin/python3")
    link = instance.image / "usr/bin/python3"
    assert os.readlink(link) == os.readlink("/usr/bin/python3")


def program_of(tmp_path: Path, name: str, *flags: str) -> Path:
    source = tmp_path / f"{name}.c"
    source.write_text("int answer(void); int main(void) { return answer(); }\n")
    program = tmp_path / name
    subprocess.run(["gcc", "-o", program, source, *flags], check=True, capture_output=True)
    return program


@pytest.fixture
def library(tmp_path: Path) -> Path:
    source = tmp_path / "answer.c"
    source.write_text("int answer(void) { return 42; }\n")
    path = tmp_path / "lib" / "libanswer.so"
    path.parent.mkdir()
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, source], check=True)
    return path


def test_a_missing_library_names_who_needs_it(instance: Instance, tmp_path: Path, library: Path):
    program = program_of(tmp_path, "asker", f"-L{library.parent}", "-lanswer")
    done = instance.occlum("add", program)
    assert done.returncode == 1
    message = done.stderr.decode()
    assert f"{program} needs libanswer.so, which is not on this machine" in message
    assert "hint: " in message


def test_a_program_that_finds_libraries_by_its_own_place_keeps_it(instance, tmp_path, library):
    program = program_of(
        tmp_path, "asker", f"-L{library.parent}", "-lanswer", "-Wl,-rpath,$ORIGIN/lib"
    )
    add(instance, program)
    for path in (program, library):
        assert (instance.image / path.relative_to("/")).read_bytes() == path.read_bytes()


def test_ones_own_program_goes_where_it_may_be_run_from(instance: Instance):
    source = instance.root / "hello.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-o", instance.root / "hello", source], check=True)
    assert "/usr/local/bin/hello" in add(instance, "./hello")
    assert (instance.image / "usr/local/bin/hello").is_file()


def test_a_script_brings_its_interpreter(instance: Instance):
    script = instance.root / "greet"
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o755)
    add(instance, "./greet")
    assert (instance.image / "bin/sh").exists()


def test_a_script_for_a_missing_interpreter_is_an_error(instance: Instance):
    script = instance.root / "greet"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = instance.occlum("add", "./greet")
    assert done.returncode == 1
    assert "/no/such/interpreter" in done.stderr.decode()


def test_an_absolute_link_in_the_image_leads_inside_it(instance: Instance, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(instance.image / "usr/local")
    (instance.image / "usr/local").symlink_to(outside)
    source = instance.root / "hello.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-static", "-o", instance.root / "hello", source], check=True)
    add(instance, "./hello")
    assert list(outside.iterdir()) == []


needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no Debian")


@needs_chroot
@needs_dpkg
def test_a_debian_package_brings_what_it_depends_on(instance: Instance):
    said = add(instance, "--deb", "sqlite3")
    assert "libsqlite3-0" in said
    assert not (instance.image / "usr/share/doc").exists()
    assert in_chroot(instance, "/usr/bin/sqlite3", ":memory:", "select 6*7") == "42\n"


@needs_dpkg
@pytest.mark.parametrize(
    ("name", "says"),
    [("no-such-package-zz", "Unable to locate package"), ("Bad_Name", "is no name of a Debian")],
)
def test_a_debian_package_that_is_not_there_is_an_error(instance: Instance, name: str, says: str):
    done = instance.occlum("add", "--deb", name)
    assert done.returncode == 1
    assert says in done.stderr.decode()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of one module, so that no index is asked."""
    path = tmp_path / "answer-1-py3-none-any.whl"
    files = {
        "answer.py": "value = 42\n",
        "answer-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: answer\nVersion: 1\n",
        "answer-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        record = "".join(f"{name},,\n" for name in [*files, "answer-1.dist-info/RECORD"])
        archive.writestr("answer-1.dist-info/RECORD", record)
    return path


@needs_chroot
def test_python_requirements_are_installed_for_the_images_python(instance, wheel, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{wheel}\n")
    add(instance, "--python", requirements)
    assert in_chroot(instance, "/usr/bin/python3", "-c", "import answer; print(answer.value)") == (
        "42\n"
    )


def test_requirements_that_pip_refuses_are_told(instance: Instance, tmp_path: Path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("./no-such.whl\n")
    done = instance.occlum("add", "--python", requirements)
    assert done.returncode == 1
    assert "pip can't install" in done.stderr.decode()
    gone = instance.occlum("add", "--python", "gone.txt")
    assert "gone.txt is not there" in gone.stderr.decode()


def test_a_directory_whose_libraries_stand_elsewhere_in_it_comes_whole(instance, tmp_path):
    """As a JDK: lib/libjava.so needs libjvm.so, which stands in lib/server without a path to it."""
    home = tmp_path / "jdk"
    (home / "lib/server").mkdir(parents=True)
    sources = {
        "jvm": '#include <stdio.h>\nint vm(void) { return puts("x"); }',
        "java": "int vm(void); int j(void) { return vm(); }",
    }
    for name, text in sources.items():
        (tmp_path / f"{name}.c").write_text(text)
    compile_ = ["gcc", "-shared", "-fPIC", "-o"]
    subprocess.run([*compile_, home / "lib/server/libjvm.so", tmp_path / "jvm.c"], check=True)
    subprocess.run(
        [*compile_, home / "lib/libjava.so", tmp_path / "java.c", f"-L{home}/lib/server", "-ljvm"],
        check=True,
    )
    add(instance, home)
    assert (instance.image / str(home)[1:] / "lib/server/libjvm.so").is_file()
    assert (instance.image / "usr/lib/x86_64-linux-gnu/libc.so.6").exists()


def test_a_directory_with_a_part_that_lacks_a_library_is_told_and_copied(
    instance, tmp_path, library
):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    program_of(plugins, "asker", f"-L{library.parent}", "-lanswer")
    done = instance.occlum("add", plugins)
    assert done.returncode == 0
    assert "asker needs libanswer.so" in done.stderr.decode()
    assert (instance.image / str(plugins)[1:] / "asker").is_file()

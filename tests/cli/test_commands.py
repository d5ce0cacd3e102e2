"""The commands as a person types them: what they print, what they leave, how they exit."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
from pathlib import Path

import pytest

import occlum as package
from conftest import OCCLUM, Instance, occlum
from occlum.cli import verbs


def stderr(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode()


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in root.rglob("*")
    }


def test_new_makes_the_directories_people_know(instance: Instance):
    for name in ("image", "initfs", "build", "run", "Occlum.json"):
        assert (instance.root / name).exists()
    for name in ("bin", "lib", "lib64", "root", "host", "tmp", "dev", "proc", "etc", "sbin"):
        assert (instance.image / name).is_dir()
    assert instance.occlum("status").stdout == b"initialized\n"


def test_new_refuses_a_directory_that_is_there(tmp_path: Path):
    (tmp_path / "there").mkdir()
    done = occlum("new", "there", cwd=tmp_path)
    assert done.returncode == 1
    assert "there is already there" in stderr(done)
    assert "hint: " in stderr(done)
    assert list((tmp_path / "there").iterdir()) == []


def test_init_twice_is_refused_and_changes_nothing(tmp_path: Path):
    assert occlum("init", cwd=tmp_path).returncode == 0
    before = snapshot(tmp_path)
    done = occlum("init", cwd=tmp_path)
    assert done.returncode == 1
    assert snapshot(tmp_path) == before


def test_help_and_no_arguments_list_every_command(tmp_path):
    for arguments, status in ((["--help"], 0), (["-h"], 0), ([], 2)):
        done = occlum(*arguments, cwd=tmp_path)
        assert done.returncode == status
        for verb, summary in verbs.summaries().items():
            line = rf"^  {verb} +{re.escape(summary.rstrip('.'))}$"
            assert re.search(line, done.stdout.decode(), re.MULTILINE)


def test_a_mistyped_command_is_guessed(tmp_path):
    assert "did you mean build?" in stderr(occlum("biuld", cwd=tmp_path))


@pytest.mark.parametrize("command", verbs.summaries())
def test_every_command_explains_itself(command, tmp_path):
    done = occlum(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: occlum {command}".encode())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "no command frobnicate"),
        (["build", "--no-such"], "--no-such"),
        (["build", "--sgx-mode", "MAYBE"], "MAYBE"),
        (["print", "mrnothing"], "mrnothing"),
        (["new"], "DIRECTORY"),
        (["run"], "no program is named"),
        (["add"], "nothing is named"),
        (["run", "--no-such"], "no option --no-such"),
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments, says, tmp_path):
    done = occlum(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in stderr(done)
    assert stderr(done).startswith("error: ")


@pytest.mark.parametrize(
    "command", [["build"], ["status"], ["print", "mrenclave"], ["run", "/bin/x"]]
)
def test_outside_an_instance_a_hint_says_how_to_make_one(command, tmp_path):
    done = occlum(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert "not in an Occlum instance" in stderr(done)
    assert "occlum new DIR" in stderr(done)


def test_version_is_that_of_the_package(tmp_path):
    done = occlum("version", cwd=tmp_path)
    assert done.stdout.decode() == f"occlum {package.__version__}\n"


def test_build_makes_an_enclave_and_says_its_measurement(instance: Instance):
    done = instance.occlum("build")
    assert done.returncode == 0, stderr(done)
    printed = instance.occlum("print", "mrenclave").stdout.decode().strip()
    assert re.fullmatch(r"[0-9a-f]{64}", printed)
    assert f"mrenclave {printed}" in done.stdout.decode()
    assert (instance.root / "build/occlum.sigstruct").stat().st_size == 1808
    assert instance.occlum("status").stdout == b"built\n"


def test_the_second_build_changes_nothing_and_is_quick(instance: Instance):
    instance.build()
    before = snapshot(instance.root / "build")
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = instance.occlum("build")
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    assert b"nothing changed" in done.stdout
    assert snapshot(instance.root / "build") == before
    assert took < 5, "processor time, and loose on purpose: machines are noisy"


def test_the_same_instance_measures_the_same_anywhere(tmp_path: Path):
    measured = set()
    for name in ("one", "two"):
        occlum("new", name, cwd=tmp_path)
        for path in (tmp_path / name / "image").rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)
        os.utime(tmp_path / name / "image", (1, 1))
        Instance(tmp_path / name).build()
        measured.add(occlum("print", "mrenclave", cwd=tmp_path / name).stdout)
    assert len(measured) == 1


def test_what_is_measured_changes_the_measurement(instance: Instance):
    instance.build()
    first = instance.occlum("print", "mrenclave").stdout
    config = instance.root / "Occlum.json"
    config.write_text(config.read_text().replace("OCCLUM=yes", "OCCLUM=no"))
    instance.build()
    second = instance.occlum("print", "mrenclave").stdout
    (instance.image / "etc/motd").write_text("hello\n")
    instance.build()
    third = instance.occlum("print", "mrenclave").stdout
    assert len({first, second, third}) == 3


def test_a_wrong_configuration_leaves_the_last_build_alone(instance: Instance):
    instance.build()
    before = snapshot(instance.root / "build")
    config = instance.root / "Occlum.json"
    config.write_text(config.read_text().replace('"4GB"', '"12Q"'))
    done = instance.occlum("build")
    assert done.returncode == 1
    assert stderr(done) == (
        'error: Occlum.json:4: resource_limits.user_space_size is "12Q"; expected a number with B, '
        'KB, MB, GB or TB\nhint: write "12GB" (occlum explain config)\n'
    )
    assert snapshot(instance.root / "build") == before
    assert not (instance.root / "build.next").exists()


def test_build_keeps_what_is_in_run(instance: Instance):
    (instance.root / "run/mount").mkdir(parents=True)
    (instance.root / "run/mount/data").write_text("precious")
    instance.build()
    assert instance.occlum("build", "--force").returncode == 0
    assert (instance.root / "run/mount/data").read_text() == "precious"


@pytest.mark.parametrize("how", [["--sgx-mode", "HW"], []], ids=["option", "environment"])
def test_hardware_mode_is_refused_with_a_sentence(instance: Instance, how):
    done = instance.occlum("build", *how, env={} if how else {"SGX_MODE": "HW"})
    assert done.returncode == 1
    assert "simulated CPU only" in stderr(done)


def test_a_key_of_ones_own_signs(instance: Instance, tmp_path: Path):
    key = tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "genrsa", "-3", "-out", key, "3072"], check=True, capture_output=True
    )
    instance.build()
    debug = instance.occlum("print", "mrsigner").stdout
    done = instance.occlum("build", "--sign-key", key)
    assert done.returncode == 0, stderr(done)
    assert instance.occlum("print", "mrsigner").stdout != debug


def test_a_key_that_sgx_does_not_take_is_explained(instance: Instance, tmp_path: Path):
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    done = instance.occlum("build", "--sign-key", key)
    assert done.returncode == 1
    assert "2048 bits" in stderr(done)


def test_print_refuses_a_changed_signature(instance: Instance):
    instance.build()
    path = instance.root / "build/occlum.sigstruct"
    data = bytearray(path.read_bytes())
    data[960] ^= 1  # the first byte of ENCLAVEHASH
    path.write_bytes(data)
    done = instance.occlum("print", "mrenclave")
    assert done.returncode == 1
    assert done.stdout == b""


def test_run_before_build_exits_with_127(instance: Instance):
    done = instance.occlum("run", "/bin/true")
    assert done.returncode == 127
    assert "is not built" in stderr(done)


def test_run_of_a_relative_path_is_refused_with_a_hint(instance: Instance):
    instance.build()
    done = instance.occlum("run", "true")
    assert done.returncode == 127
    assert "/bin/true" in stderr(done)


def test_run_refuses_an_unknown_log_level(instance: Instance):
    instance.build()
    done = instance.occlum("run", "/bin/true", env={"OCCLUM_LOG_LEVEL": "loud"})
    assert done.returncode == 2
    assert "expected one of off, error, warn, info, debug, trace" in stderr(done)


def test_commands_work_from_inside_the_instance(instance: Instance):
    done = occlum("status", cwd=instance.image / "etc")
    assert done.stdout == b"initialized\n"


def test_help_imports_nothing_heavy(tmp_path):
    probe = (
        "import sys; sys.argv = ['occlum', '--help']\n"
        "from occlum.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'click', 'pydantic', 'rich', 'cryptography', 'iced_x86'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    python = OCCLUM.with_name("python")
    done = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_run_imports_no_click(tmp_path):
    probe = (
        "import sys\nfrom occlum.cli.run import run\n"
        "try: run(['/bin/true'])\nexcept Exception: pass\n"
        "print('click' in sys.modules)"
    )
    python = OCCLUM.with_name("python")
    done = subprocess.run(
        [python, "-c", probe], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "False\n"


@pytest.mark.enclave
def test_a_program_copied_by_hand_runs_with_the_libraries_build_brings(
    instance: Instance, tmp_path: Path
):
    source = tmp_path / "answer.c"
    source.write_text('#include <stdio.h>\nint main(void) { puts("Hello World!"); return 7; }\n')
    subprocess.run(["gcc", "-o", instance.image / "bin/answer", source], check=True)
    built = instance.occlum("build", "--sgx-mode", "SIM")
    assert built.returncode == 0
    assert "libc.so.6" in stderr(built)
    done = instance.occlum("run", "/bin/answer")
    assert (done.stdout, done.returncode) == (b"Hello World!\n", 7)


def test_build_names_the_library_that_a_copied_program_lacks(instance: Instance, tmp_path: Path):
    for name, text in (
        ("lib.c", "int f(void) { return 0; }"),
        ("main.c", "int f(void); int main(void) { return f(); }"),
    ):
        (tmp_path / name).write_text(text)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", tmp_path / "libgone.so", tmp_path / "lib.c"], check=True
    )
    subprocess.run(
        ["gcc", "-o", instance.image / "bin/lost", tmp_path / "main.c", f"-L{tmp_path}", "-lgone"],
        check=True,
    )
    built = instance.occlum("build", "--sgx-mode", "SIM")
    assert "bin/lost needs libgone.so, which is not on this machine" in stderr(built)


def test_config_is_read_changed_and_checked(instance: Instance):
    assert instance.occlum("config", "get", "process.default_stack_size").stdout == b"8MB\n"
    done = instance.occlum("config", "set", "process.default_stack_size", "4MB")
    assert done.returncode == 0, stderr(done)
    assert instance.occlum("config", "get", "process.default_stack_size").stdout == b"4MB\n"
    assert "// Given to every program." in (instance.root / "Occlum.json").read_text()
    before = (instance.root / "Occlum.json").read_text()
    bad = instance.occlum("config", "set", "process.default_stack_size", "4Q")
    assert bad.returncode == 1
    assert 'hint: write "4GB"' in stderr(bad)
    assert (instance.root / "Occlum.json").read_text() == before
    assert instance.occlum("config", "get", "no.such").returncode == 1
    assert instance.occlum("config", "check").stdout == b"Occlum.json is good\n"
    (instance.root / "Occlum.json").write_text(before.replace("{", "", 1))
    assert instance.occlum("config", "check").returncode == 1
    problems = json.loads(instance.occlum("config", "check", "--json").stdout)
    assert problems[0]["problem"].startswith("Occlum.json:")


def test_an_instance_may_be_configured_in_yaml_but_not_twice(instance: Instance):
    text = "entry_points: [/bin]\nmount:\n- {target: /, type: sefs}\n"
    (instance.root / "Occlum.yaml").write_text(text)
    assert "has both Occlum.json and Occlum.yaml" in stderr(instance.occlum("status"))
    (instance.root / "Occlum.json").unlink()
    instance.build()
    (instance.root / "Occlum.yaml").write_text(text.replace("sefs", "sefz"))
    assert 'Occlum.yaml:3: mount[0].type is "sefz"' in stderr(instance.occlum("build"))


@pytest.mark.enclave
def test_config_suggest_proposes_limits_that_serve(instance: Instance, tmp_path: Path):
    source = tmp_path / "use.c"
    source.write_text(
        "#include <pthread.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
        "static pthread_barrier_t all;\n"
        "static void *wait_all(void *p) { pthread_barrier_wait(&all); return p; }\n"
        "int main(void) {\n"
        "    pthread_t threads[40];\n"
        "    pthread_barrier_init(&all, 0, 41);\n"
        "    memset(malloc(100 << 20), 1, 100 << 20);\n"
        "    for (int n = 0; n < 40; n++) pthread_create(&threads[n], 0, wait_all, 0);\n"
        "    pthread_barrier_wait(&all);\n"
        "    for (int n = 0; n < 40; n++) pthread_join(threads[n], 0);\n"
        "    return write(1, \"used\\n\", 5) != 5;\n}\n"
    )
    subprocess.run(["gcc", "-pthread", "-o", instance.image / "bin/use", source], check=True)
    instance.build()
    done = instance.occlum("config", "suggest", "--json", "--write", "/bin/use")
    assert done.returncode == 0, stderr(done)
    assert "used\n" in stderr(done)
    limits = instance.occlum("config", "get", "resource_limits").stdout
    sizes = json.loads(limits)
    assert 100 <= int(sizes["user_space_size"].removesuffix("MB")) < 1024
    assert 41 <= sizes["max_num_of_threads"] <= 128
    instance.build()
    assert instance.run("/bin/use").stdout == b"used\n"


@pytest.mark.enclave
def test_a_run_may_lower_limits_within_what_is_signed(instance: Instance, tmp_path: Path):
    source = tmp_path / "take.c"
    source.write_text(
        "#include <errno.h>\n#include <stdlib.h>\n#include <string.h>\n"
        "int main(void) { void *p = malloc(200 << 20); if (!p) return errno == ENOMEM ? 3 : 4;\n"
        "memset(p, 1, 200 << 20); return 0; }\n"
    )
    subprocess.run(["gcc", "-o", instance.image / "bin/take", source], check=True)
    instance.build()
    assert instance.run("/bin/take").returncode == 0
    assert instance.run("/bin/take", env={"OCCLUM_USER_SPACE_SIZE": "100MB"}).returncode == 3
    for value in ("8TB", "1MB", "100", "-1MB", ""):
        done = instance.run("/bin/take", env={"OCCLUM_USER_SPACE_SIZE": value})
        assert done.returncode == 125
        assert f'OCCLUM_USER_SPACE_SIZE is "{value}"; expected 16MB to' in stderr(done)
    done = instance.run("/bin/take", env={"OCCLUM_MAX_NUM_OF_THREADS": "0"})
    assert "OCCLUM_MAX_NUM_OF_THREADS" in stderr(done)

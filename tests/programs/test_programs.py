"""Real programs from Debian's packages, unmodified, inside the enclave.

Where a program gives the same answer anywhere, its output inside is compared with its output on
this machine; the rest say what they must print.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance, keep_nothing

pytestmark = pytest.mark.enclave

PYTHON = "/usr/bin/python3"
TESTSUITE = Path("/usr/lib/python3.11/test")
PROGRAMS = (
    PYTHON,
    "/bin/busybox",
    "/bin/ls",
    "/usr/bin/cat",
    "/usr/bin/sort",
    "/usr/bin/sha256sum",
    "/usr/bin/env",
    "/usr/bin/sqlite3",
    "/usr/bin/lua5.4",
    "/usr/bin/perl",
    "/usr/bin/node",
)
BIG_FILE_SIZE = 100 << 20


@pytest.fixture(scope="session")
def machine(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    """One instance with every program that this machine has."""

    def prepare(instance: Instance) -> None:
        keep_nothing(instance)
        if TESTSUITE.is_dir():
            assert instance.occlum("add", TESTSUITE, timeout=300).returncode == 0
        data = instance.image / "opt/data"
        data.mkdir(parents=True)
        write_big_file(data / "big")
        (data / "lines").write_text("".join(f"{zlib.crc32(b'%d' % n)}\n" for n in range(20000)))
        for name, program in compiled(tmp_path_factory.mktemp("compiled")).items():
            assert instance.occlum("add", program, timeout=300).returncode == 0, name
            shutil.copy(program, instance.image / "opt" / name)

    present = [program for program in PROGRAMS if Path(program).exists()]
    return make_instance("programs", *present, prepare=prepare)


def write_big_file(path: Path) -> None:
    block = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(1 << 15))
    with path.open("wb") as file:
        for number in range(BIG_FILE_SIZE // len(block)):
            file.write(number.to_bytes(32, "little") + block[32:])


THROWS = """
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>
int deep(int n) { if (n == 0) throw std::runtime_error("deep"); return deep(n - 1) + 1; }
int main() {
    std::vector<std::string> caught;
    for (int i = 0; i < 100; i++)
        try { deep(i % 20); } catch (const std::exception &e) { caught.push_back(e.what()); }
    std::printf("%zu %s\\n", caught.size(), caught.back().c_str());
}
"""

GO = """
package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

func main() {
	var wait sync.WaitGroup
	sums := make([]int, 100)
	for i := range sums {
		wait.Add(1)
		go func() { defer wait.Done(); for n := 0; n <= i*1000; n++ { sums[i] += n } }()
	}
	wait.Wait()
	total := 0
	for _, sum := range sums { total += sum }
	fmt.Println(strings.Join(os.Args[1:], "+"), total)
}
"""


def compiled(directory: Path) -> dict[str, Path]:
    """Programs built here by compilers that know nothing of enclaves."""
    built = {}
    if shutil.which("g++"):
        (directory / "throws.cc").write_text(THROWS)
        subprocess.run(["g++", "-o", directory / "throws", directory / "throws.cc"], check=True)
        built["throws"] = directory / "throws"
    if shutil.which("go"):
        (directory / "main.go").write_text(GO)
        command = ["go", "build", "-o", directory / "goprogram", "main.go"]
        subprocess.run(command, check=True, cwd=directory)
        built["goprogram"] = directory / "goprogram"
    return built


def needs(program: str) -> None:
    if not Path(program).exists() and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def output(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:] + done.stderr.decode(
        errors="replace"
    )
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("program", "arguments", "expected"),
    [
        ("/bin/busybox", ["echo", "a", "b"], "a b\n"),
        ("/bin/busybox", ["sh", "-c", "x=6; echo $((x * 7)); exit 0"], "42\n"),
        ("/usr/bin/lua5.4", ["-e", "print(#string.rep('x', 1000), 2^10)"], "1000\t1024.0\n"),
        ("/usr/bin/perl", ["-e", "print join(',', map { $_ ** 2 } sort { $b <=> $a } 1..5)"],
         "25,16,9,4,1"),
        ("/usr/bin/perl", ["-MList::Util=sum", "-MPOSIX", "-e", "print sum(1..10), floor(2.5)"],
         "552"),
        ("/usr/bin/node", ["-e", "console.log([3, 1, 2].sort().map(x => x ** 2).join())"],
         "1,4,9\n"),
        ("/usr/bin/node", ["-e", "setTimeout(() => console.log('later'), 20)"], "later\n"),
        (PYTHON, ["-c", "import json; print(json.dumps({'a': [1, 2.5, None]}))"],
         '{"a": [1, 2.5, null]}\n'),
        (PYTHON, ["-c", "import threading as t; r = []; "
         "a = [t.Thread(target=r.append, args=(n,)) for n in range(64)]; "
         "[x.start() for x in a]; [x.join() for x in a]; print(sorted(r) == list(range(64)))"],
         "True\n"),
    ],
)  # fmt: skip
def test_a_program_gives_its_answer(machine, program, arguments, expected):
    needs(program)
    assert output(machine.run(program, *arguments)) == expected


def test_sqlite_keeps_a_database_in_tmp(machine):
    needs("/usr/bin/sqlite3")
    script = (
        "create table t(a integer primary key, b text);"
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) "
        "insert into t select i, 'row ' || i from n;"
        "select count(*), sum(a) from t; pragma integrity_check;"
    )
    assert output(machine.run("/usr/bin/sqlite3", "/tmp/t.db", script)) == "5000|12502500\nok\n"


def test_sort_and_sha256sum_agree_with_this_machine(machine):
    data = machine.image / "opt/data"
    expected = hashlib.sha256((data / "big").read_bytes()).hexdigest()
    assert output(machine.run("/usr/bin/sha256sum", "/opt/data/big")).split()[0] == expected
    lines = sorted((data / "lines").read_text().split(), key=int)
    assert output(machine.run("/usr/bin/sort", "-n", "/opt/data/lines")).split() == lines


def test_ls_lists_the_whole_image(machine):
    listed = output(machine.run("/bin/ls", "-1", "/usr/bin")).split()
    assert sorted(listed) == sorted(path.name for path in (machine.image / "usr/bin").iterdir())
    assert "/usr/lib/python3.11" in output(machine.run("/bin/ls", "-lR", "/usr/lib/python3.11"))


def test_standard_input_reaches_the_program(machine):
    done = machine.run("/usr/bin/cat", stdin=b"to and fro\n" * 10000)
    assert output(done) == "to and fro\n" * 10000


def test_only_allowed_variables_come_from_the_host(machine):
    done = machine.run("/usr/bin/env", env={"SECRET": "1", "EXAMPLE": "from host"})
    variables = dict(line.split("=", 1) for line in output(done).splitlines())
    assert variables["OCCLUM"] == "yes"
    assert variables["EXAMPLE"] == "from host"
    assert "SECRET" not in variables


def test_cpp_exceptions_unwind(machine):
    needs("g++")
    assert output(machine.run("/opt/throws")) == "100 deep\n"


def test_a_go_program_runs_its_goroutines(machine):
    needs("go")
    expected = sum(n * 1000 * (n * 1000 + 1) // 2 for n in range(100))
    assert output(machine.run("/opt/goprogram", "a", "b")) == f"a+b {expected}\n"


@pytest.mark.parametrize(
    "module",
    ["json", "math", "struct", "hashlib", "zlib", "re", "dict", "list", "set", "bytes", "long",
     "float", "sort", "heapq", "bisect", "itertools", "functools", "collections", "deque", "queue",
     "decimal", "datetime", "random", "csv", "io"],
)  # fmt: skip
def test_pythons_own_tests_pass(machine, module):
    if not TESTSUITE.is_dir():
        pytest.skip("libpython3.11-testsuite is not installed")
    name = f"test_{module}"
    if not (TESTSUITE / name).exists() and not (TESTSUITE / f"{name}.py").exists():
        pytest.skip(f"this Python has no {name}")
    done = machine.run(PYTHON, "-m", "test", "-q", name, timeout=290)
    assert "Tests result: SUCCESS" in output(done)


def test_numpy_multiplies_matrices_with_its_threads(make_instance, tmp_path_factory):
    if sys.version_info[:2] != (3, 11) or not Path(PYTHON).exists():
        pytest.skip("numpy is taken for the system's Python 3.11")
    directory = tmp_path_factory.mktemp("numpy")
    environment = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    installed = subprocess.run(
        [environment / "bin/pip", "install", "-q", "numpy"], check=False, capture_output=True
    )
    if installed.returncode != 0:
        pytest.skip("numpy can't be installed here")

    def prepare(instance: Instance) -> None:
        path = f"{environment / 'bin'}:/usr/bin:/bin"
        done = instance.occlum(
            "add", PYTHON, "--python-package", "numpy", env={"PATH": path}, timeout=300
        )
        assert done.returncode == 0, done.stderr.decode()

    machine = make_instance("numpy", prepare=prepare)
    script = (
        "import numpy as np; a = np.arange(640000.0).reshape(800, 800) % 7; "
        "b = a @ a.T; print(int(b.sum()))"
    )
    expected = subprocess.run(
        [environment / "bin/python", "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert output(machine.run(PYTHON, "-c", script)) == expected


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        (["/bin/no-such"], 127, "no-such"),
        (["/etc/passwd"], 126, "entry"),
        (["/usr/bin/python3", "-c", "import sys; sys.exit(255)"], 255, ""),
        (["/usr/bin/python3", "-c", "import os; os.kill(os.getpid(), 15)"], 143, ""),
    ],
)
def test_the_exit_status_is_exact(machine, command, status, says):
    done = machine.run(*command)
    assert done.returncode == status, done.stderr.decode()
    assert says in done.stderr.decode()


def test_the_image_can_be_changed_in_memory(machine: Instance) -> None:
    script = Path(__file__).with_name("change_image.py").read_text()
    assert output(machine.run(PYTHON, "-c", script)) == "changed\n"
    # The next run starts from the image again.
    listed = output(machine.run("/bin/ls", "/opt/data"))
    assert "second" not in listed
    assert "big" in listed


def test_host_files_are_exchanged_through_slash_host(machine: Instance) -> None:
    (machine.root / "question").write_text("from outside\n")
    script = """
import os
text = open("/host/question").read()
os.mkdir("/host/answers")
with open("/host/answers/one", "w") as file:
    file.write(text.replace("outside", "inside"))
os.symlink("one", "/host/answers/two")
os.rename("/host/answers/one", "/host/answers/three")
os.symlink("three", "/host/answers/four")
print(sorted(os.listdir("/host/answers")), open("/host/answers/four").read(), end="")
for path in ["/host/missing", "/host/answers/two"]:
    try:
        open(path)
    except OSError as error:
        print(error.strerror)
"""
    assert output(machine.run(PYTHON, "-c", script)) == (
        "['four', 'three', 'two'] from inside\n" + "No such file or directory\n" * 2
    )
    assert (machine.root / "answers/three").read_text() == "from inside\n"

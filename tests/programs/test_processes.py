"""Programs that start programs, from Debian's packages, unmodified, inside the enclave."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance

pytestmark = pytest.mark.enclave

PYTHON = "/usr/bin/python3"
JAVA_HOME = Path("/usr/lib/jvm/java-17-openjdk-amd64")
JAVA = JAVA_HOME / "bin/java"
PROGRAMS = (
    PYTHON,
    "/bin/sh",
    "/bin/bash",
    "/bin/dash",
    "/bin/busybox",
    "/usr/bin/cat",
    "/usr/bin/cp",
    "/usr/bin/echo",
    "/usr/bin/seq",
    "/usr/bin/sort",
    "/usr/bin/tail",
    "/usr/bin/make",
    "/usr/bin/gcc",
    "/usr/bin/as",
    "/usr/bin/ld",
    "/usr/bin/node",
    "/usr/bin/script",
    "/usr/bin/sleep",
    "/usr/bin/tmux",
    "/usr/bin/tty",
    "/usr/bin/xargs",
    "/usr/bin/stress-ng",
)
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
LINKED = ("crt1.o", "crti.o", "crtn.o", "Scrt1.o", "libc.so", "libc_nonshared.a")


def compiler_parts() -> list[Path]:
    """What gcc reads for a small C program: its own directory, headers, start files."""
    found = subprocess.run(
        ["gcc", "-print-libgcc-file-name"], capture_output=True, text=True, check=True
    )
    directory = Path(found.stdout.strip()).parent
    words = subprocess.run(
        ["gcc", "-M", "-O1", "-include", "stdio.h", "-xc", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    headers = [Path(word) for word in words if word.startswith("/usr/include")]
    return [directory, *headers, *(LIBRARIES / name for name in LINKED)]


def put(instance: Instance, path: Path) -> None:
    target = instance.image / str(path).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def write_project(directory: Path) -> None:
    """A C program of ten files and its Makefile."""
    directory.mkdir(parents=True)
    for n in range(9):
        text = f'#include <stdio.h>\nint f{n}(int x) {{ return printf("f{n} %d\\n", x) + {n}; }}\n'
        (directory / f"f{n}.c").write_text(text)
    calls = " + ".join(f"f{n}({n})" for n in range(9))
    declared = "".join(f"int f{n}(int);\n" for n in range(9))
    (directory / "main.c").write_text(f"{declared}int main(void) {{ return {calls} != 81; }}\n")
    objects = " ".join([*(f"f{n}.o" for n in range(9)), "main.o"])
    (directory / "Makefile").write_text(
        f"prog: {objects}\n\tgcc -o $@ {objects}\n%.o: %.c\n\tgcc -O1 -c -o $@ $<\n"
    )


GO = """
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Println("child", os.Args[1])
		os.Exit(3)
	}
	var wait sync.WaitGroup
	results := make([]string, 16)
	for i := range results {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			out, err := exec.Command("/proc/self/exe", fmt.Sprint(i)).Output()
			results[i] = strings.TrimSpace(string(out)) + ": " + err.Error()
		}(i)
	}
	wait.Wait()
	fmt.Println(strings.Join(results, "\\n"))
}
"""

JAVA_SOURCE = """
import java.util.ArrayList;
import java.util.concurrent.*;

public class Sums {
    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(8);
        ArrayList<Future<Long>> sums = new ArrayList<>();
        for (int i = 0; i < 64; i++) {
            final int n = i;
            sums.add(pool.submit(() -> {
                long sum = 0;
                for (int k = 0; k <= n * 1000; k++) sum += k;
                return sum;
            }));
        }
        long total = 0;
        for (Future<Long> sum : sums) total += sum.get();
        pool.shutdown();
        System.out.println(total);
        System.out.flush();
        Process child = new ProcessBuilder("/usr/bin/echo", "from a child").inheritIO().start();
        System.out.println(child.waitFor());
    }
}
"""

NODE = """
const {spawn} = require("child_process");
const {Worker} = require("worker_threads");
const child = spawn("/bin/busybox", ["tr", "a-z", "A-Z"]);
child.stdout.on("data", data => process.stdout.write(data));
child.on("close", code => {
  console.log("code", code);
  const source = 'require("worker_threads").parentPort.postMessage(6 * 7)';
  new Worker(source, {eval: true}).on("message", answer => console.log("worker", answer));
});
child.stdin.end("from node\\n");
"""


@pytest.fixture(scope="module")
def machine(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    built = tmp_path_factory.mktemp("built")

    def prepare(instance: Instance) -> None:
        write_project(instance.image / "opt/project")
        if shutil.which("gcc"):
            parts = compiler_parts()
            assert instance.occlum("add", parts[0], timeout=300).returncode == 0
            for part in parts[1:]:
                put(instance, part)
        if shutil.which("go"):
            (built / "main.go").write_text(GO)
            command = ["go", "build", "-o", instance.image / "opt/starts", "main.go"]
            subprocess.run(command, check=True, cwd=built)
        if JAVA.exists() and shutil.which("javac"):
            assert instance.occlum("add", JAVA_HOME, timeout=300).returncode == 0
            (built / "Sums.java").write_text(JAVA_SOURCE)
            command = ["javac", "--release", "17", "-d", instance.image / "opt", "Sums.java"]
            subprocess.run(command, check=True, cwd=built, capture_output=True)
            (instance.image / "usr/bin/java").unlink(missing_ok=True)
            (instance.image / "usr/bin/java").symlink_to(JAVA)

    present = [program for program in PROGRAMS if Path(program).exists()]
    return make_instance("processes", *present, prepare=prepare)


def needs(*programs: str | Path) -> None:
    for program in programs:
        if not Path(program).exists() and shutil.which(str(program)) is None:
            pytest.skip(f"{program} is not installed")


def output(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, (done.stdout[-2000:] + done.stderr[-2000:]).decode(
        errors="replace"
    )
    return done.stdout.decode()


@pytest.mark.parametrize("shell", [["/bin/dash"], ["/bin/busybox", "sh"], ["/bin/bash"]])
def test_a_shell_runs_pipelines_and_jobs(machine: Instance, shell: list[str]) -> None:
    needs(shell[0])
    script = (
        "x=$(echo abc | /bin/busybox tr a-c A-C); echo $x; (exit 3); echo $?; "
        "for i in 1 2 3; do (echo $i) & done | sort; wait; "
        "trap 'echo trapped' USR1; kill -USR1 $$; echo end"
    )
    assert output(machine.run(*shell, "-c", script)) == "ABC\n3\n1\n2\n3\ntrapped\nend\n"


def test_make_and_gcc_build_a_program_of_ten_files(machine: Instance) -> None:
    needs("make", "gcc")
    script = "cp -r /opt/project /tmp/p && cd /tmp/p && make -s -j4 && ./prog"
    done = machine.run("/bin/bash", "-c", script)
    assert output(done) == "".join(f"f{n} {n}\n" for n in range(9))


def test_xargs_runs_eight_at_once(machine: Instance) -> None:
    needs("/usr/bin/xargs")
    script = "seq 1 80 | xargs -P8 -n1 echo | sort -n | tail -1"
    assert output(machine.run("/bin/bash", "-c", script)) == "80\n"


def test_python_starts_programs_and_pythons(machine: Instance) -> None:
    needs(PYTHON)
    script = (
        "import multiprocessing, subprocess, sys, math\n"
        "print(subprocess.run(['echo', 'x'], capture_output=True, text=True).stdout.strip())\n"
        "upper = ['/bin/busybox', 'tr', 'a-z', 'A-Z']\n"
        "p = subprocess.Popen(upper, stdin=-1, stdout=-1, close_fds=True)\n"
        "print(p.communicate(b'pipes')[0].decode())\n"
        "for way in ('fork', 'spawn'):\n"
        "    with multiprocessing.get_context(way).Pool(3) as pool:\n"
        "        print(way, pool.map(math.factorial, range(6)))\n"
    )
    expected = "x\nPIPES\nfork [1, 1, 2, 6, 24, 120]\nspawn [1, 1, 2, 6, 24, 120]\n"
    assert output(machine.run(PYTHON, "-c", script)) == expected


def test_java_runs_threads_and_a_child(machine: Instance) -> None:
    needs(JAVA, "javac")
    done = machine.run("/usr/bin/java", "-version")
    assert b"17." in done.stderr, done.stderr
    total = sum(n * 1000 * (n * 1000 + 1) // 2 for n in range(64))
    done = machine.run("/usr/bin/java", "-cp", "/opt", "Sums")
    assert output(done) == f"{total}\nfrom a child\n0\n"


def test_go_starts_programs_from_goroutines(machine: Instance) -> None:
    needs("go")
    expected = "".join(f"child {n}: exit status 3\n" for n in range(16))
    assert output(machine.run("/opt/starts")) == expected


def test_node_starts_a_child_and_a_worker(machine: Instance) -> None:
    needs("/usr/bin/node")
    assert output(machine.run("/usr/bin/node", "-e", NODE)) == "FROM NODE\ncode 0\nworker 42\n"


def test_script_gives_a_program_a_terminal(machine: Instance) -> None:
    needs("/usr/bin/script", "/usr/bin/tty")
    done = machine.run("/usr/bin/script", "-qec", "tty; echo inside", "/dev/null")
    assert re.fullmatch(r"/dev/pts/\d+\r\ninside\r\n", output(done))


def test_tmux_keeps_a_session(machine: Instance) -> None:
    needs("/usr/bin/tmux")
    script = (
        "export TERM=xterm; "
        "tmux -f /dev/null new-session -d -s work "
        "'echo in tmux > /tmp/o; tmux wait-for -S done; sleep 5'; "
        "tmux wait-for done; cat /tmp/o; tmux list-sessions -F '#{session_name}'; tmux kill-server"
    )
    assert output(machine.run("/bin/bash", "-c", script)) == "in tmux\nwork\n"


# One of each kind; `--class` as a whole takes minutes.
STRESSORS = ["futex", "switch", "yield", "mmap", "mremap", "pipe", "fifo", "kill", "sigq"]


def test_stress_ng_finds_nothing_in_a_second(machine: Instance) -> None:
    needs("/usr/bin/stress-ng")
    chosen = [word for name in STRESSORS for word in (f"--{name}", "1")]
    done = machine.run(
        "/usr/bin/stress-ng", *chosen, "-t", "1s", "--verify", "--temp-path", "/tmp", timeout=110
    )
    text = done.stderr.decode() + done.stdout.decode()
    assert done.returncode == 0, text[-3000:]
    assert "successful run completed" in text

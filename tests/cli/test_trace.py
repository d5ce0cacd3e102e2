"""`occlum trace` and `top`, and what is told of calls that are missing."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from conftest import OCCLUM, Instance, MakeInstance

pytestmark = pytest.mark.enclave

MISSING = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>
int main(void) { syscall(451); syscall(451); return 0; }
"""


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    directory = tmp_path_factory.mktemp("missing")
    (directory / "missing.c").write_text(MISSING)
    subprocess.run(["gcc", "-o", directory / "missing", directory / "missing.c"], check=True)
    return make_instance("trace", "/bin/sh", "/bin/cat", "/bin/sleep", directory / "missing")


def test_calls_are_shown_with_names_and_results(built: Instance):
    done = built.occlum("trace", "/bin/cat", "/etc/none", "/dev/null")
    assert done.returncode == 1
    said = done.stderr.decode()
    assert 'openat(AT_FDCWD, "/etc/none", O_RDONLY, ' in said
    assert re.search(r'"/etc/none".* = -1 ENOENT', said)
    assert re.search(r"mmap\(NULL, \d+, PROT_READ\|PROT_WRITE, MAP_PRIVATE\|MAP_ANONYMOUS", said)
    assert re.search(r'read\(\d+, "\\x7fELF', said)
    assert "exit_group(1) = ?" in said
    assert "+++ exited with 1 +++" in said


def test_every_process_and_signal_is_told(built: Instance):
    done = built.occlum("trace", "/bin/sh", "-c", "sh -c 'kill -TERM $$'; exit 3")
    assert done.returncode == 3
    said = done.stderr.decode()
    assert re.search(r"^\[\d+\] \+\+\+ killed by SIGTERM \+\+\+$", said, re.MULTILINE)
    assert "--- SIGCHLD " in said
    assert re.search(r'execve\("/bin/sh|execve\("/usr/bin/sh', said)


def test_the_trace_can_be_filtered_and_written_to_a_file(built: Instance, tmp_path: Path):
    path = tmp_path / "trace"
    done = built.occlum("trace", "-e", "write,close", "-T", "-o", path, "/bin/cat", stdin=b"text")
    assert (done.stdout, done.stderr) == (b"text", b"")
    calls = set(re.findall(r"^(\w+)\(", path.read_text(), re.MULTILINE))
    assert calls == {"write", "close"}
    assert re.search(r'write\(1, "text", 4\) = 4 <\d\.\d{6}>', path.read_text())


def test_the_summary_counts_calls_and_errors(built: Instance):
    done = built.occlum("trace", "-c", "/bin/cat", "/etc/none")
    rows = {line.split()[-1]: line.split() for line in done.stderr.decode().splitlines()}
    assert int(rows["openat"][3]) > 1
    assert int(rows["openat"][4]) >= 1
    assert int(rows["total"][3]) > int(rows["openat"][3])


def test_a_release_enclave_is_not_traced(instance: Instance, tmp_path: Path):
    key = tmp_path / "key.pem"
    make = ["openssl", "genrsa", "-3", "-out", key, "3072"]
    subprocess.run(make, check=True, capture_output=True)
    config = instance.root / "Occlum.json"
    config.write_text(config.read_text().replace('"debuggable": true', '"debuggable": false'))
    assert instance.occlum("add", "/bin/cat").returncode == 0
    assert instance.occlum("build", "--sign-key", key).returncode == 0
    done = instance.occlum("trace", "/bin/cat", "/dev/null")
    assert done.returncode == 125
    assert b"not debuggable" in done.stderr
    assert instance.run("/bin/cat", "/dev/null").returncode == 0


def test_wrong_use_is_refused(built: Instance, instance: Instance):
    assert built.occlum("trace").returncode == 2
    assert built.occlum("trace", "--nonsense", "/bin/cat").returncode in (2, 126, 127)
    assert built.occlum("trace", "/bin/nothing").returncode == 127
    assert instance.occlum("trace", "/bin/cat").returncode == 127


def test_missing_calls_are_told_at_the_end_when_asked(built: Instance):
    program = "/usr/local/bin/missing"
    assert built.run(program).stderr == b""
    done = built.run(program, env={"OCCLUM_REPORT_UNSUPPORTED": "1"})
    assert done.returncode == 0
    assert done.stderr.startswith(b"occlum: unsupported system calls met:\n")
    assert b"       2 451\n" in done.stderr


def test_top_shows_what_runs(built: Instance):
    assert built.occlum("start").returncode == 0
    try:
        spin = subprocess.Popen(
            ["occlum", "exec", "/bin/sh", "-c", "while :; do :; done"],
            executable=OCCLUM,
            cwd=built.root,
        )
        done = built.occlum("top", "--json", "-d", "0.5", "-n", "2")
        seen = json.loads(done.stdout.splitlines()[-1])
        assert seen["processes"][0]["cpu_percent"] > 1
        assert seen["ocalls_per_second"] > 0
        page = built.occlum("top", "-d", "0.1", "-n", "1").stdout.decode()
        assert "while :; do :; done" in page
        assert "AEXs/s" in page
        spin.terminate()
        spin.wait(30)
    finally:
        built.occlum("stop", "--grace", "0")
    assert built.occlum("top", "-n", "1").returncode == 127

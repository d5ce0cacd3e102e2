"""The C library: the calls of embedded mode, with the example that `demos` has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from conftest import OCCLUM, Instance, MakeInstance
from occlum.pal import DIRECTORY

pytestmark = pytest.mark.enclave

ROOT = Path(__file__).parent.parent.parent

CHECKS = r"""
#include <assert.h>
#include <errno.h>
#include <occlum_pal.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int create(const char *script, int out) {
    int pid = -1;
    const char *argv[] = {"sh", "-c", script, 0}, *env[] = {"EXAMPLE=from C", "SECRET=no", 0};
    struct occlum_stdio_fds stdio = {-1, out, 2};
    struct occlum_pal_create_process_args args = {"/bin/sh", argv, env, &stdio, &pid};
    assert(occlum_pal_create_process(&args) == 0);
    return pid;
}

static int end_of(int pid) {
    int value = -1;
    struct occlum_pal_exec_args args = {pid, &value};
    assert(occlum_pal_exec(&args) == 0);
    return value;
}

static void *one(void *number) {
    const char *scripts[] = {"exit 0", "exit 1", "exit 2", "exit 3"};
    assert(end_of(create(scripts[(long)number], 1)) == (long)number);
    return 0;
}

int main(int argc, char **argv) {
    occlum_pal_attr_t attr = {argv[1], "off"};
    (void)argc;
    assert(occlum_pal_get_version() == OCCLUM_PAL_VERSION);
    assert(occlum_pal_kill(2, SIGTERM) == -1 && errno == EINVAL);
    assert(occlum_pal_init(0) == -1 && errno == EINVAL);
    assert(occlum_pal_init(&attr) == 0);
    assert(occlum_pal_init(&attr) == -1 && errno == EEXIST);

    int ends[2];
    char said[64] = {0};
    assert(pipe(ends) == 0);
    assert(end_of(create("echo $EXAMPLE $SECRET; exit 7", ends[1])) == 7);
    assert(read(ends[0], said, sizeof(said) - 1) > 0);
    assert(strcmp(said, "from C\n") == 0);

    int pid = create("exec sleep 60", 1);
    assert(occlum_pal_kill(pid, 0) == 0);
    assert(occlum_pal_kill(pid, SIGKILL) == 0);
    assert(end_of(pid) == 128 + SIGKILL);
    assert(occlum_pal_kill(pid, 0) == -1 && errno == ESRCH);
    int value;
    struct occlum_pal_exec_args again = {pid, &value};
    assert(occlum_pal_exec(&again) == -1 && errno == ESRCH);

    int first = create("exec sleep 60", 1), second = create("exec sleep 60", 1);
    assert(occlum_pal_kill(-1, SIGTERM) == 0);
    assert(end_of(first) == 128 + SIGTERM && end_of(second) == 128 + SIGTERM);

    const char *none[] = {"none", 0};
    struct occlum_pal_create_process_args missing = {"/bin/none", none, 0, 0, &pid};
    assert(occlum_pal_create_process(&missing) == -1 && errno == ENOENT);

    pthread_t threads[4];
    for (long i = 0; i < 4; i++) assert(pthread_create(&threads[i], 0, one, (void *)i) == 0);
    for (long i = 0; i < 4; i++) assert(pthread_join(threads[i], 0) == 0);
    assert(occlum_pal_destroy() == 0);
    assert(occlum_pal_destroy() == -1);
    return 0;
}
"""


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance) -> Instance:
    return make_instance("pal", "/bin/sh", "/bin/sleep", "/bin/echo")


def compile_c(source: Path, to: Path) -> Path:
    flags = ["-Wall", "-Wextra", "-Werror", "-g", "-fsanitize=address,undefined", "-pthread"]
    command = ["gcc", *flags, "-I", DIRECTORY, "-o", to, source, DIRECTORY / "occlum_pal.c"]
    subprocess.run(command, check=True)
    return to


def run(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "OCCLUM": str(OCCLUM)}
    return subprocess.run(command, capture_output=True, timeout=120, check=False, env=env)


def test_every_call_does_what_the_header_says(built: Instance, tmp_path: Path):
    (tmp_path / "checks.c").write_text(CHECKS)
    done = run(compile_c(tmp_path / "checks.c", tmp_path / "checks"), built.root)
    assert (done.returncode, done.stderr) == (0, b"")
    assert built.occlum("status").stdout == b"built\n"


def test_the_example_runs_a_program(built: Instance, tmp_path: Path):
    example = compile_c(ROOT / "demos" / "embedded.c", tmp_path / "embedded")
    done = run(example, built.root, "/bin/echo", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    done = run(example, built.root, "/bin/none")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"No such file" in done.stderr
    assert run(example, tmp_path, "/bin/echo").returncode == 1

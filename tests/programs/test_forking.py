"""Programs from Debian that live by fork(2), unmodified: shells, tools, servers.

What can run anywhere runs on this machine first, and must say the same inside; of servers, which
need ports or root, the test knows what they must say.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance

pytestmark = pytest.mark.enclave

SCRIPTS = Path(__file__).with_name("forking")
INSIDE = "/opt/forking"
PYTHON = "/usr/bin/python3"
TESTSUITE = Path("/usr/lib/python3.11/test")
POSTGRES = Path("/usr/lib/postgresql/15")
GCC = Path("/usr/lib/gcc/x86_64-linux-gnu/12")
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")

# fmt: off
TOOLS = (
    "bash", "dash", "fish", "zsh", "perl", "python3", "make", "git", "redis-server", "redis-cli",
    "redis-check-rdb", "nginx", "lighttpd", "setpriv", "gcc", "as", "ld", "sh", "true", "cat",
    "chown", "cp", "echo", "expr", "grep", "head", "kill", "ls", "mkdir", "mkfifo", "rm", "sed",
    "seq", "sleep", "sort", "tail", "tee", "touch", "tr", "wc",
)
# fmt: on
DATABASE = ("initdb", "postgres", "pg_ctl", "pgbench", "psql")

# What gcc starts and links with; the driver finds it by names of its own.
COMPILER = (
    "cc1", "collect2", "crtbeginS.o", "crtendS.o", "libgcc.a", "libgcc_s.so", "liblto_plugin.so",
)  # fmt: skip
STARTUP = ("Scrt1.o", "crti.o", "crtn.o", "libc.so", "libc_nonshared.a")


@pytest.fixture(scope="module")
def machine(make_instance: MakeInstance) -> Instance:
    """An instance with every one of these programs that this machine has."""

    def prepare(instance: Instance) -> None:
        if TESTSUITE.is_dir():
            assert instance.occlum("add", TESTSUITE, timeout=300).returncode == 0
        image = instance.image
        shutil.copytree(SCRIPTS, image / INSIDE.lstrip("/"))
        if POSTGRES.is_dir():
            shutil.copytree(POSTGRES / "lib", image / str(POSTGRES / "lib").lstrip("/"))
            shutil.copytree("/usr/share/postgresql", image / "usr/share/postgresql")
            with (image / "etc/passwd").open("a") as users:
                users.write("someone:x:1000:1000::/tmp:/bin/sh\n")
        sources = [*(GCC / name for name in COMPILER), *(LIBRARIES / name for name in STARTUP)]
        for source in [*sources, Path("/usr/include/stdc-predef.h")]:
            if source.exists():
                target = image / str(source).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)

    found = [shutil.which(tool, path="/usr/sbin:/usr/bin:/bin") for tool in TOOLS]
    database = [POSTGRES / "bin" / name for name in DATABASE if POSTGRES.is_dir()]
    programs = [*filter(None, found), *database]
    if (GCC / "cc1").exists():
        programs += [GCC / "cc1", GCC / "collect2"]
    return make_instance("forking", *programs, prepare=prepare)


def needs(program: str) -> str:
    found = shutil.which(program, path=f"/usr/sbin:/usr/bin:/bin:{POSTGRES / 'bin'}")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


@pytest.mark.parametrize(
    ("program", "script"),
    [
        ("bash", "shell.bash"),
        ("dash", "shell.dash"),
        ("fish", "shell.fish"),
        ("zsh", "shell.zsh"),
        ("perl", "children.pl"),
        ("python3", "children.py"),
        ("make", "make.sh"),
        ("git", "git.sh"),
        ("gcc", "gcc.sh"),
    ],
)
def test_says_inside_what_it_says_here(
    machine: Instance, tmp_path: Path, program: str, script: str
) -> None:
    command = needs(program if not script.endswith(".sh") else "bash")
    needs(program)
    expected = subprocess.run(
        [command, SCRIPTS / script, tmp_path, SCRIPTS],
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert expected.returncode == 0, expected.stderr.decode(errors="replace")
    script_inside = f"{INSIDE}/{script}"
    got = machine.run(command, script_inside, "/tmp", INSIDE)
    assert got.stdout.decode() == expected.stdout.decode(), got.stderr.decode(errors="replace")
    assert got.returncode == 0


@pytest.mark.parametrize(
    ("program", "script", "expected"),
    [
        (
            "redis-server",
            "redis.sh",
            "OK\nOK\nBackground saving started\nOK\nrdb_last_bgsave_status:ok\n100002\nexit 0\n"
            "[info] 100001 keys read\n",
        ),
        ("nginx", "nginx.sh", "started 0\n29200\nreloaded 0\n29200\nended\n"),
        ("lighttpd", "lighttpd.sh", "29200\n"),
        (
            "postgres",
            "postgres.sh",
            "number of transactions actually processed: 100/100\n100000\n100\nstopped 0\n",
        ),
    ],
)
def test_a_server_forks_its_workers(
    machine: Instance, program: str, script: str, expected: str
) -> None:
    needs(program)
    done = machine.run(needs("bash"), f"{INSIDE}/{script}", "/tmp/server", INSIDE)
    said = done.stdout.decode()
    # How many keys the save saw is a race that Redis leaves open.
    said = said.replace("[info] 100002 keys read", "[info] 100001 keys read")
    assert (said, done.returncode) == (expected, 0), done.stderr.decode(errors="replace")


@pytest.mark.parametrize(
    ("module", "chosen"),
    [
        ("test_fork1", "*"),
        ("test_os", "*"),
        ("test_subprocess", "POSIXProcessTestCase"),
        ("test_multiprocessing_fork", "WithProcessesTestPool"),
        ("test_multiprocessing_fork", "WithProcessesTestQueue"),
    ],
)
def test_pythons_own_tests_of_processes_pass(machine: Instance, module: str, chosen: str) -> None:
    if not (TESTSUITE / f"{module}.py").exists():
        pytest.skip("libpython3.11-testsuite is not installed")
    done = machine.run(PYTHON, "-m", "test", "-q", "-m", chosen, module)
    assert "Tests result: SUCCESS" in done.stdout.decode(), done.stdout.decode()[-3000:]


@pytest.mark.parametrize("edmm", ["Y", "N"])
def test_fork_without_memory_fails_and_nothing_else(instance: Instance, edmm: str) -> None:
    text = instance.root / "Occlum.json"
    small = text.read_text().replace('"4GB"', '"64MB"').replace('"256MB"', '"16MB"')
    text.write_text(small)
    program = instance.root / "no_memory"
    subprocess.run(["gcc", "-O1", "-o", program, SCRIPTS / "no_memory.c"], check=True)
    assert instance.occlum("add", program).returncode == 0
    instance.build("--enable-edmm", edmm)
    done = instance.run("/usr/local/bin/no_memory")
    assert (done.stdout, done.returncode) == (b"no memory, then enough\n", 0), done.stderr

"""Real programs on plain Linux with every site of their C library patched.

The preloaded `apply_sites.c` does with the tables what the kernel does, so a wrong window or stub
breaks these programs here, where it can be looked at with ordinary tools.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from occlum.elf.sites import analyse, encode

HERE = Path(__file__).parent
LIBC = Path("/lib/x86_64-linux-gnu/libc.so.6")
LOADER = Path("/lib64/ld-linux-x86-64.so.2")

PYTHON_PROGRAM = """
import os, socket, subprocess, tempfile, threading, time, signal, select
assert subprocess.run(["/bin/echo", "hi"], capture_output=True).stdout == b"hi\\n"
pid = os.fork()
if pid == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
total = []
threads = [threading.Thread(target=lambda: (time.sleep(0.001), total.append(1))) for _ in range(50)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(total) == 50
a, b = socket.socketpair(); a.sendall(b"x" * 1000); assert len(b.recv(2000)) == 1000
with tempfile.TemporaryDirectory() as d:
    p = os.path.join(d, "f"); open(p, "w").write("text"); os.rename(p, p + "2")
    assert open(p + "2").read() == "text" and os.listdir(d) == ["f2"]
got = []
signal.signal(signal.SIGALRM, lambda *_: got.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.01)
while not got: select.select([], [], [], 0.05)
print("all well")
"""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment that patches a glibc program."""
    if "avx512f" not in Path("/proc/cpuinfo").read_text(encoding="ascii"):
        pytest.skip("this CPU has no XMM31 to keep the return address in")
    directory = tmp_path_factory.mktemp("patched")
    library = directory / "apply_sites.so"
    subprocess.run(
        [
            "gcc",
            "-O1",
            "-Wall",
            "-fPIC",
            "-shared",
            "-D_GNU_SOURCE",
            "-o",
            library,
            HERE / "apply_sites.c",
        ],
        check=True,
    )
    pairs = []
    for path in (LIBC, LOADER):
        table = directory / f"{path.name}.sites"
        table.write_bytes(encode(analyse(path.resolve()).sites))
        pairs.append(f"{path.name}={table}")
    return {"LD_PRELOAD": str(library), "SITES": " ".join(pairs)}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["/bin/ls", "-l", "/usr"], "share"),
        (["/bin/sh", "-c", "seq 1 1000 | sort -rn | head -1; exit 0"], "1000"),
        (["/usr/bin/python3", "-c", PYTHON_PROGRAM], "all well"),
        (
            ["/usr/bin/perl", "-e", 'print `echo from perl`; print sort(<STDIN>), "\\n"'],
            "from perl",
        ),
        (["/usr/bin/gcc", "--version"], "gcc"),
    ],
    ids=["ls", "sh", "python", "perl", "gcc"],
)
def test_a_program_runs_with_every_site_patched(command, says, patched, tmp_path):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    report = tmp_path / "report"
    done = subprocess.run(
        command,
        env={**os.environ, **patched, "SITES_REPORT": str(report)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert max(int(line) for line in report.read_text().split()) > 10

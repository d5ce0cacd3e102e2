"""The encrypted store in ``run/``: what lasts, what is refused, and what is never done to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import OCCLUM, Instance, MakeInstance

KILLS = int(os.environ.get("OCCLUM_KILLS", "3"))

WRITER = """
import os, sqlite3, sys
db = sqlite3.connect("/data/test.db", isolation_level=None)
db.execute("PRAGMA journal_mode=" + sys.argv[1])
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE IF NOT EXISTS t (i INTEGER PRIMARY KEY, text)")
log = os.open("/data/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC)
first = db.execute("SELECT COALESCE(MAX(i), 0) FROM t").fetchone()[0] + 1
for i in range(first, first + 100000):
    db.execute("INSERT INTO t VALUES (?, ?)", (i, "x" * (i % 500)))
    os.write(log, b"%d\\n" % i)
    print(i, flush=True)
"""

CHECK = """
import sqlite3
db = sqlite3.connect("/data/test.db")
assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
rows = db.execute("SELECT COUNT(*), MAX(i) FROM t").fetchone()
assert all(len(text) == i % 500 for i, text in db.execute("SELECT * FROM t"))
lines = open("/data/log").read().split("\\n")[:-1]
print(rows[0], rows[1], lines[-1])
"""


MOUNTER = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
KEY = ",key=" + bytes(range(32)).hex("-")
def mount(kind, options):
    done = libc.mount(b"none", b"/data", kind, 0, options.encode())
    return "ok" if done == 0 else errno.errorcode[ctypes.get_errno()]
def umount():
    assert libc.umount2(b"/data", 0) == 0
print(mount(b"sefs", "dir=run/one" + KEY))
open("/data/file", "w").write("text")
print("in use:", mount(b"sefs", "dir=run/one" + KEY))
umount()
print("wrong key:", mount(b"sefs", "dir=run/one" + KEY.replace("1f", "ff")))
print("no key:", mount(b"sefs", "dir=run/one"))
print(mount(b"sefs", "dir=run/one" + KEY), open("/data/file").read())
umount()
for _ in range(2):
    print(mount(b"unionfs", "lowerdir=run/one,upperdir=run/two" + KEY), os.listdir("/data"))
    if os.path.exists("/data/file"):
        open("/data/file", "a").write(", more")
        os.rename("/data/file", "/data/moved")
    print(open("/data/moved").read())
    umount()
print(mount(b"sefs", "dir=run/none" + KEY), mount(b"sefs", KEY[1:]), mount(b"sefs", "dir=x,key=z"))
"""

MOUNTED = """\
ok
in use: EBUSY
wrong key: EACCES
no key: EACCES
ok text
ok ['file']
text, more
ok ['moved']
text, more
ENOENT EINVAL EINVAL
"""


def configure(instance: Instance, **options: object) -> None:
    """Options of the writable layer of the root."""
    config = instance.root / "Occlum.json"
    text = re.sub(r"^\s*//.*$", "", config.read_text(), flags=re.MULTILINE)
    value = json.loads(text)
    layers = value["mount"][0]["options"]["layers"]
    layers[1]["options"] = options
    config.write_text(json.dumps(value, indent=1))


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance) -> Instance:
    def prepare(instance: Instance) -> None:
        (instance.image / "data").mkdir()
        (instance.image / "lower").mkdir()
        (instance.image / "lower/one").write_text("one\n")
        (instance.image / "lower/two").write_text("two\n")
        scripts = {"writer.py": WRITER, "check.py": CHECK, "mounter.py": MOUNTER}
        for name, text in scripts.items():
            (instance.image / name).write_text(text)

    return make_instance("store", "/bin/sh", *programs(), prepare=prepare)


def programs() -> list[str]:
    return ["/bin/cat", "/bin/ls", "/bin/mv", "/bin/rm", "/bin/sync", "/usr/bin/python3"]


@pytest.fixture
def instance(built: Instance) -> Iterator[Instance]:
    """The built instance without a store."""
    shutil.rmtree(built.root / "run/mount")
    (built.root / "run/mount/__ROOT").mkdir(parents=True)
    yield built


def store_of(instance: Instance) -> Path:
    return instance.root / "run/mount/__ROOT/store.occ"


def shell(instance: Instance, script: str) -> str:
    done = instance.run("/bin/sh", "-ec", script)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.enclave
def test_what_one_run_writes_the_next_one_sees_also_after_a_build(instance: Instance):
    shell(instance, "echo first >/data/file; rm /lower/one; mv /lower /moved")
    shell(instance, "echo more >>/moved/two")
    assert shell(instance, "cat /data/file; ls /moved; cat /moved/two") == "first\ntwo\ntwo\nmore\n"
    added = instance.image / "added"
    added.write_text("a new version\n")
    instance.build()
    try:
        seen = shell(instance, "cat /data/file /moved/two /added; ls /")
        assert seen.startswith("first\ntwo\nmore\na new version\n")
        assert "lower" not in seen
    finally:
        added.unlink()
        instance.build()


@pytest.mark.enclave
def test_two_enclaves_on_one_store_are_refused(instance: Instance):
    command = [OCCLUM, "run", "/bin/sh", "-c", "echo ready; read line"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=instance.root, stdin=pipe, stdout=pipe) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"ready\n"
        second = instance.run("/bin/cat", "/data/none")
        first.communicate(b"\n")
    assert second.returncode != 0
    assert b"in use by another enclave\nhint: " in second.stderr


@pytest.mark.enclave
@pytest.mark.parametrize("place", ["superblocks", "end"])
def test_a_changed_store_is_refused_and_left_as_it_is(instance: Instance, place: str):
    shell(instance, "echo text >/data/file")
    store = store_of(instance)
    content = bytearray(store.read_bytes())
    if place == "superblocks":
        content[100] ^= 1
        content[4096 + 100] ^= 1
    else:
        del content[8192:]
    store.write_bytes(content)
    done = instance.run("/bin/cat", "/data/file")
    assert done.returncode != 0
    assert b"store.occ can't be used: the store" in done.stderr
    assert b"hint: " in done.stderr
    assert store.read_bytes() == content


@pytest.mark.enclave
def test_the_store_of_another_signer_is_refused(instance: Instance, tmp_path: Path):
    shell(instance, "echo text >/data/file")
    before = store_of(instance).read_bytes()
    key = tmp_path / "key.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    make = [openssl, "genrsa", "-3", "-out", str(key), "3072"]
    subprocess.run(make, check=True, capture_output=True)
    built = instance.occlum("build", "--sign-key", key)
    assert built.returncode == 0, built.stderr.decode()
    try:
        done = instance.run("/bin/cat", "/data/file")
        assert done.returncode != 0
        assert b"the key is not the store's key\nhint: " in done.stderr
        assert store_of(instance).read_bytes() == before
    finally:
        instance.build()


@pytest.mark.enclave
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_every_committed_transaction_survives_kill_9(instance: Instance, mode: str):
    kill_writers(instance, mode, KILLS)


def kill_writers(instance: Instance, mode: str, kills: int) -> None:
    """Kills the whole program under a writer; `make kill-soak` does it 200 times."""
    python = "/usr/bin/python3"
    command = [str(OCCLUM), "run", python, "/writer.py", mode]
    for kill in range(kills):
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=instance.root, stdout=pipe, stderr=pipe) as writer:
            assert writer.stdout is not None
            told = 0
            for line in writer.stdout:
                told = int(line)
                if told % 40 >= 20 + kill % 20:
                    break
            writer.send_signal(signal.SIGKILL)
            rest = [line for line in writer.stdout.read().split(b"\n")[:-1] if line]
        told = int(rest[-1]) if rest else told
        assert told > 0, "the writer wrote nothing"
        done = instance.run(python, "/check.py")
        assert done.returncode == 0, done.stderr.decode()
        count, last, logged = map(int, done.stdout.split())
        assert count == last
        assert last in (told, told + 1)
        assert logged in (told, told + 1)


@pytest.mark.enclave
def test_a_temporary_layer_leaves_nothing(instance: Instance):
    text = (instance.root / "Occlum.json").read_text()
    configure(instance, temporary=True)
    instance.build()
    try:
        shell(instance, "echo text >/data/file")
        assert shell(instance, "ls /data") == ""
        assert not store_of(instance).exists()
    finally:
        (instance.root / "Occlum.json").write_text(text)
        instance.build()


@pytest.mark.enclave
def test_a_full_store_says_so_and_stays_healthy(instance: Instance):
    text = (instance.root / "Occlum.json").read_text()
    configure(instance, disk_size="16MB")
    instance.build()
    try:
        fill = (
            "import os, errno\n"
            "f = os.open('/data/big', os.O_WRONLY | os.O_CREAT)\n"
            "try:\n"
            "    while True: os.write(f, b'x' * 65536)\n"
            "except OSError as e: print(errno.errorcode[e.errno])\n"
            "os.unlink('/data/big'); os.close(f)\n"
            "open('/data/small', 'w').write('fits\\n'); os.sync()\n"
        )
        done = instance.run("/usr/bin/python3", "-c", fill)
        assert (done.returncode, done.stdout) == (0, b"ENOSPC\n"), done.stderr.decode()
        assert shell(instance, "cat /data/small") == "fits\n"
    finally:
        (instance.root / "Occlum.json").write_text(text)
        instance.build()


@pytest.mark.enclave
def test_programs_mount_stores_with_keys_of_their_own(instance: Instance):
    for name in ("one", "two"):
        (instance.root / "run" / name).mkdir()
    done = instance.run("/usr/bin/python3", "/mounter.py")
    assert (done.returncode, done.stdout.decode()) == (0, MOUNTED), done.stderr.decode()


@pytest.mark.enclave
def test_stores_are_mounted_at_any_target(instance: Instance):
    path = instance.root / "Occlum.json"
    text = path.read_text()
    config = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    layers = [
        {"target": "/", "type": "sefs", "source": "./build/mount/lower"},
        {"target": "/", "type": "sefs", "source": "./run/mount/lower"},
    ]
    config["mount"] += [
        {"target": "/data", "type": "sefs", "source": "./run/mount/data"},
        {"target": "/lower", "type": "unionfs", "options": {"layers": layers}},
    ]
    path.write_text(json.dumps(config))
    instance.build()
    try:
        shell(instance, "echo own >/data/file; rm /lower/one; echo new >>/lower/two; ls /lower")
        (instance.root / "run/mount/__ROOT/store.occ").unlink()
        assert shell(instance, "cat /data/file /lower/two") == "own\ntwo\nnew\n"
        mounts = shell(instance, "cat /proc/mounts")
        assert "./run/mount/data /data sefs rw,relatime 0 0" in mounts
        assert "./run/mount/lower /lower unionfs rw,relatime 0 0" in mounts
        assert "./run/mount/__ROOT / unionfs rw,relatime 0 0" in mounts
    finally:
        path.write_text(text)
        instance.build()

"""A host that lies, one lie for each test: the kernel must name the lie and stop, or go on with
nothing wrong. What it must never do is give a program wrong data, or fall in another way.

The liar is an example of the host's crate (`crates/host/examples/lying-host`): the host program
with one lie put in. `witness.c` runs inside, does what needs the host, and checks all it gets.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance, keep_nothing

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WITNESS = "/usr/local/bin/witness"
MEMBERS = "/usr/local/bin/members"
REGISTERS = "/usr/local/bin/registers"
LESSON = "/opt/lesson"
LESSON_SIZE = 300_000
TIMEOUT_S = 60

STOPPED = 125
WRONG = 9
FAILED = 3


@dataclass(frozen=True)
class Outcome:
    """How a run ends: its status, and what it says on standard error."""

    status: int
    says: str = ""


RIGHT = Outcome(0)
# exec gave up after it had left the old program: SIGKILL, as on Linux.
KILLED = Outcome(128 + 9)


def stops(lie: str) -> Outcome:
    """The enclave stops and names the lie, in as many bytes as four registers hold."""
    return Outcome(STOPPED, f"the enclave has stopped: the host misbehaved: {lie[:32]}\n")


def cannot_start(reason: str) -> Outcome:
    return Outcome(STOPPED, reason)


def fails(call: str = "") -> Outcome:
    """The program is told an errno. The text is lost where that leaves it without a console."""
    return Outcome(FAILED, f"witness: {call}: " if call else "")


POINTER = "a pointer into the enclave"
UNREADABLE = "inaccessible host memory"
CLOCK = "impossible clock parameters"
CHANGED = "a changed block of the image"

HANDOVER = {
    "other-command": stops("handover: command"),
    "info-inside-the-enclave": stops(POINTER),
    "info-in-user-memory": stops(POINTER),
    "info-across-the-enclaves-end": stops(POINTER),
    "info-not-canonical": stops(POINTER),
    "info-at-the-end-of-addresses": stops(POINTER),
    "info-not-there": stops(UNREADABLE),
    "info-null": stops(POINTER),
    "other-version": stops("handover: version"),
    "no-vcpus": stops("handover: vcpus"),
    "more-vcpus-than-measured": stops("handover: vcpus"),
    "shared-page-inside-the-enclave": stops(POINTER),
    "shared-page-misaligned": stops("handover: shared"),
    "shared-page-not-there": stops(UNREADABLE),
    "staging-inside-the-enclave": stops(POINTER),
    "staging-across-the-enclaves-end": stops(POINTER),
    "staging-misaligned": stops("handover: staging"),
    "staging-small": stops("handover: staging"),
    "staging-huge": stops(POINTER),
    "staging-wraps-around": stops(POINTER),
    "staging-not-there": stops(UNREADABLE),
    "xfrm-without-sse": stops("handover: xfrm"),
    "xfrm-without-avx": stops("handover: xfrm"),
    "xsave-size-zero": stops("handover: xsave_size"),
    "xsave-size-of-less-state": stops("handover: xsave_size"),
    "xsave-size-huge": stops("handover: xsave_size"),
    "image-inside-the-enclave": stops(POINTER),
    "image-into-the-enclave": stops(POINTER),
    "image-wraps-around": stops(POINTER),
    "image-not-there": cannot_start("the image file can't be read"),
    "image-empty": cannot_start("the image file can't be read"),
    "image-shorter": cannot_start("the image file has"),
    "image-longer": cannot_start("the image file has"),
    "request-inside-the-enclave": stops(POINTER),
    "request-too-large": stops("handover: request_size"),
    "request-longer-than-it-is": stops(UNREADABLE),
    "request-cut-short": stops("handover: request"),
    "request-empty": stops("handover: request"),
    "request-is-something-else": stops("handover: request"),
}

# What programs see when a call fails with an errno that is none of its own.
ERRNOS = {
    "Protect": stops("no memory for the kernel"),
    "Release": fails("madvise"),
    "Install": KILLED,
    "Read": fails("standard input"),
    "Write": fails("write"),
    "ReadAt": fails("pread"),
    "WriteAt": fails("pwrite"),
    "Close": RIGHT,
    "EventAdd": RIGHT,
    "Fstat": fails(),
    "Ioctl": RIGHT,
    "Open": cannot_start("can't mount /host"),
    "Stat": fails("chdir"),
    "ReadDir": fails("readdir"),
    "Mkdir": fails("mkdir"),
    "Unlink": fails("unlink"),
    "Rename": fails("rename"),
    "Symlink": fails("symlink"),
    "ReadLink": fails("readlink"),
    "Link": fails("link"),
    "Chmod": fails("fchmod"),
    "Chown": fails("chown"),
    "Utimes": fails("utimensat"),
    "Truncate": fails("ftruncate"),
    "Sync": fails("fsync"),
    "StatFs": fails("fstatfs"),
    "SocketOpen": fails("bind"),
    "SocketBind": fails("bind"),
    "SocketListen": fails("listen"),
    "SocketAccept": fails("accept"),
    "SocketConnect": fails("connect"),
    "SocketShutdown": fails("shutdown"),
    "SocketName": fails("bind"),
    "SocketSend": fails("send"),
    "SocketReceive": fails("recv"),
    "SocketSendTo": fails("sendto"),
    "SocketReceiveFrom": fails("recvfrom"),
    "SocketSetOption": fails("setsockopt"),
    "SocketGetOption": fails("getsockopt"),
    # The attempt tells.
    "SocketPoll": RIGHT,
    "SocketPending": fails("FIONREAD"),
    "Interfaces": RIGHT,
    # Nobody is heard; the program runs.
    "TakeRequest": RIGHT,
    "Answer": RIGHT,
}

ANSWERS = {
    **{
        f"{call}:{kind}": stops(f"{call}: {what}")
        for call in [*ERRNOS, "Park"]
        for kind, what in [
            ("one-too-many", "impossible length"),
            ("other-errno", "impossible result"),
            ("smallest", "impossible result"),
        ]
    },
    **{f"{call}:wrong-errno": outcome for call, outcome in ERRNOS.items()},
    # Nothing depends on what these answer.
    **{f"{call}:addresses": RIGHT for call in ["Log", "Wake", "Kick", "StartTicker", "UpdateTime"]},
    "Read:addresses": stops("Read: impossible length"),
    "ReadDir:addresses": stops("ReadDir: impossible length"),
    "Protect:claimed": stops("Protect: impossible result"),
    "Protect:claimed-for-programs": cannot_start("user memory can't be set up"),
    "Read:noise": RIGHT,
    "Park:noise": RIGHT,
    "Park:strange-events": RIGHT,
    "PollEvents:noise": RIGHT,
    "PollEvents:strange-events": RIGHT,
    "Fstat:strange-stat": fails(),
    "Stat:strange-stat": fails(),
    "ReadDir:strange-content": fails("readdir"),
    "TakeRequest:strange-content": stops("a request that is none"),
    # Contents of hostfs are the host's to choose.
    "ReadLink:strange-content": RIGHT,
    "StatFs:strange-content": RIGHT,
    "SocketOpen:standard-descriptor": stops("SocketOpen: bad descriptor"),
    "SocketAccept:standard-descriptor": stops("SocketAccept: bad descriptor"),
    "SocketOpen:descriptor-given-twice": stops("SocketOpen: bad descriptor"),
    "SocketAccept:descriptor-given-twice": stops("SocketAccept: bad descriptor"),
    "SocketName:other-family": stops("SocketName: bad address"),
    "SocketAccept:other-family": stops("SocketAccept: bad address"),
    "SocketReceiveFrom:other-family": stops("SocketReceiveFrom: bad address"),
    "SocketAccept:address-size": stops("SocketAccept: bad address"),
    "SocketReceiveFrom:address-size": stops("SocketReceiveFrom: bad address"),
    "SocketAccept:strange-content": stops("SocketAccept: bad descriptor"),
    "SocketName:strange-content": stops("SocketName: bad address"),
    "SocketReceiveFrom:strange-content": stops("SocketReceiveFrom: bad address"),
    "Interfaces:strange-content": RIGHT,
}

WORLD = {
    "clock-stands-still": stops(CLOCK),
    "clock-being-written-for-ever": stops(CLOCK),
    "clock-runs-back": RIGHT,
    "clock-counter-ahead": stops(CLOCK),
    "clock-at-the-end-of-time": stops(CLOCK),
    "shared-page-vanishes": stops(UNREADABLE),
    "staging-vanishes": stops(UNREADABLE),
    "image-vanishes": stops(UNREADABLE),
    "image-truncated": stops(UNREADABLE),
}

ENTRIES = {
    "kicks-at-10-khz": RIGHT,
    "kicks-at-30-khz": RIGHT,
    "kicks-that-the-handler-never-sees": RIGHT,
    "handler-thrice-for-each-kick": RIGHT,
    "handler-twice": RIGHT,
    "tcs-taken-twice": RIGHT,
    "poisoned-registers": RIGHT,
}

# Told where the root is an encrypted store, made anew.
BROKEN_DISK = cannot_start("can't be used: the store's file can't be read or written")
STORE_LIES = {
    "honest": RIGHT,
    "Lock:one-too-many": stops("Lock: impossible length"),
    "Lock:other-errno": stops("Lock: impossible result"),
    "Lock:smallest": stops("Lock: impossible result"),
    "Lock:wrong-errno": cannot_start("store.occ can't be opened"),
    "WriteAt:one-too-many": stops("WriteAt: impossible length"),
    "WriteAt:wrong-errno": BROKEN_DISK,
    "Sync:wrong-errno": BROKEN_DISK,
    "Fstat:strange-stat": BROKEN_DISK,
}

LIES = {"honest": RIGHT, **HANDOVER, **ANSWERS, **WORLD, **ENTRIES}

# These have tests of their own.
OTHERS = {
    *(lie for lie in STORE_LIES if lie.startswith("Lock:")),
    "more-vcpus-enter-than-told",
    "image-flickers",
    "image-bit-flipped@BYTE",
    "pages-refused-once@N",
    "pages-refused-from@N",
    "staging-flickers",
}

# Where a wrong context switch would show most.
UNDER_STORMS = [
    "kicks-at-30-khz",
    "handler-thrice-for-each-kick",
    "handler-twice",
    "poisoned-registers",
]


def lesson() -> bytes:
    """What `lesson` in witness.c gives."""
    return bytes((at * 2654435761 & 0xFFFF_FFFF) >> 24 for at in range(LESSON_SIZE))


@pytest.fixture(scope="session")
def lying_host() -> Path:
    """The liar, built from the sources of this tree."""
    # The packages of tests/rust: with others, cargo would build what they share once more.
    packages = [f"--package=occlum-{crate}" for crate in ["abi", "sgx", "storage", "host"]]
    command = ["cargo", "build", "--release", "--locked", *packages, "--example", "lying-host"]
    subprocess.run(command, cwd=ROOT, check=True)
    return ROOT / "target" / "release" / "examples" / "lying-host"


@pytest.fixture(scope="session")
def victim(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    """An instance with the witness and its lesson, and the holder of registers."""
    directory = tmp_path_factory.mktemp("programs")
    sources = [HERE / "witness.c", HERE / "members.c", HERE.parent / "enclave" / "registers.c"]
    programs = [directory / source.stem for source in sources]
    for source, program in zip(sources, programs, strict=True):
        command = ["gcc", "-O1", "-Wall", "-pthread", "-o", program, source]
        subprocess.run(command, check=True)

    def prepare(instance: Instance) -> None:
        target = instance.image / LESSON.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(lesson())
        # What the witness sends shall pass through the host.
        config = instance.root / "Occlum.json"
        text = config.read_text()
        assert '"loopback": "inside"' in text
        config.write_text(text.replace('"loopback": "inside"', '"loopback": "host"'))
        # What is told here is about other files.
        keep_nothing(instance)

    return make_instance("victim", *programs, prepare=prepare)


@pytest.fixture(scope="session")
def keeper(make_instance: MakeInstance, victim: Instance) -> Instance:
    """The same with an encrypted store as the layer over the image."""

    def prepare(instance: Instance) -> None:
        shutil.rmtree(instance.image)
        shutil.copytree(victim.image, instance.image, symlinks=True)

    return make_instance("keeper", prepare=prepare)


@dataclass(frozen=True)
class Liar:
    """The lying host over a copy of the victim's build directory."""

    program: Path
    directory: Path

    def command(self, lie: str, *program: str) -> list[str | Path]:
        return [self.program, lie, "run", "--build-dir", "build", "--", *program]

    def run(self, lie: str) -> tuple[int, str, str]:
        """Status, standard output and standard error of the witness under a lie."""
        status, out, said = self.run_anyway(lie)
        assert status != WRONG, f"the witness got something wrong: {said}"
        assert out in ("", "right\n")
        return status, out, said

    def run_anyway(self, lie: str) -> tuple[int, str, str]:
        """The same for a lie about what is the host's to choose."""
        process = subprocess.Popen(
            self.command(lie, WITNESS, LESSON, "/host/exchange"),
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # What a buffer read beyond the first line would be lost to communicate().
            bufsize=0,
        )
        assert process.stderr is not None
        # Input comes only when the witness says that it waits, or never will.
        first = process.stderr.readline()
        try:
            out, err = process.communicate(lesson(), timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        texts = [text.decode(errors="replace") for text in (out, first + err)]
        return process.returncode, *texts


@pytest.fixture
def liar(lying_host: Path, victim: Instance, tmp_path: Path) -> Liar:
    shutil.copytree(victim.root / "build", tmp_path / "build")
    (tmp_path / "exchange").mkdir()
    return Liar(lying_host, tmp_path)


@pytest.mark.enclave
@pytest.mark.parametrize("lie", STORE_LIES)
def test_lie_about_a_store(lie: str, lying_host: Path, keeper: Instance, tmp_path: Path) -> None:
    shutil.copytree(keeper.root / "build", tmp_path / "build")
    (tmp_path / "exchange").mkdir()
    (tmp_path / "run/mount/__ROOT").mkdir(parents=True)
    status, _, said = Liar(lying_host, tmp_path).run(lie)
    expected = STORE_LIES[lie]
    assert (status, expected.says in said) == (expected.status, True), said


def test_every_lie_has_its_outcome(lying_host: Path) -> None:
    done = subprocess.run([lying_host, "lies"], check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) == LIES.keys() | OTHERS


@pytest.mark.enclave
@pytest.mark.parametrize("lie", LIES)
def test_lie(lie: str, liar: Liar) -> None:
    expected = LIES[lie]
    status, out, said = liar.run(lie)
    assert (status, expected.says in said) == (expected.status, True), said
    if expected == RIGHT:
        assert out == "right\n"


@pytest.mark.enclave
def test_more_vcpus_enter_than_the_kernel_was_told_of(liar: Liar) -> None:
    status, out, said = liar.run("more-vcpus-enter-than-told")
    # The vCPU too many may enter when the program has ended already, and with one processor there
    # is none. What else is told in that moment may stand between the lines.
    found_out = status == STOPPED and "the host misbehaved: handover: vcpus\n" in said
    assert (status, out) == (0, "right\n") or found_out, said


@pytest.mark.enclave
@pytest.mark.parametrize("part", range(16))
def test_a_changed_bit_of_the_image_is_found(part: int, liar: Liar) -> None:
    size = (liar.directory / "build" / "image.occ").stat().st_size
    at = min(size * part // 15, size - 1)
    status, out, said = liar.run(f"image-bit-flipped@{at}")
    if status == 0:
        assert out == "right\n"  # Nobody read that block.
        return
    assert status == STOPPED, said
    assert CHANGED in said or "the file-system image can't be used" in said


@pytest.mark.enclave
def test_an_image_that_changes_while_it_is_read_is_found(liar: Liar) -> None:
    status, out, said = liar.run("image-flickers")
    if status == 0:
        assert out == "right\n"
        return
    assert status == STOPPED, said
    assert CHANGED in said or "the file-system image can't be used" in said


@pytest.mark.enclave
def test_buffers_that_change_while_they_are_read_do_no_harm(liar: Liar) -> None:
    status, _, said = liar.run_anyway("staging-flickers")
    is_named = status == STOPPED and "the host misbehaved" in said
    assert is_named or status in (0, FAILED, WRONG), said


@pytest.mark.enclave
@pytest.mark.parametrize("lie", UNDER_STORMS)
def test_registers_are_kept_under(lie: str, liar: Liar) -> None:
    command = liar.command(lie, REGISTERS, "1500")
    done = subprocess.run(
        command, cwd=liar.directory, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b": not mixed\n")


@pytest.mark.enclave
@pytest.mark.parametrize(
    "lie",
    [f"pages-refused-once@{number}" for number in range(60, 400, 37)]
    + [f"pages-refused-from@{number}" for number in (90, 150, 222, 307)],
)
def test_processes_that_take_turns_survive_refused_pages_or_end(lie: str, liar: Liar) -> None:
    """What they see is theirs, whatever fails; the kernel goes on."""
    done = subprocess.run(
        liar.command(lie, MEMBERS),
        cwd=liar.directory,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        text=True,
    )
    assert done.returncode not in (WRONG, STOPPED), done.stderr
    assert done.returncode == 0 or done.stdout != "right\n"

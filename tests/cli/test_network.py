"""Who reaches whom: listeners of the enclave from the host, and the host's from inside."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import OCCLUM, Instance, MakeInstance

pytestmark = pytest.mark.enclave

PYTHON = "/usr/bin/python3"
SERVER = "/opt/serve.py"
TIMEOUT_S = 30

# Echoes for ever on each address given as host:port, with one epoll for all; says when it is ready.
SERVE = """
import selectors, socket, sys
ready = selectors.DefaultSelector()
for argument in sys.argv[1:]:
    host, port = argument.rsplit(":", 1)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen(1000)
    listener.setblocking(False)
    ready.register(listener, selectors.EVENT_READ, True)
print("ready", flush=True)
waiting = {}
while True:
    for key, events in ready.select():
        sock = key.fileobj
        if key.data is True:
            connection, _ = sock.accept()
            connection.setblocking(False)
            waiting[connection] = b""
            ready.register(connection, selectors.EVENT_READ)
            continue
        try:
            if events & selectors.EVENT_READ and len(waiting[sock]) < 1 << 20:
                data = sock.recv(1 << 16)
                if not data and not waiting[sock]:
                    raise ConnectionError
                waiting[sock] += data
            if waiting[sock]:
                waiting[sock] = waiting[sock][sock.send(waiting[sock]):]
        except BlockingIOError:
            pass
        except OSError:
            ready.unregister(sock)
            del waiting[sock]
            sock.close()
            continue
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if waiting[sock] else 0)
        ready.modify(sock, wanted)
"""

# Says what a connection to each address ends with.
REACH = """
import errno, socket, sys
for argument in sys.argv[1:]:
    host, port = argument.rsplit(":", 1)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        print(argument, errno.errorcode.get(sock.connect_ex((host, int(port))), "connected"))
"""


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance) -> Instance:
    def prepare(instance: Instance) -> None:
        target = instance.image / "opt"
        target.mkdir(exist_ok=True)
        (target / "serve.py").write_text(SERVE)
        (target / "reach.py").write_text(REACH)

    return make_instance("network", PYTHON, prepare=prepare)


@pytest.fixture
def configured(built: Instance, tmp_path: Path) -> Iterator[object]:
    """Makes an instance with another `network` section."""

    def configure(**network: str) -> Instance:
        root = tmp_path / "instance"
        shutil.copytree(built.root, root, symlinks=True)
        config = root / "Occlum.json"
        text = config.read_text()
        for key, value in network.items():
            default = {"outside": "true", "loopback": '"inside"', "publish": "[]"}[key]
            assert f'"{key}": {default}' in text
            text = text.replace(f'"{key}": {default}', f'"{key}": {value}')
        config.write_text(text)
        instance = Instance(root)
        instance.build()
        return instance

    return iter([configure])


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


@contextlib.contextmanager
def serving(instance: Instance, *addresses: str) -> Iterator[subprocess.Popen[str]]:
    """The server inside, for as long as it is needed."""
    command = [str(OCCLUM), "run", PYTHON, SERVER, *addresses]
    server = subprocess.Popen(
        command, cwd=instance.root, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def host_process(server: subprocess.Popen[str]) -> int:
    """The process that has the enclave."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == server.pid and "occlum-host" in (entry / "comm").read_text():
                return int(entry.name)
    raise AssertionError("no occlum-host runs")


def says(address: tuple[str, int], message: bytes = b"hello") -> bytes:
    with socket.create_connection(address, timeout=TIMEOUT_S) as sock:
        sock.sendall(message)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while data := sock.recv(1 << 16):
            got += data
        return got


def is_refused(address: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as sock:
        return sock.connect_ex(address) != 0


def test_a_wildcard_listener_is_reached_from_the_host_and_a_loopback_one_is_not(
    built: Instance,
) -> None:
    wild, own = free_ports(2)
    with serving(built, f"0.0.0.0:{wild}", f"127.0.0.1:{own}"):
        assert says(("127.0.0.1", wild)) == b"hello"
        assert is_refused(("127.0.0.1", own))


def test_published_loopback_ports_are_reached(configured: Iterator[object]) -> None:
    one, other = free_ports(2)
    instance = next(configured)(publish=f"[{one}]")  # type: ignore[operator]
    with serving(instance, f"127.0.0.1:{one}", f"127.0.0.1:{other}", f"::1:{one}"):
        assert says(("127.0.0.1", one)) == b"hello"
        assert says(("::1", one)) == b"hello"
        assert is_refused(("127.0.0.1", other))


def test_loopback_of_the_host_is_reached_if_configured(
    built: Instance, configured: Iterator[object]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        inside = built.run(PYTHON, "/opt/reach.py", address)
        assert inside.stdout.decode() == f"{address} ECONNREFUSED\n"
        instance = next(configured)(loopback='"host"')  # type: ignore[operator]
        outside = instance.run(PYTHON, "/opt/reach.py", address)
        assert outside.stdout.decode() == f"{address} connected\n"


def test_without_outside_nothing_gets_in_or_out(configured: Iterator[object]) -> None:
    (port,) = free_ports(1)
    instance = next(configured)(outside="false")  # type: ignore[operator]
    done = instance.run(PYTHON, "/opt/reach.py", "192.0.2.1:80", "2001:db8::1:80")
    assert done.stdout == b"192.0.2.1:80 ENETUNREACH\n2001:db8::1:80 ENETUNREACH\n"
    with serving(instance, f"0.0.0.0:{port}"):
        assert is_refused(("127.0.0.1", port))


def test_a_port_in_use_on_the_host_is_in_use(built: Instance) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        done = built.run(PYTHON, SERVER, f"0.0.0.0:{port}")
        assert done.returncode == 1
        assert b"Address already in use" in done.stderr


def test_contradictions_are_refused(built: Instance, tmp_path: Path) -> None:
    root = tmp_path / "instance"
    shutil.copytree(built.root, root, symlinks=True)
    config = root / "Occlum.json"
    text = config.read_text().replace('"outside": true', '"outside": false')
    config.write_text(text.replace('"publish": []', '"publish": "all"'))
    done = Instance(root).occlum("build")
    assert done.returncode != 0
    assert b"network.publish" in done.stderr
    assert b'hint: write "outside": true' in done.stderr


def test_stopping_the_host_process_in_the_middle_of_a_transfer_loses_nothing(
    built: Instance,
) -> None:
    (port,) = free_ports(1)
    message = os.urandom(1 << 20) * 24
    with serving(built, f"0.0.0.0:{port}") as server:
        pid = host_process(server)
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as sock:
            sock.setblocking(False)
            sent, got, stops = 0, bytearray(), 0
            deadline = time.monotonic() + TIMEOUT_S
            while len(got) < len(message) and time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    sent += sock.send(message[sent : sent + (1 << 18)])
                with contextlib.suppress(BlockingIOError):
                    got += sock.recv(1 << 18)
                if len(got) > (stops + 1) << 20:
                    stops += 1
                    os.kill(pid, signal.SIGSTOP)
                    os.kill(pid, signal.SIGCONT)
        assert stops > 5
        assert bytes(got) == message


def test_an_idle_server_uses_no_processor_and_keeps_no_descriptors(built: Instance) -> None:
    (port,) = free_ports(1)
    with serving(built, f"0.0.0.0:{port}") as server:
        pid = host_process(server)
        descriptors = Path(f"/proc/{pid}/fd")
        assert says(("127.0.0.1", port)) == b"hello"
        before = len(list(descriptors.iterdir()))
        for number in range(200):
            if number % 2:
                assert says(("127.0.0.1", port)) == b"hello"
            else:
                with socket.create_connection(("127.0.0.1", port)) as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *[0] * 7]))
        assert says(("127.0.0.1", port)) == b"hello"
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        assert says(("127.0.0.1", port)) == b"hello"
        used = processor_time(pid)
        time.sleep(1)
        assert processor_time(pid) - used <= 0.03
        for sock in idle:
            sock.close()
        wait_until(lambda: len(list(descriptors.iterdir())) <= before)


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.01)

"""Servers from Debian's packages and a Go program, unmodified, inside; their clients on the host.

Everything listens on 127.0.0.1, whose ports the instance publishes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import OCCLUM, Instance, MakeInstance

pytestmark = pytest.mark.enclave

TIMEOUT_S = 60
PYTHON = "/usr/bin/python3"
PROGRAMS = (
    PYTHON,
    "/bin/sh",
    "/usr/bin/redis-server",
    "/usr/bin/redis-cli",
    "/usr/sbin/nginx",
    "/usr/sbin/lighttpd",
    "/usr/bin/memcached",
    "/usr/sbin/mosquitto",
    "/usr/bin/iperf3",
    "/usr/bin/openssl",
    "/usr/bin/curl",
    "/usr/bin/node",
)
TESTSUITE = Path("/usr/lib/python3.11/test")

NGINX = """
user root;
worker_processes 2;
daemon off;
pid /tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
  access_log off;
  sendfile on;
  client_body_temp_path /tmp/n1; proxy_temp_path /tmp/n2; fastcgi_temp_path /tmp/n3;
  uwsgi_temp_path /tmp/n4; scgi_temp_path /tmp/n5;
  server { listen 127.0.0.1:PORT; root /opt/www; }
}
"""
LIGHTTPD = """
server.document-root = "/opt/www"
server.port = PORT
server.bind = "127.0.0.1"
server.max-worker = 2
"""
MOSQUITTO = """
listener PORT 127.0.0.1
allow_anonymous true
user root
"""
ASYNCIO = """
import asyncio, sys
async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""
NODE = """
require('http').createServer((request, answer) => answer.end(`hello ${request.url}`))
    .listen(+process.argv[2], '127.0.0.1');
"""
GO = """
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.URL.Path)
	})
	panic(http.ListenAndServe(os.Args[1], nil))
}
"""


@dataclass(frozen=True)
class Servers:
    """The instance, and a port for each server."""

    instance: Instance
    ports: dict[str, int]

    @contextlib.contextmanager
    def serving(self, name: str, *command: str) -> Iterator[tuple[str, int]]:
        """Runs a server until it is no longer needed; gives its address once it answers."""
        if not Path(self.instance.image / command[0].lstrip("/")).exists():
            pytest.skip(f"{command[0]} is not installed")
        address = ("127.0.0.1", self.ports[name])
        process = subprocess.Popen(
            [str(OCCLUM), "run", *command],
            cwd=self.instance.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            await_listener(address, process)
            yield address
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def await_listener(address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address):
            return
        assert process.poll() is None, f"the server ended with {process.returncode}"
        assert time.monotonic() < deadline, "nobody listens"
        time.sleep(0.05)


NAMES = ["redis", "nginx", "lighttpd", "memcached", "mosquitto", "iperf3", "openssl"]
NAMES += ["http", "asyncio", "node", "go"]


@pytest.fixture(scope="module")
def servers(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Servers:
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in NAMES]
    ports = {name: sock.getsockname()[1] for name, sock in zip(NAMES, socks, strict=True)}
    for sock in socks:
        sock.close()
    directory = tmp_path_factory.mktemp("servers")

    def prepare(instance: Instance) -> None:
        target = instance.image / "opt"
        (target / "www").mkdir(parents=True)
        (target / "www/small").write_text("small file\n")
        (target / "www/big").write_bytes(bytes(range(256)) * 4096)
        for name, text in [("nginx", NGINX), ("lighttpd", LIGHTTPD), ("mosquitto", MOSQUITTO)]:
            (target / f"{name}.conf").write_text(text.replace("PORT", str(ports[name])))
        (target / "asyncio_server.py").write_text(ASYNCIO)
        (target / "server.js").write_text(NODE)
        certificate(target)
        if TESTSUITE.is_dir():
            assert instance.occlum("add", TESTSUITE, timeout=300).returncode == 0
        if shutil.which("go"):
            (directory / "server.go").write_text(GO)
            command = ["go", "build", "-o", directory / "goserver", "server.go"]
            subprocess.run(command, check=True, cwd=directory)
            shutil.copy(directory / "goserver", target / "goserver")
        config = instance.root / "Occlum.json"
        text = config.read_text()
        assert '"publish": []' in text
        config.write_text(text.replace('"publish": []', '"publish": "all"'))

    present = [program for program in PROGRAMS if Path(program).exists()]
    return Servers(make_instance("servers", *present, prepare=prepare), ports)


def certificate(directory: Path) -> None:
    if not shutil.which("openssl"):
        return
    names = ["-keyout", directory / "key.pem", "-out", directory / "cert.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names]
    command += ["-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(command, check=True, capture_output=True)


def fetch(address: tuple[str, int], path: str) -> bytes:
    url = f"http://{address[0]}:{address[1]}/{path}"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        return bytes(answer.read())


def exchange(address: tuple[str, int], message: bytes, end: bytes) -> bytes:
    with socket.create_connection(address, timeout=TIMEOUT_S) as sock:
        sock.sendall(message)
        got = b""
        while not got.endswith(end):
            data = sock.recv(1 << 16)
            assert data, f"the connection ended after {got!r}"
            got += data
        return got


def test_redis_serves_its_benchmark(servers: Servers) -> None:
    if not shutil.which("redis-benchmark"):
        pytest.skip("redis-benchmark is not installed")
    port = str(servers.ports["redis"])
    with servers.serving("redis", "/usr/bin/redis-server", "--port", port, "--save", ""):
        # All of its tests, briefly.
        command = ["redis-benchmark", "-p", port, "-n", "500", "--csv"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) >= 15, done.stdout


def test_redis_and_its_client_meet_inside(servers: Servers) -> None:
    client = f"redis-cli -p {servers.ports['redis']}"
    script = (
        f"redis-server --port {servers.ports['redis']} --save '' >/dev/null & "
        f"until {client} ping >/dev/null 2>&1; do :; done; "
        f"{client} set key value; {client} get key; {client} shutdown nosave; wait"
    )
    if not (servers.instance.image / "usr/bin/redis-server").exists():
        pytest.skip("redis-server is not installed")
    done = servers.instance.run("/bin/sh", "-c", script)
    assert done.stdout == b"OK\nvalue\n", done.stderr.decode()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("nginx", ["/usr/sbin/nginx", "-c", "/opt/nginx.conf", "-e", "stderr"]),
        ("lighttpd", ["/usr/sbin/lighttpd", "-D", "-f", "/opt/lighttpd.conf"]),
        ("http", [PYTHON, "-m", "http.server", "-b", "127.0.0.1", "-d", "/opt/www", "PORT"]),
    ],
)
def test_files_are_served(servers: Servers, name: str, command: list[str]) -> None:
    command = [part.replace("PORT", str(servers.ports[name])) for part in command]
    with servers.serving(name, *command) as address:
        for _ in range(5):
            assert fetch(address, "small") == b"small file\n"
            assert fetch(address, "big") == bytes(range(256)) * 4096


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("node", ["/usr/bin/node", "/opt/server.js", "PORT"]),
        ("go", ["/opt/goserver", "127.0.0.1:PORT"]),
    ],
)
def test_http_of_a_language(servers: Servers, name: str, command: list[str]) -> None:
    command = [part.replace("PORT", str(servers.ports[name])) for part in command]
    with servers.serving(name, *command) as address:
        assert fetch(address, "path") == b"hello /path"


def test_asyncio(servers: Servers) -> None:
    port = str(servers.ports["asyncio"])
    with servers.serving("asyncio", PYTHON, "/opt/asyncio_server.py", port) as address:
        assert exchange(address, b"one\ntwo\n", b"TWO\n") == b"ONE\nTWO\n"


def test_memcached(servers: Servers) -> None:
    port = str(servers.ports["memcached"])
    command = ["/usr/bin/memcached", "-u", "root", "-l", "127.0.0.1", "-p", port]
    with servers.serving("memcached", *command) as address:
        got = exchange(address, b"set a 0 0 5\r\nhello\r\nget a\r\n", b"END\r\n")
        assert got == b"STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n"


def test_mosquitto(servers: Servers) -> None:
    command = ["/usr/sbin/mosquitto", "-c", "/opt/mosquitto.conf"]
    with servers.serving("mosquitto", *command) as address:
        # MQTT: CONNECT and its CONNACK, then PINGREQ and PINGRESP.
        connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"
        got = exchange(address, connect + b"\xc0\x00", b"\xd0\x00")
        assert got == b"\x20\x02\x00\x00\xd0\x00"


def test_iperf3(servers: Servers) -> None:
    if not shutil.which("iperf3"):
        pytest.skip("iperf3 is not installed")
    port = str(servers.ports["iperf3"])
    with servers.serving("iperf3", "/usr/bin/iperf3", "-s", "-p", port):
        for way in ([], ["-R"]):
            command = ["iperf3", "-c", "127.0.0.1", "-p", port, "-n", "20M", *way]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
            assert done.returncode == 0, done.stdout + done.stderr


def test_openssl_and_curl(servers: Servers) -> None:
    port = str(servers.ports["openssl"])
    files = ["-key", "/opt/key.pem", "-cert", "/opt/cert.pem"]
    command = ["/usr/bin/openssl", "s_server", "-accept", f"127.0.0.1:{port}", *files, "-www"]
    with servers.serving("openssl", *command) as address:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(address, timeout=TIMEOUT_S)
        with context.wrap_socket(plain) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.0 200"


def test_curl_inside_reaches_a_server_inside(servers: Servers) -> None:
    if not (servers.instance.image / "usr/bin/curl").exists():
        pytest.skip("curl is not installed")
    script = (
        f"{PYTHON} -m http.server -b 127.0.0.1 -d /opt/www 8000 2>/dev/null & server=$!; "
        "curl -s --retry 20 --retry-connrefused --retry-delay 1 http://localhost:8000/small; "
        "kill $server"
    )
    done = servers.instance.run("/bin/sh", "-c", script)
    assert done.stdout == b"small file\n", done.stderr.decode()


@pytest.mark.parametrize("name", ["test_httpservers"])
def test_of_python_itself(servers: Servers, name: str) -> None:
    if not TESTSUITE.is_dir():
        pytest.skip("libpython3.11-testsuite is not installed")
    done = servers.instance.run(PYTHON, "-m", "test", name)
    assert done.returncode == 0, done.stdout.decode()

"""Servers natively and inside, their clients on the host: rows of the benchmark table.

Both servers run at once and are asked in turn: what else the machine does hits both.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

PROGRAMS = ("/usr/bin/redis-server", "/usr/sbin/nginx", "/usr/sbin/lighttpd", "/usr/bin/iperf3")
ROUNDS = 3


class Measured(NamedTuple):
    name: str
    unit: str
    native: float
    ours: float
    goal: float


NGINX = """
user root; worker_processes 1; daemon off; pid {scratch}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {scratch}/n1; proxy_temp_path {scratch}/n2; fastcgi_temp_path {scratch}/n3;
  uwsgi_temp_path {scratch}/n4; scgi_temp_path {scratch}/n5;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""
LIGHTTPD = """
server.document-root = "{root}"
server.port = {port}
server.bind = "127.0.0.1"
server.max-keep-alive-requests = 1000000
"""


def rows(directory: Path, occlum: list[str]) -> Iterator[Measured]:
    """Builds an instance below `directory` and measures what this machine has."""
    instance = directory / "network"
    subprocess.run([*occlum, "new", instance], check=True)
    present = [program for program in PROGRAMS if Path(program).exists()]
    subprocess.run([*occlum, "add", *present], cwd=instance, check=True)
    root = instance / "image/opt/www"
    root.mkdir(parents=True)
    (root / "small").write_text("small\n")
    (root / "big").write_bytes(bytes(1 << 20))
    ports = free_ports(8)
    sides = [(str(directory), root), ("/tmp", Path("/opt/www"))]
    for number, (scratch, www) in enumerate(sides):
        for name, text in [("nginx", NGINX), ("lighttpd", LIGHTTPD)]:
            port = ports[2 * number + (name == "lighttpd")]
            target = directory if number == 0 else instance / "image/opt"
            content = text.format(scratch=scratch, root=www, port=port)
            (target / f"{name}.conf").write_text(content)
    config = instance / "Occlum.json"
    config.write_text(config.read_text().replace('"publish": []', '"publish": "all"'))
    subprocess.run([*occlum, "build"], cwd=instance, check=True)

    def both(command: Callable[[int], list[str]], numbers: tuple[int, int]) -> object:
        return serving(
            [(command(0), directory), ([*occlum, "run", *command(1)], instance)],
            [ports[number] for number in numbers],
        )

    with both(lambda side: redis_command(ports[4 + side]), (4, 5)):  # type: ignore[attr-defined]
        for name, options, goal in [("", [], 0.8), (", -P 16", ["-P", "16"], 0.95)]:
            results = [[redis(ports[4 + side], options) for side in (0, 1)] for _ in range(ROUNDS)]
            for kind in ("SET", "GET"):
                native, ours = (median(each[side][kind] for each in results) for side in (0, 1))
                yield Measured(f"redis {kind}{name}", "1/s", native, ours, goal)
    for name, at in [("nginx", 0), ("lighttpd", 1)]:
        places = (str(directory / f"{name}.conf"), f"/opt/{name}.conf")
        with both(lambda side: web_command(name, places[side]), (at, at + 2)):  # type: ignore[attr-defined]  # noqa: B023
            for path, goal in [("small", 0.8), ("big", 0.9)]:
                found = [
                    [wrk(ports[at + 2 * side], path) for side in (0, 1)] for _ in range(ROUNDS)
                ]
                native, ours = (median(each[side] for each in found) for side in (0, 1))
                yield Measured(f"{name}, {path} file", "1/s", native, ours, goal)
    with both(lambda side: ["/usr/bin/iperf3", "-s", "-p", str(ports[6 + side])], (6, 7)):  # type: ignore[attr-defined]
        for name, options in [("to", []), ("from", ["-R"])]:
            speeds = [[iperf(ports[6 + side], options) for side in (0, 1)] for _ in range(ROUNDS)]
            native, ours = (median(each[side] for each in speeds) for side in (0, 1))
            yield Measured(f"iperf3 {name} the server", "Mbit/s", native, ours, 0.8)


def free_ports(count: int) -> list[int]:
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


@contextlib.contextmanager
def serving(commands: list[tuple[list[str], Path]], ports: list[int]) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    servers = [
        subprocess.Popen(command, cwd=directory, stdout=quiet, stderr=quiet)
        for command, directory in commands
    ]
    try:
        for port in ports:
            await_listener(port)
        yield
    finally:
        for server in servers:
            server.send_signal(signal.SIGTERM)
        for server in servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(5)
            server.kill()
            server.wait()


def await_listener(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)
    raise SystemExit(f"bench: nobody listens on port {port}")


def redis_command(port: int) -> list[str]:
    return ["/usr/bin/redis-server", "--port", str(port), "--save", ""]


def web_command(name: str, config: str) -> list[str]:
    if name == "nginx":
        return ["/usr/sbin/nginx", "-c", config, "-e", "stderr"]
    return ["/usr/sbin/lighttpd", "-D", "-f", config]


def run(*command: str) -> str:
    if not shutil.which(command[0]):
        raise SystemExit(f"bench: {command[0]} is not installed")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def redis(port: int, options: list[str]) -> dict[str, float]:
    count = "400000" if options else "60000"
    command = ["redis-benchmark", "-p", str(port), "-t", "set,get", "-n", count, "--csv"]
    lines = [line.split(",") for line in run(*command, *options).splitlines()[1:]]
    return {name.strip('"'): float(speed.strip('"')) for name, speed, *_ in lines}


def wrk(port: int, path: str) -> float:
    text = run("wrk", "-t1", "-c64", "-d3", f"http://127.0.0.1:{port}/{path}")
    found = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    if found is None or "Non-2xx" in text:
        raise SystemExit(f"bench: wrk says {text}")
    return float(found[1])


def iperf(port: int, options: list[str]) -> float:
    text = run("iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", "2", "-f", "m", *options)
    found = re.search(r"([0-9.]+) Mbits/sec\s+receiver", text)
    if found is None:
        raise SystemExit(f"bench: iperf3 says {text}")
    return float(found[1])

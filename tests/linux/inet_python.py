# Servers and clients of the standard library in one process: threads, asyncio, descriptors.
import asyncio
import http.server
import json
import os
import socket
import threading
import urllib.request


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"path": self.path}).encode() * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for number in range(10):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{number}") as reply:
            data = reply.read()
    server.shutdown()
    server.server_close()
    print("http", len(data))


async def echo(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()
    writer.close()


class Mirror(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data[::-1], address)


class Mailbox(asyncio.DatagramProtocol):
    def __init__(self):
        self.mail = asyncio.Queue()

    def datagram_received(self, data, address):
        self.mail.put_nowait(data)


async def streams():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 100_000)
        writer.write_eof()
        data = await reader.read()
        writer.close()
        return len(data)

    print("tcp", sum(await asyncio.gather(*(client() for _ in range(30)))))
    server.close()
    local = await asyncio.start_unix_server(echo, "\0inet_python")
    reader, writer = await asyncio.open_unix_connection("\0inet_python")
    writer.write(b"hello")
    writer.write_eof()
    print("unix", await reader.read())
    writer.close()
    local.close()
    try:
        await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        print("refused")


async def datagrams():
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Mirror, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, box = await loop.create_datagram_endpoint(Mailbox, remote_addr=address)
    client.sendto(b"abc")
    print("udp", await box.mail.get())
    client.close()
    server.close()


def descriptors():
    one, other = socket.socketpair()
    readable, writable = os.pipe()
    socket.send_fds(one, [b"take"], [writable])
    text, fds, _, _ = socket.recv_fds(other, 10, 4)
    os.write(fds[0], b"through it")
    print(text, os.read(readable, 20))
    one.settimeout(0.02)
    try:
        one.recv(1)
    except TimeoutError:
        print("time-out")


web()
asyncio.run(streams())
asyncio.run(datagrams())
descriptors()
server = socket.create_server(("::1", 0), family=socket.AF_INET6)
client = socket.create_connection(server.getsockname()[:2])
print(client.getpeername()[0])

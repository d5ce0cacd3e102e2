"""Many connections of every kind: all is closed again, and each end hears the right thing."""
# args: 300

import errno
import os
import select
import socket
import struct
import sys
import threading

COUNT = int(sys.argv[1])


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def serve(listener):
    """Echoes until the end, then says goodbye; on `R` resets, on `H` closes its half first."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        try:
            first = connection.recv(1)
            if first == b"R":
                reset(connection)
                continue
            if first == b"H":
                connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(4096):
                if first == b"E":
                    connection.sendall(data)
            if first == b"E":
                connection.sendall(b"bye")
        except ConnectionResetError:
            pass
        connection.close()


def read_all(sock):
    content = b""
    while data := sock.recv(4096):
        content += data
    return content


def echo(address):
    with socket.create_connection(address) as sock:
        sock.sendall(b"E" + b"x" * 3000)
        sock.shutdown(socket.SHUT_WR)
        return len(read_all(sock))


def be_reset(address):
    with socket.create_connection(address) as sock:
        sock.sendall(b"R")
        try:
            return len(read_all(sock))
        except ConnectionResetError as error:
            return errno.errorcode[error.errno]


def half(address):
    with socket.create_connection(address) as sock:
        sock.sendall(b"H")
        got = read_all(sock)
        sock.sendall(b"still open")
        return len(got)


def abort(address):
    sock = socket.create_connection(address)
    sock.sendall(b"E" + b"y" * 100)
    reset(sock)
    return 0


def non_blocking(address):
    with socket.socket() as sock:
        sock.setblocking(False)
        first = sock.connect_ex(address)
        select.select([], [sock], [], 10)
        return errno.errorcode.get(first), sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def refused(_address):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with socket.socket() as sock:
            return errno.errorcode[sock.connect_ex(unused.getsockname())]


KINDS = [echo, be_reset, half, abort, non_blocking, refused]


def open_files():
    return len(os.listdir("/proc/self/fd"))


def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    threads = [threading.Thread(target=serve, args=(listener,), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    address = listener.getsockname()
    before = open_files()
    seen = {}
    for number in range(COUNT):
        kind = KINDS[number % len(KINDS)]
        outcome = kind(address)
        seen.setdefault((kind.__name__, str(outcome)), 0)
        seen[kind.__name__, str(outcome)] += 1
    for (name, outcome), count in sorted(seen.items()):
        print(name, outcome, count)
    # The server's ends are closed soon after ours.
    with socket.create_connection(address) as last:
        last.sendall(b"E")
        last.shutdown(socket.SHUT_WR)
        read_all(last)
    for _ in range(1000):
        if open_files() <= before:
            break
        select.select([], [], [], 0.01)
    print("open files as before:", open_files() <= before)


main()

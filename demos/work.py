"""Everyday Python, inside an enclave: a database, threads, hashes."""

import hashlib
import json
import platform
import sqlite3
import threading

database = sqlite3.connect("/tmp/demo.db")
database.execute("create table squares (n integer, square integer)")
database.executemany("insert into squares values (?, ?)", ((n, n * n) for n in range(100)))
total = database.execute("select sum(square) from squares").fetchone()[0]

digests: list[str] = []
threads = [
    threading.Thread(target=lambda n=n: digests.append(hashlib.sha256(bytes([n])).hexdigest()))
    for n in range(4)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

print(json.dumps({"python": platform.python_version(), "sum": total, "threads": len(digests)}))

"""CPU-bound work of several kinds; prints `name<TAB>milliseconds` for each (best of three)."""

import hashlib
import json
import re
import time


def nbody():
    bodies = [[float(i), i * 0.5, -i * 0.25, 0.1 * i, 0.2, 0.3, 1.0 + i] for i in range(5)]
    for _ in range(4000):
        for i, a in enumerate(bodies):
            for b in bodies[i + 1 :]:
                dx, dy, dz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
                mag = 0.001 / ((dx * dx + dy * dy + dz * dz + 0.01) ** 1.5)
                a[3] -= dx * b[6] * mag
                b[3] += dx * a[6] * mag
        for body in bodies:
            body[0] += 0.001 * body[3]


def strings():
    text = " ".join(f"word{i % 97} number {i}" for i in range(20000))
    counts = {}
    for word in re.findall(r"[a-z]+\d*", text):
        counts[word] = counts.get(word, 0) + 1
    json.loads(json.dumps(counts))


def objects():
    tree = None
    for i in range(120000):
        tree = (tree, i) if i % 50 else None
    return sorted(range(100000), key=lambda i: (i * 7919) % 100003)


def digests():
    data = b"x" * 65536
    for _ in range(200):
        hashlib.sha256(data).digest()


for work in (nbody, strings, objects, digests):
    best = 1e9
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    print(f"python {work.__name__}\t{best * 1000:.2f}")

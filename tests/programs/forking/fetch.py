"""Fetches a page many times at once; waits for the server first. Prints the bytes."""

import concurrent.futures
import sys
import time
import urllib.request


def fetch(_):
    return len(urllib.request.urlopen(sys.argv[1]).read())


for _ in range(100):
    try:
        fetch(0)
        break
    except OSError:
        time.sleep(0.1)
with concurrent.futures.ThreadPoolExecutor(8) as executor:
    print(sum(executor.map(fetch, range(100))))

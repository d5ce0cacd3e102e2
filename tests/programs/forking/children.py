import multiprocessing
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor


def square(x):
    return x * x


def daemon():
    """As cron starts: two forks, a session of its own, nothing inherited open."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        os.chdir("/")
        os.umask(0)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(ours)
        for _ in range(3):
            os.write(theirs, b"tick")
        os._exit(0)
    os.close(theirs)
    os.wait()
    said = b""
    while piece := os.read(ours, 100):
        said += piece
    return said


r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(w, b"child")
    os._exit(7)
print(os.read(r, 10), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
context = multiprocessing.get_context("fork")
with context.Pool(8) as pool:
    print(sum(pool.map(square, range(1000))))
queue = context.Queue()
processes = [context.Process(target=lambda n=n: queue.put(n)) for n in range(8)]
for process in processes:
    process.start()
print(sorted(queue.get() for _ in processes))
for process in processes:
    process.join()
print([process.exitcode for process in processes])
with ProcessPoolExecutor(4, mp_context=context) as executor:
    print(list(executor.map(abs, range(-5, 5))))
print(subprocess.run(["echo", "x"], capture_output=True, preexec_fn=os.setsid).stdout)
print(daemon())

"""The slice of the event loop's thread, read back from the kernel."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, threading
from edgeagent.worker.time_slice import shorten_time_slice

def slice_ns():
    with open(f"/proc/self/task/{threading.get_native_id()}/sched") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("se.slice")), "none")

os.nice(3)
print(shorten_time_slice(), os.getpriority(os.PRIO_PROCESS, 0), slice_ns(), flush=True)
thread = threading.Thread(target=lambda: print(slice_ns(), flush=True))
thread.start()
thread.join()
if os.fork() == 0:
    print(os.getpriority(os.PRIO_PROCESS, 0), slice_ns(), flush=True)
    os._exit(0)
os.wait()
"""


def test_the_thread_keeps_its_priority_and_what_it_starts_has_the_usual_slice():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    ours, thread, child = (line.split() for line in done.stdout.splitlines())
    assert ours[:2] == ["True", "3"] and child[0] == "3"
    if ours[2] != "none":  # kernels before 6.12 have no slices of threads
        assert ours[2] != thread[0] == child[1]

"""Long and short waits at the barriers of libgomp."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeagent.worker import spawn

pytestmark = pytest.mark.process

# Two threads meet at a barrier; one comes 40 ms late. How long did the other one look for it?
PROBE = """
import ctypes, sys, time
from edgeagent.engine.llama.barrier_waits import BarrierWaits

gomp = ctypes.CDLL("libgomp.so.1")
waits = BarrierWaits()
late = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
    lambda _: time.sleep(0.04) if gomp.omp_get_thread_num() == 0 else None
)

def waited_s():
    gomp.GOMP_parallel(late, None, 2, 0)
    begun = time.process_time()
    for _ in range(5):
        gomp.GOMP_parallel(late, None, 2, 0)
    return time.process_time() - begun

long = waited_s()
waits.shorten(True)
time.sleep(0.2)
short = waited_s()
waits.shorten(True)
waits.shorten(False)
again = waited_s()
waits.close()
print(long, short, again, waits.are_short)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp of Linux")
def test_threads_sleep_at_once_while_waits_are_short_and_look_for_long_otherwise(tmp_path: Path):
    environment = spawn.environment_of_ours(GOMP_SPINCOUNT=str(10**12), OMP_NUM_THREADS="2")
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    if "libgomp.so.1" in done.stderr and "cannot open" in done.stderr:
        pytest.skip("no libgomp here")
    assert done.returncode == 0, done.stderr
    long, short, again, are_short = done.stdout.split()
    assert float(short) < float(long) / 3 and float(short) < float(again) / 3
    assert are_short == "False"

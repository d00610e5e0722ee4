"""numpy on one thread, as the commands have it (`keep_arithmetic_single`).

Two threads that wait for each other beside other tests take many times as long.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

"""A process that writes into a store and tells each acknowledged row on standard output, after the fact.

    python -m tests.store.writing FOLDER KEY THREADS ROUNDS SYNCHRONOUS

`ROUNDS` 0: until it is killed. It checkpoints often and takes a backup now and then, so that a kill or a
power cut meets these too.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from pathlib import Path

from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.store_key import Secret
from tests.store.conftest import SCHEMA, insert

KEY = "5a" * 32


def rounds(store: Database, name: str, count: range | itertools.count[int]) -> None:
    rng = random.Random(name)
    for n in count:
        sent = [
            f"{name}-{n}-{part}-{'x' * rng.randrange(600)}" for part in range(rng.randint(1, 4))
        ]
        futures = [store.write(insert(text)) for text in sent]
        for text, future in zip(sent, futures, strict=True):
            future.result()
            os.write(1, f"{text}\n".encode())  # one write below PIPE_BUF arrives whole
        if n % 150 == 149:
            store.backups.take()


def main() -> None:
    folder, key, n_threads, n_rounds, synchronous = sys.argv[1:]
    secret = Secret(bytes.fromhex(key), "the test")
    options = StoreOptions(reserve_bytes=0, synchronous=synchronous)  # type: ignore[arg-type]
    with Database(Path(folder), secret, options, SCHEMA) as store:
        store.maintain(lambda db: db.execute("PRAGMA wal_autocheckpoint = 60").fetchall()).result()
        count = range(int(n_rounds)) if int(n_rounds) else itertools.count()
        run = f"{os.getpid()}.{random.randrange(1 << 32):08x}"
        threads = [
            threading.Thread(target=rounds, args=(store, f"{run}-{n}", count))
            for n in range(int(n_threads))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()

"""`scripts/bench lifecycle`: how long single writes wait beside a retention sweep and an erasure.

Three owners with conversations of four items each, indexed for search; one is over its age, one is erased.
Meanwhile a client writes a small row every few milliseconds. Then the audit: rows added and verified.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edgeagent.store import audit, erasure, retention
from edgeagent.store.clock import ClockReading, DeviceClock
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.ownership import Selector
from edgeagent.store.sql import now_ms
from edgeagent.store.store_key import Secret
from scripts.benchmarks import machine
from tests.store.rows import DAY, conversation, request

KEY = b"k" * 32
N_AUDIT = 20_000
_CHUNK = 500


class SureClock:
    """This device's clock, as if NTP vouched for it."""

    def read(self) -> ClockReading:
        return replace(DeviceClock().read(), is_synchronised=True)


def fill(store: Database, n_conversations: int) -> None:
    rng = random.Random(1)
    words = [f"w{rng.getrandbits(24):06x}" for _ in range(5000)]

    def some(db: Any, owner: str, first: int, at: int) -> None:
        for n in range(first, min(first + _CHUNK, n_conversations)):
            text = " ".join(rng.choice(words) for _ in range(60))
            conversation(db, f"{owner}{n}", owner=owner, text=text, n_items=4, at=at)

    for owner, at in (("ann", now_ms()), ("bob", now_ms()), ("old", now_ms() - 200 * DAY)):
        for first in range(0, n_conversations, _CHUNK):
            store.write(partial(some, owner=owner, first=first, at=at)).result()
    store.checkpoint().result()


def beside(store: Database, work: Callable[[], Any]) -> tuple[Any, float, list[float]]:
    """What `work` gives, its seconds, and the sorted waits in ms of single writes meanwhile."""
    waits_ms: list[float] = []
    is_over = threading.Event()

    def client() -> None:
        while not is_over.wait(0.002):
            began = time.perf_counter()
            store.write(lambda db: request(db, time.time_ns(), owner="w", at=now_ms())).result()
            waits_ms.append(1000 * (time.perf_counter() - began))

    thread = threading.Thread(target=client, name="client")
    thread.start()
    began = time.perf_counter()
    try:
        result = work()
    finally:
        is_over.set()
        thread.join()
    return result, time.perf_counter() - began, sorted(waits_ms)


def audit_rates(store: Database) -> tuple[float, float]:
    """Rows added in one transaction, and rows verified, per second."""

    def add(db: Any) -> None:
        for n in range(N_AUDIT):
            audit.append(db, KEY, actor="a", action="b", object=f"conversation:conv_{n}")

    began = time.perf_counter()
    store.write(add).result()
    added = time.perf_counter()
    n_rows = store.read(lambda db: audit.verify(db, KEY)).n_rows
    return N_AUDIT / (added - began), n_rows / (time.perf_counter() - added)


def row(name: str, n_rows: int | None, took_s: float, waits: list[float]) -> list[str]:
    cells = [name, f"{took_s:.1f}", "" if n_rows is None else str(n_rows), str(len(waits))]
    return cells + [f"{waits[int(len(waits) * q)]:.1f}" for q in (0.5, 0.99)] + [f"{waits[-1]:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=int, default=5000, help="of each of three owners")
    args = parser.parse_args()
    console = Console()
    table = Table("beside", "took s", "rows", "writes", "p50 ms", "p99 ms", "max ms")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with Database(
            folder / "store", Secret(os.urandom(32), "bench"), StoreOptions(0.0, 0)
        ) as store:
            fill(store, args.conversations)
            size = store.files.database.stat().st_size
            table.add_row(*row("nothing", None, *beside(store, partial(time.sleep, 3))[1:]))
            sweeper = retention.Sweeper(store, KEY, {"responses": 100}, SureClock())
            swept, *rest = beside(store, sweeper.sweep)
            table.add_row(*row("sweep", swept.deleted.total(), *rest))
            asked = ErasureRequest(Selector(owner="ann"), "bench")
            erase = partial(erasure.erase, store, KEY, asked, ErasureScope(folder))
            receipt, *rest = beside(store, erase)
            table.add_row(*row("erasure", receipt.erased.total(), *rest))
            added, verified = audit_rates(store)
    console.print(f"{machine.describe()}; database of {size / 1e6:.0f} MB")
    console.print(table)
    console.print(
        f"erased is gone: {receipt.is_gone}, {receipt.proof.n_probes} probes in "
        f"{receipt.proof.n_bytes / 1e6:.0f} MB; audit: {added:,.0f} rows/s added, "
        f"{verified:,.0f} rows/s verified"
    )

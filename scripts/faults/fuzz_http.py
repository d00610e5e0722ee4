"""Spoiled requests to every route of a running daemon. Prints counts by status, and each failure.

    scripts/faults/fuzz_http.py [--requests N] [--seconds N] [--seed N] [--clients N] [--only NUMBER]

Three in ten have values of a good request changed, two its bytes, two its head, one is garbage, and the rest
are good, so that there is always something to spoil: ids that were given out are used in later requests. The
daemon has stories260K and all-MiniLM-L6-v2, a store, and a key. What is sent goes over sockets of our own,
since no HTTP client would send most of it.

The exit status is 1 if an answer was a 5xx that is not planned (501, 503 and 507 in the shape of an error of
ours are), if an error had another shape than its path has, if a request with a good head had no answer, if
the daemon ended or stopped answering, if a worker died, or if the log has an unforeseen error.
`--seed S --only N` sends request N of a run again.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.faults.mutations import GARBAGE, Draft, changed, encoded, spoiled, worse_head
from scripts.faults.playground import Playground, playground
from scripts.faults.shapes import PLANNED, has_shape
from scripts.faults.valid_requests import Maker, Operation, operations

BAD = (
    "5xx not planned", "errors of another shape", "closed without an answer", "unforeseen in a stream",
    "daemon exits", "times it did not answer", "workers that died, unforeseen errors",
)  # fmt: skip
TIMEOUT_S = 20.0
MAX_IDS = 50
UNFORESEEN = b"An unexpected error occurred"


class Sent(NamedTuple):
    """One request of a run: its bytes, the operation that it was made for, its path, its method."""

    number: int
    data: bytes
    operation: str
    path: str
    method: str
    is_good: bool
    is_cut: bool
    is_head_bad: bool = False


class Fuzzer:
    """Makes and sends the requests of one run. Several threads; `counts` and `notes` are what it found."""

    def __init__(self, place: Playground, seed: int) -> None:
        self._place = place
        self._seed = seed
        self._ids: dict[str, list[str]] = {}
        self._operations = operations(place.document)
        self._maker = Maker(place.document, self._ids)
        parts = urlsplit(place.daemon.url)
        self._address = (parts.hostname or "", parts.port or 0)
        self._lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()  # good answers, by operation
        self.notes: list[str] = []

    # --- making

    def made(self, number: int) -> Sent:
        """Request `number` of the run."""
        rng = random.Random(f"{self._seed}:{number}")
        operation = rng.choice(self._operations)
        draft = self._draft(operation, rng)
        kind = rng.random()
        is_good = is_head_bad = False
        if kind < 0.1:
            raw = rng.choice(GARBAGE) if rng.random() < 0.5 else spoiled(draft.encode(), rng)
            method = raw[:5].partition(b" ")[0].decode("latin-1")
            return Sent(number, raw, "garbage", "", method, False, True, True)
        if kind < 0.4 and draft.body is not None:
            for _ in range(rng.choice([1, 1, 1, 2, 4])):
                draft.body = changed(draft.body, rng)
        elif kind < 0.6 and draft.body is not None:
            draft.body = spoiled(encoded(draft.body), rng)
        elif kind < 0.8:
            is_head_bad = True
            worse_head(draft, rng)
        else:
            is_good = True
        path = draft.path.partition("?")[0]
        return Sent(
            number, draft.encode(), operation.id, path, draft.method, is_good, draft.is_cut, is_head_bad
        )  # fmt: skip

    def _draft(self, operation: Operation, rng: random.Random) -> Draft:
        host, port = self._address
        headers = [f"Host: {host}:{port}", f"Authorization: Bearer {self._place.key}"]
        if rng.random() < 0.02:
            headers.pop()
        body = self._maker.body(operation, rng)
        if body is not None:
            headers.append("Content-Type: application/json")
        return Draft(operation.method, self._maker.path(operation, rng), headers, body)

    # --- sending

    def send(self, number: int) -> None:
        """Send a request, read what comes, and judge it."""
        sent = self.made(number)
        try:
            status, body = self._exchange(sent)
        except TimeoutError:
            with self._lock:
                self.statuses["left waiting"] += 1
            if not self._place.is_well():
                self._note("times it did not answer", sent)
            return
        except (OSError, HTTPException) as exc:
            # An export ends where something in it is erased meanwhile.
            is_planned = isinstance(exc, IncompleteRead) and sent.operation == "export_data"
            with self._lock:
                self.statuses["export cut off" if is_planned else "closed"] += 1
            if not (sent.is_head_bad or is_planned):
                self._note("closed without an answer", sent)
            return
        with self._lock:
            self.statuses[_said(status, body)] += 1
            if sent.is_good and status < 400:
                self.answered[sent.operation] += 1
        self._judge(sent, status, body)

    def _exchange(self, sent: Sent) -> tuple[int, bytes]:
        with socket.create_connection(self._address, timeout=TIMEOUT_S) as sock:
            try:
                sock.sendall(sent.data)
                if sent.is_cut:  # whatever it waits for, nothing comes
                    sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before it was read: the answer is there
            response = HTTPResponse(sock, method=sent.method or None)
            response.begin()
            deadline = time.monotonic() + TIMEOUT_S
            body = b""
            while piece := response.read1(65536):
                body += piece
                if time.monotonic() > deadline:
                    raise TimeoutError
            return response.status, body

    def _judge(self, sent: Sent, status: int, body: bytes) -> None:
        path = None if sent.is_head_bad else sent.path
        if UNFORESEEN in body:
            self._note("unforeseen in a stream", sent, body)
        if status >= 500 and (status not in PLANNED or not has_shape(path, status, body)):
            self._note("5xx not planned", sent, body)
        elif status >= 400 and sent.method != "HEAD" and not has_shape(path, status, body):
            self._note("errors of another shape", sent, body)
        elif status < 300:
            self._keep_ids(sent, body)

    def _keep_ids(self, sent: Sent, body: bytes) -> None:
        """Remember what was given out, by its beginning, and the paths of conversations' items."""
        with self._lock:
            for found in re.findall(rb'"id": ?"([a-z]+[-_]\w+)"', body[:100_000])[:20]:
                name = found.decode()
                kind = re.split(r"[-_]", name)[0]
                if kind == "key" and (sent.operation, sent.method) != ("create_key", "POST"):
                    continue  # ours is not to be revoked
                pools = [(kind, name), ("any", name)]
                if sent.path.endswith("/items") and kind != "conv":
                    pools.append(("item path", f"{sent.path}/{name}"))
                for pool, value in pools:
                    kept = self._ids.setdefault(pool, [])
                    kept.append(value)
                    del kept[:-MAX_IDS]

    def _note(self, what: str, sent: Sent, body: bytes = b"") -> None:
        with self._lock:
            self.counts[what] += 1
            self.notes.append(
                f"{what}: --seed {self._seed} --only {sent.number} ({sent.operation}): "
                f"{sent.data[:1500]!r} -> {body[:300]!r}"
            )

    # --- a run

    def run(self, n_requests: int, seconds: float | None, n_clients: int) -> int:
        """Send them all, or as many as the time allows. Returns how many."""
        deadline = time.monotonic() + seconds if seconds is not None else None
        numbers = iter(range(n_requests))
        n_sent = 0

        def work() -> int:
            n = 0
            while self._place.is_alive and (deadline is None or time.monotonic() < deadline):
                with self._lock:
                    number = next(numbers, None)
                if number is None:
                    break
                self.send(number)
                n += 1
            return n

        with ThreadPoolExecutor(n_clients) as pool:
            n_sent = sum(f.result() for f in [pool.submit(work) for _ in range(n_clients)])
        self.close()
        return n_sent

    def close(self) -> None:
        """Look at the daemon once more."""
        if not self._place.is_alive:
            self.counts["daemon exits"] += 1
        elif not self._place.is_well():
            self.counts["times it did not answer"] += 1
        for line in self._place.complaints():
            self.counts[BAD[-1]] += 1
            self.notes.append(f"log: {line}")

    @property
    def unanswered(self) -> list[str]:
        """Operations of which no request was answered well: what is not reached is not tested."""
        return [o.id for o in self._operations if not self.answered[o.id]]

    @property
    def is_bad(self) -> bool:
        return any(self.counts[what] for what in BAD)


def _said(status: int, body: bytes) -> str:
    """A status, and why where that could hide what was to be tested."""
    found = re.search(rb'"code": ?"(\w+)"', body) if status in (429, 503) else None
    return f"{status} {found[1].decode()}" if found else str(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=50_000, metavar="N")
    parser.add_argument("--seconds", type=float, metavar="N", help="stop after this long")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--clients", type=int, default=4, metavar="N", help="connections at once")
    parser.add_argument(
        "--only", type=int, metavar="NUMBER", help="send this one and show the answer"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the daemon's log here")
    options = parser.parse_args()
    started_s = time.monotonic()
    with playground() as place:
        fuzzer = Fuzzer(place, options.seed)
        if options.only is not None:
            _show(fuzzer, options.only)
            return
        n_sent = fuzzer.run(options.requests, options.seconds, options.clients)
        if options.log is not None:
            shutil.copy(place.daemon.log, options.log)
    print(f"{time.monotonic() - started_s:.0f} s", file=sys.stderr)
    report(fuzzer, n_sent)
    sys.exit(fuzzer.is_bad)


def _show(fuzzer: Fuzzer, number: int) -> None:
    sent = fuzzer.made(number)
    print(repr(sent.data[:4000]))
    try:
        status, body = fuzzer._exchange(sent)
        print(status, repr(body[:4000]))
    except (OSError, HTTPException) as exc:
        print(repr(exc))
    fuzzer.close()
    print(*fuzzer.notes, sep="\n")


def report(fuzzer: Fuzzer, n_sent: int) -> None:
    """One table, and what was found."""
    table = Table("", box=None, pad_edge=False)
    table.add_column("requests", justify="right")
    table.add_row("sent", str(n_sent))
    for status in sorted(fuzzer.statuses):
        table.add_row(status, str(fuzzer.statuses[status]))
    for what in BAD:
        table.add_row(what, str(fuzzer.counts[what]))
    Console().print(table)
    if fuzzer.unanswered:
        print("never answered well:", ", ".join(fuzzer.unanswered))
    for note in fuzzer.notes[:40]:
        print(note)


if __name__ == "__main__":
    main()

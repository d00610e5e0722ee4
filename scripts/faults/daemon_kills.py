"""kill -9 of the whole daemon while clients write through its API. Prints one line of counts.

    .venv/bin/python scripts/faults/daemon_kills.py [--kills N] [--clients N] [--seed N]

Clients send feedback, a row each, and count it as acknowledged when the 201 is there. After each kill
the store is opened by the code of the daemon, which checks every page, and every row acknowledged so
far is looked for. The exit status is 1 if one was missing or the file was damaged. No model is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeagent.settings import Settings, resolve
from edgeagent.store import responses
from edgeagent.store.connection import complaints
from edgeagent.store.database import Database, open_store
from edgeagent.store.responses import StoredResponse
from scripts.benchmarks.served import serving

LONGEST_S = 1.2
TARGET = "chatcmpl-target"


def prepare(store: Database) -> None:
    """Something to give feedback on."""
    row = StoredResponse(
        id=TARGET, owner="local", model="none", status="completed", body={}, items=[]
    )
    store.write(lambda db: responses.put(db, row, now_ms=1, is_searchable=False)).result()


def kept(store: Database) -> set[str]:
    found = store.read(lambda db: db.execute("select body from feedback_content").fetchall())
    return {row[0] for row in found}


async def write_until_killed(url: str, names: itertools.count[int], n_clients: int) -> list[str]:
    """Send feedback from several clients until the daemon has gone. Returns what was acknowledged."""
    acknowledged: list[str] = []

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=10) as http:
            while True:
                name = f"row {next(names)}"
                body = {"target_id": TARGET, "rating": 1, "comment": name}
                answer = await http.post("/v1/feedback", json=body)
                if answer.status_code == 201:
                    acknowledged.append(name)

    done = await asyncio.gather(*(client() for _ in range(n_clients)), return_exceptions=True)
    for error in done:
        if not isinstance(error, httpx.TransportError):
            raise SystemExit(f"a client ended otherwise: {error!r}")
    return acknowledged


async def one_life(
    settings: Settings, delay_s: float, names: itertools.count[int], n_clients: int
) -> list[str]:
    options = {"state_dir": str(settings.state_dir), "store_key_file": str(settings.store.key_file)}
    with serving(settings.effective_models_dir, preload=False, **options) as served:
        writing = asyncio.create_task(write_until_killed(served.url, names, n_clients))
        await asyncio.sleep(delay_s)
        served.process.kill()
        return await writing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    names = itertools.count()
    acknowledged: set[str] = set()
    n_lost = n_damaged = 0
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder, "key")
        state = Path(folder, "state")
        settings = resolve(flags={"state_dir": state, "store_key_file": key}).settings
        with open_store(settings) as store:
            prepare(store)
        for _ in track(range(args.kills), console=Console(stderr=True)):
            delay_s = rng.uniform(0.0, LONGEST_S)
            acknowledged |= set(asyncio.run(one_life(settings, delay_s, names, args.clients)))
            with open_store(settings) as store:
                n_lost += len(acknowledged - kept(store))
                n_damaged += bool(store.notices) or bool(store.maintain(complaints).result())
    print(
        f"kills of the daemon {args.kills}, acknowledged rows {len(acknowledged)}, lost {n_lost}, "
        f"damaged {n_damaged}"
    )
    sys.exit(1 if n_lost or n_damaged else 0)


main()

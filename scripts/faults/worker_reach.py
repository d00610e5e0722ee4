"""What a worker that was taken over can reach, and what lies in its memory.

    worker_reach.py [MODEL.gguf]

A daemon runs with secrets everywhere it may have some: a store key, an API key made and used, the caller's
EDGEAGENT_API_KEY and HF_TOKEN in its environment. Then

    1. a process that confines itself as a worker does tries 91 things on this daemon (tests.worker.attempts),
       once as the kernel is, once as on a kernel without Landlock
    2. memory, environment and descriptors of the running worker and its helpers are searched for secrets

Needs root for 2 (memory of other processes); as another user 2 counts as refused.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conftest import KEY_FILE, TALES, DaemonProcess, clean_environment
from tests.worker.attempts import NEEDS_LANDLOCK, REFUSED

ROOT = Path(__file__).resolve().parents[2]
OPERATORS = {
    "EDGEAGENT_API_KEY": "ea_operators-own-key-0123456789",
    "HF_TOKEN": "hf_hub-token-987654321",
}
CHUNK_BYTES = 16 << 20


def main() -> int:
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else TALES
    with tempfile.TemporaryDirectory(prefix="edgeagent-reach-") as name:
        base = Path(name)
        key_file = base / "keys" / "store.key"
        os.environ |= OPERATORS | {KEY_FILE: str(key_file)}
        models = base / "models"
        models.mkdir()
        (models / "stories260k.gguf").write_bytes(model.read_bytes())
        (base / "other").write_text("another file of this user")
        daemon = DaemonProcess(models, base / "state", {"default_model": "stories260k"})
        try:
            daemon.wait_until_ready()
            secrets = {"store key": key_file.read_bytes().strip(), "API key": use_a_key(daemon)}
            secrets |= {name: value.encode() for name, value in OPERATORS.items()}
            n_wrong = attempt(daemon, base, key_file) + search(daemon, spelled(secrets))
        finally:
            daemon.stop()
    return 1 if n_wrong else 0


def use_a_key(daemon: DaemonProcess) -> bytes:
    """Make a key and have an answer with it, so that it has been wherever it goes."""
    made = httpx.post(
        f"{daemon.url}/admin/keys", json={"name": "admin", "scopes": ["admin", "chat"]}, timeout=30
    )
    key = made.raise_for_status().json()["secret"]
    httpx.post(
        f"{daemon.url}/v1/completions", headers={"Authorization": f"Bearer {key}"}, timeout=60,
        json={"model": "stories260k", "prompt": "Once", "max_tokens": 8},
    ).raise_for_status()  # fmt: skip
    return str(key).encode()


def spelled(secrets: dict[str, bytes]) -> dict[str, bytes]:
    """Each secret as it is written, and what is written in hexadecimal as bytes too."""
    found = {name: value for name, value in secrets.items() if value}
    for name, value in secrets.items():
        if re.fullmatch(rb"[0-9a-fA-F]{32,}", value):
            found[f"{name}, raw"] = bytes.fromhex(value.decode())
        elif value:
            found[f"{name}, hexadecimal"] = value.hex().encode()
    return found


def attempt(daemon: DaemonProcess, base: Path, key_file: Path) -> int:
    """Try everything; returns what succeeded that should not have."""
    targets = base / "targets.json"
    targets.write_text(
        json.dumps({
            "key": str(key_file), "database": str(daemon.state_dir / "store" / "edgeagent.db"),
            "state": str(daemon.state_dir), "models": str(base / "models"), "other": str(base / "other"),
            "daemon": daemon.pid, "sibling": daemon.workers()[0].pid,
        })
    )  # fmt: skip
    n_wrong = 0
    for title, flags in (
        ("this kernel", []),
        ("a kernel without Landlock", ["--without-landlock"]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tests.worker.attempts", str(targets), *flags],
            capture_output=True, text=True, timeout=60, check=True, cwd=ROOT, env=clean_environment(),
        )  # fmt: skip
        outcomes = json.loads(done.stdout)
        reached = [what for what, outcome in outcomes.items() if outcome not in REFUSED]
        print(f"{title}: {len(outcomes)} tried, {len(outcomes) - len(reached)} refused")
        for what in reached:
            print(f"  {what}: {outcomes[what]}, needs {NEEDS_LANDLOCK}")
        if not flags:
            n_wrong += len(reached)
    return n_wrong


def search(daemon: DaemonProcess, secrets: dict[str, bytes]) -> int:
    """Look for the secrets in every process below the daemon; returns how many were found."""
    n_found = 0
    for process in psutil.Process(daemon.pid).children(recursive=True):
        command = " ".join(process.cmdline()[3:5])
        places = {
            "memory": memory_of(process.pid),
            "environment": [Path(f"/proc/{process.pid}/environ").read_bytes()],
        }
        for place, chunks in places.items():
            n_bytes, hits = 0, set()
            for chunk in chunks:
                n_bytes += len(chunk)
                hits |= {name for name, secret in secrets.items() if secret in chunk}
            print(
                f"{command}: {n_bytes:,} bytes of {place}, {len(secrets)} secrets, {len(hits)} found"
            )
            n_found += len(hits)
        folder = Path(f"/proc/{process.pid}/fd")
        print("  descriptors:", *sorted(f"{fd.name}={fd.readlink()!s}" for fd in folder.iterdir()))
    own = sum(any(s in chunk for chunk in memory_of(daemon.pid)) for s in secrets.values())
    print(f"the daemon itself: {own} found, so the search finds what is there")
    return n_found + (own == 0)


def memory_of(pid: int) -> list[bytes]:
    """All readable memory of a process, in pieces that overlap no border of a region."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            begin, end = (int(number, 16) for number in span.split("-"))
            if "r" not in rights or "[v" in line:
                continue
            try:
                memory.seek(begin)
                found.append(memory.read(min(end - begin, 64 * CHUNK_BYTES)))
            except OSError:
                continue
    return found


if __name__ == "__main__":
    sys.exit(main())

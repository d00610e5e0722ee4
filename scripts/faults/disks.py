"""The disk of the state directory under a running daemon: full, read-only after an error, and gone.

    python scripts/faults/disks.py [--rounds N] [--faults full read-only gone]

A small ext4 file system in a file holds the state directory (as root; needs mkfs.ext4 and loop devices). Each
round has one fault, while a client stores responses and asks questions of which nothing need be stored:

    full        another program fills it, and then makes room again
    read-only   the file system stops writing, as ext4 does after an error of a worn card
    gone        nothing can be read or written any more, as when a card is pulled out

Counted: answers of 5xx other than 503 and 507, daemon exits, and after the disk is back, acknowledged
responses that cannot be read. Questions must be answered while the disk can be read; without it the keys are
unknown, and everybody is refused. A full disk must be overcome without a restart; after the other faults the
daemon is started again. The exit status is 1 if anything was counted. Loopback only.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conftest import TALES_CHAT, DaemonProcess, serving, write_stories
from tests.engine.family_templates import FAMILIES

DISK_BYTES = 96 << 20
# Source: Linux, fs/ext4/ext4.h, EXT4_IOC_SHUTDOWN; 2: without writing the journal.
SHUTDOWN, WITHOUT_JOURNAL = 0x8004587D, 2
PLANNED = (503, 507)
FAULTS = ("full", "read-only", "gone")
N_BEFORE, N_DURING = 5, 10


@dataclass
class Counts:
    """What one fault did."""

    statuses: Counter[str] = field(default_factory=Counter)
    n_lost: int = 0
    failures: list[str] = field(default_factory=list)


class Disk:
    """An ext4 file system in a file. `place` is where it is mounted; `close()` may be called twice."""

    def __init__(self, folder: Path) -> None:
        self._file, self.place = folder / "disk.img", folder / "disk"
        with self._file.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", str(self._file)], check=True)
        self.place.mkdir()
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._file), str(self.place)], check=True)

    def close(self) -> None:
        subprocess.run(["umount", str(self.place)], check=False, capture_output=True)

    def fill(self) -> None:
        """Fill it as another program does, to the last byte."""
        with (self.place / "others").open("wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(b"x" * size):
                        pass
                except OSError:
                    continue

    def make_room(self) -> None:
        (self.place / "others").unlink()

    def stop_writing(self) -> None:
        subprocess.run(["mount", "-o", "remount,abort", str(self.place)], check=True)

    def pull(self) -> None:
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", WITHOUT_JOURNAL))
        finally:
            os.close(fd)


def store(http: httpx.Client, counts: Counts, what: str) -> str | None:
    """The id of a response that was acknowledged; None if it was refused."""
    reply = http.post("/v1/responses", json={"input": "Once", "max_output_tokens": 4})
    note(reply, counts, what)
    return str(reply.json()["id"]) if reply.status_code == 200 else None


def ask(http: httpx.Client, counts: Counts, what: str, *, is_readable: bool) -> None:
    """A question of which nothing has to be stored: answered while the keys can be read."""
    said = [{"role": "user", "content": "Once"}]
    reply = http.post("/v1/chat/completions", json={"messages": said, "max_tokens": 4})
    note(reply, counts, what)
    if reply.status_code != 200 and is_readable:
        counts.failures.append(f"{what}: {reply.status_code} {reply.text[:120]}")


def note(reply: httpx.Response, counts: Counts, what: str) -> None:
    code = "" if reply.is_success else f" {reply.json().get('error', {}).get('code')}"
    counts.statuses[f"{what}: {reply.status_code}{code}"] += 1
    if reply.status_code >= 500 and reply.status_code not in PLANNED:
        counts.failures.append(f"{what}: {reply.status_code} {reply.text[:120]}")


def meet(daemon: DaemonProcess, disk: Disk, fault: str, counts: Counts, stored: list[str]) -> None:
    """Let the fault happen and count what a client sees meanwhile."""
    with httpx.Client(base_url=daemon.url, timeout=60) as http:
        stored += filter(None, (store(http, counts, "stored before") for _ in range(N_BEFORE)))
        {"full": disk.fill, "read-only": disk.stop_writing, "gone": disk.pull}[fault]()
        for _ in range(N_DURING):
            if (found := store(http, counts, "stored meanwhile")) is not None:
                stored.append(found)
            ask(http, counts, "chat meanwhile", is_readable=fault != "gone")
            note(http.get(f"/v1/responses/{stored[0]}"), counts, "read meanwhile")
        for path in ("/health", "/ready", "/metrics", "/v1/models"):
            note(http.get(path), counts, path)
        if daemon.process.poll() is not None:
            counts.failures.append("the daemon ended")
        if fault == "full":
            disk.make_room()
            end_s = time.monotonic() + 60
            while (found := store(http, counts, "stored afterwards")) is None:
                if time.monotonic() > end_s:
                    counts.failures.append("nothing can be stored although there is room")
                    return
                time.sleep(0.5)
            stored.append(found)


def look(url: str, counts: Counts, stored: list[str]) -> None:
    """Whether everything that was acknowledged can be read, and more can be stored."""
    with httpx.Client(base_url=url, timeout=60) as http:
        counts.n_lost = sum(http.get(f"/v1/responses/{one}").status_code != 200 for one in stored)
        if store(http, counts, "stored after the restart") is None:
            counts.failures.append("nothing can be stored after the restart")


@contextmanager
def disk_in(folder: Path) -> Iterator[Disk]:
    disk = Disk(folder)
    try:
        yield disk
    finally:
        disk.close()


def one_round(fault: str) -> tuple[Counts, int]:
    """What happened, and how many responses were acknowledged."""
    counts: Counts = Counts()
    stored: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edgeagent-disk-") as scratch:
        folder = Path(scratch)
        models = folder / "models"
        models.mkdir()
        write_stories(models / f"{TALES_CHAT}.gguf", FAMILIES["qwen2.5"].template, 8192)
        with disk_in(folder) as disk:
            state = disk.place / "state"
            settings = {"default_model": TALES_CHAT, "n_seq": 2}
            with serving(models, state, is_forked=False, **settings) as daemon:
                # Its log and its settings are on this disk, too.
                meet(daemon, disk, fault, counts, stored)
            disk.close()
            disk.mount()
            with serving(models, state, is_forked=False, **settings) as daemon:
                look(daemon.url, counts, stored)
    return counts, len(stored)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    args = parser.parse_args()
    table = Table("disk", "answers", "acknowledged", "lost", "failures")
    n_bad = 0
    for fault in args.faults:
        for _ in range(args.rounds):
            counts, n_stored = one_round(fault)
            n_bad += counts.n_lost + len(counts.failures)
            answers = "\n".join(f"{what}, {n}" for what, n in sorted(counts.statuses.items()))
            failures = "\n".join(sorted(set(counts.failures))) or "none"
            table.add_row(fault, answers, str(n_stored), str(counts.n_lost), failures)
    Console(width=140).print(table)
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())

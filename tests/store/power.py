"""Simulated power cuts: record what a writing process asks of the disk, then take the power away.

`record` runs tests/store/writing.py under strace and keeps its writes, truncations, syncs, names and
acknowledgements in their order. `images` plays them up to a cut. What was synced is there; of the rest
each write may be there, be missing, or be torn at 512-byte sectors, in any combination, and of names that
were made, removed or changed since a folder was synced, any number of the last may be missing.
A disk that lies about syncing is not simulated. Idea: ALICE, Pillai et al. 2014; sqlite.org/testing.html.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.store_key import Secret
from tests.store.conftest import SCHEMA, texts
from tests.store.writing import KEY

ROOT = Path(__file__).resolve().parents[2]
SECTOR = 512
CALLS = "openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink,rename,close"
_CALL = re.compile(r"^\d+ +(\w+)\((.*?)(?:\) += (-?\d+).*| <unfinished \.\.\.>)$")
_RESUMED = re.compile(r"^\d+ +<\.\.\. (\w+) resumed>.*\) += (-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Op:
    """One thing that was asked of the disk, or "ack": a row that was acknowledged."""

    kind: str  # write | truncate | sync | create | unlink | rename | sync_folder | ack
    file: int = -1
    offset: int = 0
    data: bytes = b""
    name: str = ""
    target: str = ""


def record(folder: Path, synchronous: str, n_rounds: int) -> list[Op]:
    """Run the writing process in `folder` and give what it did there. Needs strace."""
    trace = folder.with_suffix(".trace")
    command = ["strace", "-f", "-xx", "-s", "70000", "-e", f"trace={CALLS}", "-e", "signal=none"]
    writing = [sys.executable, "-m", "tests.store.writing", str(folder), KEY]
    subprocess.run(
        [*command, "-o", str(trace), *writing, "1", str(n_rounds), synchronous],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    ops = Parser(str(folder)).parse(trace.read_text(encoding="ascii"))
    trace.unlink()
    return ops


@dataclass
class Parser:
    """From strace's lines to `Op`s on the files of one folder."""

    folder: str
    ops: list[Op] = field(default_factory=list)
    fds: dict[int, int | str] = field(default_factory=dict)  # a file's number, or a folder's name
    places: dict[int, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    n_files: int = 0

    def parse(self, trace: str) -> list[Op]:
        waiting: dict[str, tuple[str, str]] = {}
        for line in trace.splitlines():
            thread = line.split(" ", 1)[0]
            if match := _RESUMED.match(line):
                if thread in waiting:
                    call, arguments = waiting.pop(thread)
                    self.call(call, arguments, int(match[2]))
            elif match := _CALL.match(line):
                if match[3] is None:
                    waiting[thread] = (match[1], match[2])
                else:
                    self.call(match[1], match[2], int(match[3]))
        return self.ops

    def call(self, call: str, arguments: str, result: int) -> None:
        if result < 0:
            return
        strings = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
        if call in ("openat", "unlink", "rename"):
            names = [text.decode() for text in strings]
            if all(name.startswith(self.folder) for name in names):
                getattr(self, call)(names, arguments, result)
            return
        fd = int(arguments.split(",")[0])
        if call == "close":
            self.fds.pop(fd, None)
        elif call == "write" and fd == 1:
            self.ops.append(Op("ack", data=strings[0].rstrip(b"\n")))
        elif fd in self.fds:
            self.on_file(call, fd, self.fds[fd], arguments, strings)

    def on_file(
        self, call: str, fd: int, file: int | str, arguments: str, strings: list[bytes]
    ) -> None:
        if isinstance(file, str):
            self.ops.append(Op("sync_folder", name=file))
        elif call in ("fsync", "fdatasync"):
            self.ops.append(Op("sync", file))
        elif call == "ftruncate":
            self.ops.append(Op("truncate", file, int(arguments.split(",")[1])))
        elif call == "pwrite64":
            offset = int(arguments.rsplit(",", 1)[1])
            self.ops.append(Op("write", file, offset, strings[0]))
        elif call == "write":
            self.ops.append(Op("write", file, self.places[fd], strings[0]))
            self.places[fd] += len(strings[0])

    def openat(self, names: list[str], arguments: str, fd: int) -> None:
        name = names[0]
        self.places[fd] = 0
        if name not in self.names and "O_CREAT" not in arguments:
            self.fds[fd] = name  # a folder, about to be synced
            return
        if name not in self.names:
            self.n_files += 1
            self.names[name] = self.n_files
            self.ops.append(Op("create", self.n_files, name=name))
        self.fds[fd] = self.names[name]
        if "O_TRUNC" in arguments:
            self.ops.append(Op("truncate", self.names[name], 0))

    def unlink(self, names: list[str], _arguments: str, _result: int) -> None:
        self.names.pop(names[0], None)
        self.ops.append(Op("unlink", name=names[0]))

    def rename(self, names: list[str], _arguments: str, _result: int) -> None:
        self.names[names[1]] = self.names.pop(names[0])
        self.ops.append(Op("rename", name=names[0], target=names[1]))


@dataclass
class Disk:
    """What is safe, and what is on its way."""

    names: dict[str, int] = field(default_factory=dict)
    renaming: list[Op] = field(default_factory=list)
    content: dict[int, bytes] = field(default_factory=dict)
    writing: dict[int, list[Op]] = field(default_factory=dict)

    def take(self, op: Op) -> None:
        if op.kind in ("create", "unlink", "rename"):
            self.renaming.append(op)
        elif op.kind == "sync_folder":
            # Of one journal, as in ext4: names of other folders that came before are safe as well.
            for change in self.renaming:
                _rename(self.names, change)
            self.renaming.clear()
        elif op.kind == "sync":
            self.content[op.file] = _written(
                self.content.get(op.file, b""), self.writing.pop(op.file, [])
            )
        elif op.kind in ("write", "truncate"):
            self.writing.setdefault(op.file, []).append(op)

    def cut(self, rng: random.Random) -> dict[str, bytes]:
        """The files after the power went away."""
        names = dict(self.names)
        for change in self.renaming[: rng.randint(0, len(self.renaming))]:
            _rename(names, change)
        kept = {file: list(_kept(ops, rng)) for file, ops in self.writing.items()}
        return {
            name: _written(self.content.get(file, b""), kept.get(file, []))
            for name, file in names.items()
        }


def _rename(names: dict[str, int], op: Op) -> None:
    if op.kind == "create":
        names[op.name] = op.file
    elif op.kind == "unlink":
        names.pop(op.name, None)
    elif op.name in names:
        names[op.target] = names.pop(op.name)


def _written(content: bytes, ops: list[Op]) -> bytes:
    image = bytearray(content)
    for op in ops:
        if op.kind == "truncate":
            del image[op.offset :]
            image.extend(bytes(op.offset - len(image)))
        else:
            image.extend(bytes(max(0, op.offset - len(image))))
            image[op.offset : op.offset + len(op.data)] = op.data
    return bytes(image)


def _kept(ops: list[Op], rng: random.Random) -> Iterator[Op]:
    """Some of the writes that no sync has waited for, some of them torn."""
    style = rng.choice(("none", "all", "first", "some", "some", "torn"))
    first = rng.randint(0, len(ops))
    for n, op in enumerate(ops):
        if style == "none" or (style == "first" and n > first):
            continue
        if style in ("some", "torn") and rng.random() < 0.4:
            continue
        if op.kind == "write" and (style == "torn" or (style == "first" and n == first)):
            for start in range(0, len(op.data), SECTOR):
                if rng.random() < 0.5:
                    sector = op.data[start : start + SECTOR]
                    yield Op("write", op.file, op.offset + start, sector)
        else:
            yield op


@dataclass
class Tally:
    cuts: int = 0
    acknowledged: int = 0
    cuts_that_lost: int = 0
    rows_lost: int = 0
    damaged: int = 0
    said_of_log: int = 0
    complaints: list[str] = field(default_factory=list)


def cut_power(ops: list[Op], folder: Path, n_cuts: int, seed: int, scratch: Path) -> Tally:
    """Open the store after `n_cuts` cuts spread over the recording, and look for every row."""
    rng, tally, disk = random.Random(seed), Tally(), Disk()
    points = [rng.randrange(len(ops)) for _ in range(n_cuts)]
    acknowledged: set[str] = set()
    for n, op in enumerate(ops):
        if op.kind == "ack":
            acknowledged.add(op.data.decode())
        disk.take(op)
        for _ in range(points.count(n)):
            _look(disk.cut(rng), folder, scratch, acknowledged, tally)
    tally.acknowledged = len(acknowledged)
    return tally


def _look(
    image: dict[str, bytes], folder: Path, scratch: Path, acknowledged: set[str], tally: Tally
) -> None:
    place = scratch / "store"
    shutil.rmtree(place, ignore_errors=True)
    for name, content in image.items():
        if name.endswith("-shm"):
            continue  # is in memory, and made anew
        path = place / Path(name).relative_to(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    tally.cuts += 1
    try:
        secret = Secret(bytes.fromhex(KEY), "the test")
        with contextlib.closing(
            Database(place, secret, StoreOptions(reserve_bytes=0), SCHEMA)
        ) as store:
            found = set(store.read(texts))
            tally.said_of_log += any(n.code == "store_log_damaged" for n in store.notices)
            said = [n.message for n in store.notices if n.code != "store_log_damaged"]
    except Exception as exc:
        found, said = set(), [f"{type(exc).__name__}: {exc}"]
    tally.damaged += bool(said)
    tally.complaints += said
    lost = acknowledged - found
    tally.rows_lost += len(lost)
    tally.cuts_that_lost += bool(lost)

"""Searches every byte of the state directory for erased texts.

Probes are pieces of the erased texts, taken before deletion: at most 64, spread over rows and positions,
so that a leftover page, log frame or file of any size probably contains one. Databases and their logs are
searched decrypted, page by page, including free pages; other files are searched as they are. A probe that
also occurs in remaining rows is no evidence of erased ones; it is counted separately.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from edgeagent.errors import StoreDamaged
from edgeagent.store.database_file_reads import open_raw
from edgeagent.store.database_files import StoreFiles, beside
from edgeagent.store.database_pages import decrypted
from edgeagent.store.sql import Connection, scalar

MOST_PROBES = 64
PROBE_BYTES = 24
LEAST_BYTES = 8  # shorter pieces occur everywhere by chance
_CHUNK = 1 << 20
_STRINGS = 3
# Row ids reveal no content and may appear in the log.
_ID = re.compile(r"[a-z]+_[0-9a-f]{16,}")
_WORD = re.compile(r"[A-Za-z0-9]{8,}")  # full-text search changes other letters


class Probes:
    """At most `MOST_PROBES` pieces of erased texts, however many are added. Kept in memory only."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._kept: list[bytes] = []
        self._n_offered = 0

    def add(self, *texts: str | None) -> None:
        """Add two pieces of each text as it is stored, and its longest word as the search index stores it.
        Of JSON, only its longest strings are used: braces and names are everywhere."""
        for text in texts:
            for part in _strings(text or ""):
                raw = part.encode()
                for _ in range(2):
                    at = self._random.randrange(max(1, len(raw) - PROBE_BYTES + 1))
                    self._offer(raw[at : at + PROBE_BYTES])
                word = max(_WORD.findall(part), key=len, default="")
                self._offer(word.lower().encode()[:PROBE_BYTES])

    def all(self) -> list[bytes]:
        return sorted(set(self._kept))

    def _offer(self, piece: bytes) -> None:
        """Reservoir sampling: each offered piece has the same chance to stay."""
        if len(piece) < LEAST_BYTES or piece in self._kept:
            return
        self._n_offered += 1
        if len(self._kept) < MOST_PROBES:
            self._kept.append(piece)
        elif (at := self._random.randrange(self._n_offered)) < MOST_PROBES:
            self._kept[at] = piece


def _strings(text: str) -> list[str]:
    """The longest strings in JSON text, spelled as in the text; other texts are returned whole."""
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    found: list[str] = []
    todo = [value]
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            if not _ID.fullmatch(node):
                found.append(node)
        elif isinstance(node, dict | list):
            todo += node.values() if isinstance(node, dict) else node
    longest = sorted(found, key=len, reverse=True)[:_STRINGS]
    spellings = [(json.dumps(s)[1:-1], json.dumps(s, ensure_ascii=False)[1:-1]) for s in longest]
    return [next((each for each in both if each in text), "") for both in spellings]


@dataclass
class ScanResult:
    """What was searched and found. `residue`, `backups`: file names with their number of probes; `shared`:
    tables whose remaining rows contain probes, too; `unreadable`: damaged files in quarantine."""

    n_probes: int = 0
    n_files: int = 0
    n_bytes: int = 0
    shared: dict[str, int] = field(default_factory=dict)
    residue: dict[str, int] = field(default_factory=dict)
    backups: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.residue


def search(
    files: StoreFiles, key: bytes | None, probes: Iterable[bytes],
    kept_in: Callable[[bytes], str | None],
    *, state_dir: Path, leave_out: Iterable[Path] = (), tell: Callable[[int], object] = lambda _n: None,
) -> ScanResult:  # fmt: skip
    """Search the whole state directory. `kept_in`: the table of a remaining row that contains a probe.
    `leave_out`: folders without client data, such as the models directory. `tell` gets the number of bytes
    searched.
    """
    wanted = list(probes)
    found = ScanResult(n_probes=len(wanted))
    hits: dict[Path, set[bytes]] = {}
    for path in _files(state_dir, files.folder, list(leave_out)):
        try:
            hits[path] = _search_file(path, files, key, wanted, found, tell)
        except FileNotFoundError:
            continue  # rotated or checkpointed meanwhile
        except StoreDamaged:
            if not _is_old_copy(path, files):
                raise
            found.unreadable.append(str(path))
    shared = {
        probe: table
        for probe in set().union(*hits.values())
        if (table := kept_in(probe)) is not None
    }
    found.shared = dict(Counter(shared.values()))
    for path, pieces in hits.items():
        if left := pieces - shared.keys():
            where = found.backups if _is_old_copy(path, files) else found.residue
            where[str(path)] = len(left)
    return found


def _is_old_copy(path: Path, files: StoreFiles) -> bool:
    return path.is_relative_to(files.backups) or path.is_relative_to(files.quarantine)


def kept_in(conn: Connection, probe: bytes) -> str | None:
    """The table of a remaining row that contains this piece of text; None if there is none.

    Searches every table, and the SQL of the schema itself, since a word like "feedback" is both a client's
    and ours. Reads the whole database if nothing contains it.
    """
    for table, columns in _text_columns(conn):
        # Compare bytes: a piece may begin or end within a character.
        terms = (
            f"instr(cast({column} as blob), :probe) or instr(cast(lower({column}) as blob), :probe)"
            for column in columns
        )
        sql = f"select 1 from {table} where {' or '.join(terms)} limit 1"
        if scalar(conn, sql, {"probe": probe}) is not None:
            return table
    return None


def _text_columns(conn: Connection) -> list[tuple[str, list[str]]]:
    """Every table except those of the search index, which store words in another form."""
    found = [("sqlite_schema", ["sql"]), ("document_part", ["body"])]
    sql = "select name from pragma_table_list where schema = 'main' and type = 'table'"
    for (table,) in conn.execute(sql).fetchall():
        columns = conn.execute(
            "select name from pragma_table_info(?) where type = 'TEXT'", (table,)
        ).fetchall()
        if columns and not table.startswith("sqlite_"):
            found.append((table, [row[0] for row in columns]))
    return found


def total_bytes(state_dir: Path, folder: Path, leave_out: Iterable[Path] = ()) -> int:
    """How many bytes `search` will read, for a progress bar."""
    return sum(path.stat().st_size for path in _files(state_dir, folder, list(leave_out)))


def _files(state_dir: Path, folder: Path, leave_out: list[Path]) -> Iterator[Path]:
    roots = {state_dir} if folder.is_relative_to(state_dir) else {state_dir, folder}
    for root in sorted(roots):
        for path in sorted(root.rglob("*")):
            is_left_out = any(path.is_relative_to(each) for each in leave_out)
            if path.is_file() and not path.is_symlink() and not is_left_out:
                yield path


def _search_file(
    path: Path, files: StoreFiles, key: bytes | None, wanted: list[bytes], found: ScanResult,
    tell: Callable[[int], Any],
) -> set[bytes]:  # fmt: skip
    log, index = beside(files.database)
    # By identity: another path may lead to the same file.
    is_locked = any(each.exists() and path.samefile(each) for each in (files.database, index))
    opened: Callable[[Path], BinaryIO] = open_raw if is_locked else _open
    is_database = path.is_relative_to(files.folder) and path.suffix in (".db", ".part")
    is_log = path.name.endswith("-wal") and path.is_relative_to(files.folder)
    pieces = (
        decrypted(path, key, opened)
        if (is_database or is_log or path == log) and path != index and path.stat().st_size
        else _raw(path, opened)
    )
    hits: set[bytes] = set()
    left = list(wanted)
    for block in _joined(pieces):
        hits.update(probe for probe in left if probe in block)
        left = [probe for probe in left if probe not in hits]
        found.n_bytes += len(block)
        tell(len(block))
    found.n_files += 1
    return hits


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _raw(path: Path, opened: Callable[[Path], BinaryIO]) -> Iterator[bytes]:
    """Overlapping blocks, so that no probe is split between two."""
    with opened(path) as file:
        end = b""
        while block := file.read(_CHUNK):
            yield end + block
            end = block[-4 * PROBE_BYTES :]


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pages joined to larger blocks: searching a few long strings is faster than many short ones."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield b"\x00\xff\x00".join(waiting)  # no probe spans two pages
            waiting, size = [], 0
    if waiting:
        yield b"\x00\xff\x00".join(waiting)

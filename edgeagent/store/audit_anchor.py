"""The audit anchor: the head of the audit chain, kept outside the database in the log and in a file.

Whoever restores an older copy of the database, or cuts rows and seals off its end, cannot reach these. Set
`audit_anchor` to a path on another disk, or collect the log's `audit_head` lines on another machine. The
file also holds the head of the journal (store/journal.py), and thereby the fact that keys were made.
"""

from __future__ import annotations

import hmac
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from edgeagent.durable import open_regular, replace_text
from edgeagent.errors import BadRequest, EdgeAgentError, SettingsError
from edgeagent.store import audit, clock
from edgeagent.store.audit import AuditHead
from edgeagent.store.disk_reserve import DiskReserve
from edgeagent.store.journal import Journal, JournalPosition

logger = logging.getLogger(__name__)

T = TypeVar("T")
_turn = threading.Lock()
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class AnchorContents:
    """The head of the audit, the head of the journal and the latest trusted time, as the file has them.
    `is_forged`: the file was not written with the key of this store."""

    head: AuditHead
    journal: JournalPosition | None = None
    time_ms: int = 0
    is_forged: bool = False


class RefusalSource(Protocol):
    def refusal(self, db: Any) -> str | None: ...


class AnchorableStore(Protocol):
    """What `publish_head` needs of `Database`."""

    @property
    def disk_reserve(self) -> DiskReserve: ...

    @property
    def journal(self) -> Journal: ...

    @property
    def rollback_detector(self) -> RefusalSource: ...

    def read(self, fn: Callable[[Any], T]) -> T: ...


def parse(text: str) -> AuditHead:
    """`SEQ:MAC` as `audit export` and the log show it. Raises: BadRequest."""
    seq, _, mac = text.strip().partition(":")
    try:
        found = AuditHead(int(seq), bytes.fromhex(mac))
        if found.seq < 0 or len(found.mac) != 32:
            raise ValueError("wrong size")
    except ValueError:
        raise BadRequest(
            f"Anchor {text[:80]!r} is not SEQ:MAC, a number and 64 hexadecimal digits: copy it from "
            "`edgeagent audit export` or from an audit_head line of the log."
        ) from None
    return found


def shown(head: AuditHead) -> str:
    return f"{head.seq}:{head.mac.hex()}"


def read(path: Path) -> AuditHead | None:
    """The last head that was kept; None before the first. Raises: SettingsError."""
    try:
        body = _body(path)
        return AuditHead(int(body["seq"]), bytes.fromhex(body["mac"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SettingsError(
            f"Audit anchor {path} cannot be read ({exc}): restore it, or remove it after "
            "`edgeagent audit verify` has succeeded with an anchor from the log."
        ) from exc


def recall(path: Path, key: bytes) -> AnchorContents | None:
    """Everything in the anchor; None if there is no anchor. Raises: SettingsError."""
    head = read(path)
    if head is None:
        return None
    body = _body(path)
    if "tag" not in body:  # from a version that kept only the head
        return AnchorContents(head)
    try:
        place, time_ms = msgspec.convert(body["journal"], JournalPosition | None), body["time_ms"]
        tag = _tag(key, head, place, time_ms)
        is_forged = not hmac.compare_digest(tag.encode(), str(body["tag"]).encode())
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError):
        return AnchorContents(head, is_forged=True)
    return AnchorContents(head, place, time_ms, is_forged)


def publish_head(
    store: AnchorableStore,
    key: bytes,
    path: Path,
    *,
    is_restored: bool = False,
    is_accepted: bool = False,
) -> AuditHead:
    """Write the committed head of a store and of its journal to the log and to the file. Blocks.

    A head older than the file's is skipped, since threads may arrive in any order; `is_restored` says that
    the database is older on purpose. While the store is locked, the file is left unchanged as evidence,
    unless an administrator has accepted the loss (`is_accepted`).

    Raises: SettingsError, and what the store raises.
    """
    found, why, time_ms = store.read(
        lambda conn: (
            audit.head(conn, key),
            None if is_accepted else store.rollback_detector.refusal(conn),
            clock.floor_ms(conn),
        )
    )
    logger.info("audit_head seq=%d mac=%s", found.seq, found.mac.hex())
    if why is not None:
        return found
    with _turn, store.journal.alone():
        kept = None if is_restored else recall(path, key)
        journal = store.journal.read()
        # After a restore the audit has fewer rows than before, and this stays visible.
        head = kept.head if kept is not None and kept.head.seq > found.seq else found
        place = journal.head if journal is not None else None
        said = AnchorContents(head, place, time_ms)
        if said != kept:
            body = {"seq": head.seq, "mac": head.mac.hex(), "time_ms": time_ms}
            body |= {"journal": msgspec.to_builtins(place), "tag": _tag(key, head, place, time_ms)}
            try:
                _write(path, body)
            except SettingsError:
                if not store.disk_reserve.release():
                    raise
                _write(path, body)
    return found


def publish_done(store: AnchorableStore, key: bytes, path: Path) -> None:
    """`publish_head` after an act that is complete: an anchor that cannot be written is only logged."""
    try:
        publish_head(store, key, path)
    except EdgeAgentError as exc:
        logger.warning("audit_not_anchored code=%s", exc.code)


def _body(path: Path) -> dict[str, Any]:
    with open_regular(path, _MOST_BYTES) as file:
        body = json.load(file)
    return body if isinstance(body, dict) else {}


def _tag(key: bytes, head: AuditHead, place: JournalPosition | None, time_ms: int) -> str:
    fields = ["anchor", head.seq, head.mac, msgspec.to_builtins(place), time_ms]
    return hmac.digest(key, msgspec.msgpack.encode(fields), "sha256").hex()


def _write(path: Path, body: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_text(path, json.dumps(body) + "\n")
    except OSError as exc:
        raise SettingsError(
            f"Audit anchor {path} cannot be written: {exc.strerror}. Make its folder writable, or set "
            "audit_anchor to another path."
        ) from exc

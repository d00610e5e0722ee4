"""The head of the audit chain, kept where the database is not: in the journal and in a file.

Whoever puts back an older copy of the database, or cuts rows and seals off its end, cannot reach these.
Point `audit_anchor` to another disk, or collect the journal's `audit_head` lines on another machine.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from edgeagent.catalog.durable import replace_text
from edgeagent.errors import BadRequest, SettingsError
from edgeagent.store import audit
from edgeagent.store.audit import Head
from edgeagent.store.removal import Store

logger = logging.getLogger(__name__)


def parse(text: str) -> Head:
    """`SEQ:MAC` as `audit export` and the log show it. Raises: BadRequest."""
    seq, _, mac = text.strip().partition(":")
    try:
        found = Head(int(seq), bytes.fromhex(mac))
        if found.seq < 0 or len(found.mac) != 32:
            raise ValueError("wrong size")
    except ValueError:
        raise BadRequest(
            f"Anchor {text[:80]!r} is not SEQ:MAC, a number and 64 hexadecimal digits: copy it from "
            "`edgeagent audit export` or from an audit_head line of the log."
        ) from None
    return found


def shown(head: Head) -> str:
    return f"{head.seq}:{head.mac.hex()}"


def read(path: Path) -> Head | None:
    """The head that was kept last; None before the first. Raises: SettingsError."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return Head(int(body["seq"]), bytes.fromhex(body["mac"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SettingsError(
            f"Audit anchor {path} cannot be read ({exc}): restore it, or remove it after "
            "`edgeagent audit verify` was sound with an anchor from the log."
        ) from exc


def publish(path: Path, head: Head, *, is_restored: bool = False) -> None:
    """Tell the log and the file about a committed head. Any thread; call it after the commit.

    A head older than the file's is left out, since threads may come in any order; `is_restored` says
    that the database is an older one on purpose. Raises: SettingsError when the file cannot be kept.
    """
    logger.info("audit_head seq=%d mac=%s", head.seq, head.mac.hex())
    kept = read(path)
    if kept is not None and kept.seq >= head.seq and not is_restored:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_text(path, json.dumps({"seq": head.seq, "mac": head.mac.hex()}) + "\n")
    except OSError as exc:
        raise SettingsError(
            f"Audit anchor {path} cannot be written: {exc.strerror}. Make its folder writable, or set "
            "audit_anchor to another path."
        ) from exc


def publish_head(store: Store, key: bytes, path: Path, *, is_restored: bool = False) -> Head:
    """Export the committed head of a store. Blocks. Raises: SettingsError, what the store raises."""
    found = store.read(lambda conn: audit.head(conn, key))
    publish(path, found, is_restored=is_restored)
    return found

"""Which erasures a request has seen, so that content from before an erasure is not stored after it.

Each erasure is numbered in the table `erasure` before it deletes anything. A request records the newest
number when it arrives (`SEEN`). Later, the transaction that stores its content checks the erasures that
came in between: if one of them covers this owner, subject or conversation, nothing is stored. The request
log, which writes later and for many requests, does the same (store/requests.py). Rows of the table have
keyed pseudonyms (`Journal.pseudonym`), never names.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from edgeagent.errors import Erased
from edgeagent.store.ownership import Selector
from edgeagent.store.sql import Connection, marks, now_ms, scalar

MOST_KEPT = 4096  # erasures; a request older than all of these stores nothing

# None outside of requests: what the daemon writes on its own contains no client's content.
SEEN: ContextVar[int | None] = ContextVar("erasures_seen", default=None)

Pseudonym = Callable[[str, str], str]


@dataclass(frozen=True)
class ContentOrigin:
    """Whose content is to be stored, and the newest erasure when its request arrived."""

    seen: int | None
    owner: str
    subjects: list[str] = field(default_factory=list)
    conversation: str | None = None


def newest(conn: Connection) -> int:
    """The number of the newest erasure; 0 before the first."""
    return int(scalar(conn, "select max(n) from erasure") or 0)


def advance(conn: Connection, pseudonym: Pseudonym, selector: Selector) -> None:
    """Number an erasure, in its own transaction before the first one that deletes."""
    names = {field: pseudonym(field, name) for field, name in selector.values().items()}
    conn.execute(
        "insert into erasure (owner, subject, conversation, began_ms) values (?, ?, ?, ?)",
        (names.get("owner"), names.get("subject"), names.get("conversation"), now_ms()),
    )
    conn.execute("delete from erasure where n <= (select max(n) from erasure) - ?", (MOST_KEPT,))


def check(conn: Connection, pseudonym: Pseudonym, mark: ContentOrigin) -> None:
    """Raises: Erased if a matching erasure has come since. Call it in the transaction that stores content."""
    if is_erased(conn, pseudonym, mark):
        raise Erased(
            "The data of this request was erased while it was being answered, so nothing of it is "
            "stored: send it again if it is to be stored."
        )


def is_erased(conn: Connection, pseudonym: Pseudonym, mark: ContentOrigin) -> bool:
    """Whether a matching erasure has come since, or so many that nobody knows. Call it in the transaction
    that stores content."""
    if mark.seen is None or newest(conn) <= mark.seen:
        return False
    subjects = [pseudonym("subject", name) for name in mark.subjects]
    conversation = mark.conversation and pseudonym("conversation", mark.conversation)
    found = conn.execute(
        "select 1 from erasure where n > ? and (owner is null or owner = ?) "
        f"and (subject is null or subject in ({marks(len(subjects))})) "
        "and (conversation is null or conversation = ?) limit 1",
        (mark.seen, pseudonym("owner", mark.owner), *subjects, conversation),
    ).fetchone()
    oldest = int(scalar(conn, "select min(n) from erasure"))
    return found is not None or mark.seen + 1 < oldest

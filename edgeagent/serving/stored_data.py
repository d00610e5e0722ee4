"""Audit, export and erasure for clients: what a caller may reach, and what it is told of it.

A key with the scope `data` acts on the rows of its own owner; one with `admin` on all rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeagent.errors import InsufficientScope
from edgeagent.store import audit_anchor
from edgeagent.store.data_lifecycle import DataLifecycle
from edgeagent.store.erasure_request import ErasureRequest
from edgeagent.store.ownership import Selector
from edgeagent.types.caller import Caller

Json = dict[str, Any]


@dataclass(frozen=True)
class DataSelection:
    """Rows that match all of these that are given. Nothing given: all rows of the caller's owner, for a key
    without `admin`."""

    owner: str | None = None
    conversation: str | None = None
    subject: str | None = None

    def selector(self) -> Selector:
        """Raises: BadRequest if nothing is given."""
        return Selector(owner=self.owner, conversation=self.conversation, subject=self.subject)


@dataclass(frozen=True)
class AuditRows:
    """A page of the audit. `next_after` gives the next page; None: this was the last."""

    rows: list[Json]
    next_after: int | None
    head: str


class StoredData:
    """What owners and inspectors may do with stored data. Event loop's thread only."""

    def __init__(self, lifecycle: DataLifecycle) -> None:
        self._lifecycle = lifecycle

    async def audit_page(self, after: int, limit: int) -> AuditRows:
        """Rows of the audit after number `after`, oldest first."""
        rows, head = await self._lifecycle.audit_page(after, limit)
        return AuditRows(
            rows=[row.shown() for row in rows],
            next_after=rows[-1].seq if rows and rows[-1].seq < head.seq else None,
            head=audit_anchor.shown(head),
        )

    async def export(self, caller: Caller, selection: DataSelection) -> AsyncIterator[bytes]:
        """The pieces of a JSON document with all rows. Raises: InsufficientScope, Forbidden, BadRequest,
        NotFound."""
        return await self._lifecycle.export(_allowed(caller, selection), caller.key_id)

    async def erase(
        self,
        caller: Caller,
        selection: DataSelection,
        *,
        except_held: bool,
        drop_backups: bool,
        alone: AbstractContextManager[None],
    ) -> Json:
        """Erase the rows. Gives the receipt, without counts that tell of others' data where the key has no
        `admin`. `alone` keeps an owner to one erasure at a time.

        Raises: InsufficientScope, Forbidden, BadRequest, NotFound, LegalHold, ErasureRunning.
        """
        selector = _allowed(caller, selection)
        is_admin = "admin" in caller.scopes
        if drop_backups and not is_admin:
            raise InsufficientScope(
                "`drop_backups` deletes what backups hold of all owners, this key lacks the scope `admin`: "
                "leave it out, or use a key that has it.",
                param="drop_backups",
            )
        # An erasure takes the whole store; the owner of a part of it must not keep the store busy.
        with nullcontext() if is_admin else alone:
            receipt = await self._lifecycle.erase(
                ErasureRequest(selector, caller.key_id, except_held, drop_backups)
            )
        if is_admin:
            return _without_folders(receipt.shown())
        return self._lifecycle.shown_to_owner(receipt)


def _allowed(caller: Caller, selection: DataSelection) -> Selector:
    """What this caller may reach of a selection. Raises: InsufficientScope, Forbidden, BadRequest."""
    if "admin" in caller.scopes:
        return selection.selector()
    if "data" not in caller.scopes:
        raise InsufficientScope(
            f"This key has the scopes {', '.join(sorted(caller.scopes))}, this request needs `data` or "
            "`admin`: use a key that has it."
        )
    if selection == DataSelection():
        return Selector(owner=caller.owner)
    return selection.selector().within(caller.owner)


def _without_folders(receipt: Json) -> Json:
    """The receipt with names of files instead of their paths on this device."""
    proof = dict(receipt["proof"])
    for name in ("residue", "backups"):
        proof[name] = {Path(path).name: n for path, n in proof[name].items()}
    proof["unreadable"] = [Path(path).name for path in proof["unreadable"]]
    return receipt | {"proof": proof}

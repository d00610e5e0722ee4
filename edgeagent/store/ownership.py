"""Which rows belong to an owner, a conversation or a subject, as SQL conditions.

Export, erasure and legal hold all use this module, so they always agree about what a person's data is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edgeagent.errors import BadRequest, Forbidden
from edgeagent.store.sql import Connection, scalar

# True for a row under legal hold: its own hold, its parent's, or that of a row that needs it.
# Retention and erasure skip such rows.
HELD = {
    "conversation": """(is_held or exists (select 1 from response r
        where r.conversation_id = conversation.id and r.is_held))""",
    "response": """(is_held or exists (select 1 from conversation c
        where c.id = response.conversation_id and c.is_held))""",
    "item": """(exists (select 1 from conversation c where c.id = item.conversation_id and c.is_held)
        or exists (select 1 from response r where r.id = item.response_id and (r.is_held
            or exists (select 1 from conversation c where c.id = r.conversation_id and c.is_held))))""",
    "transcript": "is_held",
    "segment": """exists (select 1 from transcript t
        where t.id = segment.transcript_id and t.is_held)""",
    "audio_job": """exists (select 1 from transcript t
        where t.id = audio_job.transcript_id and t.is_held)""",
    "feedback": """(exists (select 1 from conversation c
            where c.id = feedback.target_id and c.is_held)
        or exists (select 1 from transcript t where t.id = feedback.target_id and t.is_held)
        or exists (select 1 from response r where r.id = feedback.target_id and (r.is_held
            or exists (select 1 from conversation c where c.id = r.conversation_id and c.is_held)))
        or exists (select 1 from item where item.id = feedback.target_id and {item}))""",
    "request": "false",
    "decision": "false",
    "batch_line": "is_held",
    "batch_file": """exists (select 1 from batch_line l
        where l.file_id = batch_file.id and l.is_held)""",
    "batch": """exists (select 1 from batch_line l where l.is_held
        and l.file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id))""",
    "vector_store": "is_held",
    "vector_store_file": """exists (select 1 from vector_store s
        where s.n = vector_store_file.store_n and s.is_held)""",
    "chunk": """exists (select 1 from vector_store_file f join vector_store s on s.n = f.store_n
        where f.n = chunk.file_n and s.is_held)""",
    "document": """(is_held or exists (select 1 from vector_store_file f
        join vector_store s on s.n = f.store_n where f.document_id = document.id and s.is_held))""",
    "document_part": """exists (select 1 from document d where d.id = document_part.document_id
        and (d.is_held or exists (select 1 from vector_store_file f
            join vector_store s on s.n = f.store_n where f.document_id = d.id and s.is_held)))""",
}
HELD["feedback"] = HELD["feedback"].format(item=HELD["item"])
# In deletion order: tables that refer to others first, also in the conditions below.
TABLES = (
    "batch_line", "batch_file", "batch", "feedback", "decision", "item", "segment", "audio_job", "transcript",
    "response", "conversation", "request", "chunk", "document_part", "document", "vector_store_file",
    "vector_store",
)  # fmt: skip
HOLDABLE = (
    "conversation", "response", "transcript", "batch_line", "document", "vector_store",
)  # fmt: skip


@dataclass(frozen=True)
class Selector:
    """Selects rows that match every given field. Raises: BadRequest if none is given."""

    owner: str | None = None
    conversation: str | None = None
    subject: str | None = None

    def __post_init__(self) -> None:
        if not self.values():
            raise BadRequest(
                "No owner, conversation or subject is given: name at least one of them."
            )

    def values(self) -> dict[str, str]:
        """The given fields, as bound in SQL and shown in receipts."""
        return {name: value for name, value in self.__dict__.items() if value is not None}

    def named(self) -> str:
        """For messages: owner 'ann' and subject 'x'."""
        return " and ".join(f"{name} {value!r}" for name, value in self.values().items())

    def within(self, owner: str) -> Selector:
        """The same, limited to this owner. Raises: Forbidden if it names another one."""
        if self.owner not in (None, owner):
            raise Forbidden(
                f"Owner {self.owner!r} is not the owner of this key, {owner!r} is: leave `owner` out.",
                param="owner",
            )
        return replace(self, owner=owner)

    def where(self, table: str) -> str:
        """A condition on `table`'s rows; bind `values()` with it."""
        return {
            "conversation": self._conversations,
            "response": self._responses,
            "item": self._items,
            "transcript": self._transcripts,
            "segment": self._segments,
            "audio_job": self._segments,
            "feedback": self._feedback,
            "request": self._requests,
            "decision": self._decisions,
            "batch_line": self._batch_lines,
            "batch_file": self._batch_files,
            "batch": self._batches,
            "chunk": self._chunks,
            "document_part": self._document_parts,
            "document": self._documents,
            "vector_store_file": self._store_files,
            "vector_store": self._stores,
        }[table]()

    @property
    def is_whole_owner(self) -> bool:
        """Whether it selects everything of an owner, including rows without conversation or subject."""
        return self.conversation is None and self.subject is None

    def _owned(self) -> list[str]:
        return ["owner = :owner"] if self.owner is not None else []

    def _conversations(self) -> str:
        terms = self._owned()
        if self.subject is not None:
            terms.append("subject = :subject")
        if self.conversation is not None:
            terms.append("id = :conversation")
        return " and ".join(terms)

    def _responses(self) -> str:
        terms = self._owned()
        if self.subject is not None:
            terms.append(
                "(subject = :subject or conversation_id in "
                f"(select id from conversation where {self._conversations()}))"
            )
        if self.conversation is not None:
            terms.append("conversation_id = :conversation")
        return " and ".join(terms)

    def _items(self) -> str:
        if self.is_whole_owner:
            return "owner = :owner"
        terms = [
            *self._owned(),
            f"(conversation_id in (select id from conversation where {self._conversations()})"
            f" or response_id in (select id from response where {self._responses()}))",
        ]
        return " and ".join(terms)

    def _transcripts(self) -> str:
        if self.conversation is not None:
            return "false"
        terms = self._owned()
        if self.subject is not None:
            terms.append("subject = :subject")
        return " and ".join(terms)

    def _segments(self) -> str:
        return f"transcript_id in (select id from transcript where {self._transcripts()})"

    def _feedback(self) -> str:
        if self.is_whole_owner:
            return "owner = :owner"
        targets = " union all ".join(
            f"select id from {table} where {self.where(table)}"
            for table in ("conversation", "response", "item", "transcript")
        )
        return " and ".join([*self._owned(), f"target_id in ({targets})"])

    def _requests(self) -> str:
        # Requests have an owner, but no subject or conversation.
        return "owner = :owner" if self.is_whole_owner else "false"

    def _decisions(self) -> str:
        if self.is_whole_owner:
            return "owner = :owner"
        of = [
            f"response_id in (select id from response where {self._responses()})",
            f"conversation_id in (select id from conversation where {self._conversations()})",
        ]
        if self.subject is not None:
            inside = " and conversation_id = :conversation" if self.conversation is not None else ""
            of.append(f"(subject = :subject{inside})")
        return " and ".join([*self._owned(), f"({' or '.join(of)})"])

    def _batches(self) -> str:
        # A batch is about the subject of its metadata, and so is all that is in its files.
        return self._transcripts()

    def _batch_files(self) -> str:
        if self.is_whole_owner:
            return "owner = :owner"
        of_batches = " union all ".join(
            f"select {kind}_file_id from batch where {self._batches()}"
            for kind in ("input", "output", "error")
        )
        return " and ".join([*self._owned(), f"id in ({of_batches})"])

    def _batch_lines(self) -> str:
        of_files = f"file_id in (select id from batch_file where {self._batch_files()})"
        if self.is_whole_owner:
            return of_files
        terms = []
        if self.subject is not None:
            terms.append(
                "(subject = :subject or conversation in "
                f"(select id from conversation where {self._conversations()}))"
            )
        if self.conversation is not None:
            terms.append("conversation = :conversation")
        if self.owner is not None:
            terms.append("file_id in (select id from batch_file where owner = :owner)")
        return f"({' and '.join(terms)} or {of_files})"

    def _stores(self) -> str:
        # A vector store is about the subject of its metadata, and so are the documents in it.
        return self._transcripts()

    def _store_files(self) -> str:
        return f"store_n in (select n from vector_store where {self._stores()})"

    def _chunks(self) -> str:
        return f"file_n in (select n from vector_store_file where {self._store_files()})"

    def _documents(self) -> str:
        if self.is_whole_owner:
            return "owner = :owner"
        of_stores = f"select document_id from vector_store_file where {self._store_files()}"
        return " and ".join([*self._owned(), f"id in ({of_stores})"])

    def _document_parts(self) -> str:
        return f"document_id in (select id from document where {self._documents()})"


def counts(conn: Connection, selector: Selector) -> dict[str, int]:
    """How many rows of each table are selected."""
    return {
        table: int(_count(conn, table, selector.where(table), selector.values()))
        for table in TABLES
    }


def held_counts(conn: Connection, selector: Selector) -> dict[str, int]:
    """How many of the selected rows are under legal hold; tables without any are left out."""
    found = {
        table: int(
            _count(conn, table, f"({selector.where(table)}) and {HELD[table]}", selector.values())
        )
        for table in TABLES
    }
    return {table: n for table, n in found.items() if n}


def set_hold(conn: Connection, selector: Selector, is_held: bool) -> dict[str, int]:
    """Put the rows that exist now under legal hold, or end it. Returns how many rows changed."""
    changed = {}
    for table in HOLDABLE:
        cursor = conn.execute(
            f"update {table} set is_held = :hold where ({selector.where(table)}) and is_held != :hold",
            selector.values() | {"hold": int(is_held)},
        )
        changed[table] = int(cursor.rowcount)
    return changed


def _count(conn: Connection, table: str, where: str, values: dict[str, str]) -> Any:
    return scalar(conn, f"select count(*) from {table} where {where}", values)

"""Bodies and answers about stored data: audit, export, erasure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeagent.store.ownership import Selector


class WhoseData(BaseModel):
    """Whose data is meant: what matches all of these that are given; one at least is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    owner: str | None = Field(
        None, min_length=1, max_length=200, description="default: the key's own"
    )
    conversation: str | None = Field(None, min_length=1, max_length=200)
    subject: str | None = Field(None, min_length=1, max_length=512)

    def selector(self) -> Selector:
        """Raises: BadRequest if nothing is given."""
        return Selector(owner=self.owner, conversation=self.conversation, subject=self.subject)


class EraseRequest(WhoseData):
    """What to erase, and how far."""

    except_held: bool = Field(False, description="erase the rest where some is under legal hold")
    drop_backups: bool = Field(
        False, description="make a new backup and delete those from before; needs the scope `admin`"
    )


class AuditRow(BaseModel):
    """One row of the audit. It names objects and holds no content."""

    seq: int
    utc_ms: int
    boot_id: str
    actor: str
    action: str
    object: str
    digest: str | None
    mac: str


class AuditPage(BaseModel):
    """A page of the audit; `after=next_after` gives the next one, null: this was the last."""

    object: Literal["list"] = "list"
    data: list[AuditRow]
    next_after: int | None
    head: str = Field(
        description="SEQ:MAC of the newest row, for `edgeagent audit verify --anchor`"
    )


class ProofBody(BaseModel):
    """How the state directory was searched for pieces of the erased texts, and what was found. All but
    `n_probes` is null for a key without the scope `admin`: it would tell of others' data."""

    n_probes: int
    n_files: int | None
    n_bytes: int | None
    shared: dict[str, int] | None = Field(
        description="tables whose kept rows hold some of the pieces too, with how many"
    )
    residue: dict[str, int] | None = Field(description="files that still hold some, with how many")
    backups: dict[str, int] | None = Field(
        description="backups that still hold some, with how many"
    )
    unreadable: list[str] | None = Field(description="damaged copies that were set aside")


class ReceiptBody(BaseModel):
    """What was erased, and what is left of it."""

    edgeagent_erasure: Literal[1] = 1
    what: dict[str, str]
    actor: str
    began_ms: int
    done_ms: int
    erased: dict[str, int] = Field(description="rows of each table")
    held_back: dict[str, int] = Field(description="rows of each table under legal hold")
    digest: str = Field(description="SHA-256 over what was erased, as in the audit")
    audit_seq: int
    audit_mac: str
    forgotten: list[str] = Field(description="caches that were told to forget")
    is_log_empty: bool
    is_vacuumed: bool | None
    is_gone: bool = Field(description="no trace was found outside of backups")
    backups_removed: list[str]
    backups_holding: list[dict[str, Any]] | None = Field(
        description="backups from before, which may hold it; null without the scope `admin`"
    )
    proof: ProofBody

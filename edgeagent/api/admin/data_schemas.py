"""Bodies and answers about stored data: audit, export, erasure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from edgeagent.api.http.body_base import BodyModel
from edgeagent.serving.stored_data import DataSelection


class WhoseData(BodyModel):
    """The selection of data: rows that match all given fields; at least one is given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    owner: str | None = Field(
        None, min_length=1, max_length=200, description="default: the key's own"
    )
    conversation: str | None = Field(None, min_length=1, max_length=200)
    subject: str | None = Field(None, min_length=1, max_length=512)

    def selection(self) -> DataSelection:
        return DataSelection(self.owner, self.conversation, self.subject)


class EraseRequest(WhoseData):
    """The selection to erase, and options."""

    except_held: bool = Field(False, description="erase the rest where some rows are on legal hold")
    drop_backups: bool = Field(
        False, description="make a new backup and delete the earlier ones; needs the scope `admin`"
    )


class AuditRow(BodyModel):
    """One row of the audit. It names objects and holds no content."""

    seq: int
    utc_ms: int
    boot_id: str
    actor: str
    action: str
    object: str
    digest: str | None
    mac: str


class AuditPage(BodyModel):
    """A page of the audit; `after=next_after` gives the next one, null means this was the last."""

    object: Literal["list"] = "list"
    data: list[AuditRow]
    next_after: int | None
    head: str = Field(
        description="SEQ:MAC of the newest row, for `edgeagent audit verify --anchor`"
    )


class ProofBody(BodyModel):
    """The search of the state directory for pieces of the erased texts, and its results. All but `n_probes`
    is null for a key without the scope `admin`, since it would reveal data of others."""

    n_probes: int
    n_files: int | None
    n_bytes: int | None
    shared: dict[str, int] | None = Field(
        description="tables whose other rows also contain pieces, with the number of pieces"
    )
    residue: dict[str, int] | None = Field(
        description="files that still contain pieces, with the number of pieces"
    )
    backups: dict[str, int] | None = Field(
        description="backups that still contain pieces, with the number of pieces"
    )
    unreadable: list[str] | None = Field(description="damaged copies that were set aside")


class ReceiptBody(BodyModel):
    """What was erased, and what is left."""

    edgeagent_erasure: Literal[1] = 1
    what: dict[str, str]
    actor: str
    began_ms: int
    done_ms: int
    erased: dict[str, int] = Field(description="rows of each table")
    held_back: dict[str, int] = Field(description="rows of each table on legal hold")
    digest: str = Field(description="SHA-256 of what was erased, as in the audit")
    audit_seq: int
    audit_mac: str
    forgotten: list[str] = Field(description="caches that were cleared")
    is_log_empty: bool
    is_vacuumed: bool | None
    is_gone: bool = Field(description="no trace was found outside of backups")
    backups_removed: list[str]
    backups_holding: list[dict[str, Any]] | None = Field(
        description="earlier backups, which may contain it; null without the scope `admin`"
    )
    proof: ProofBody

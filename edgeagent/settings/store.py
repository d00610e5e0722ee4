"""`[store]`, `[store.prefixes]` and `[store.retention]`: what is kept of requests, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class PrefixSettings(SettingsTable):
    max_bytes: int = Field(
        default=512 << 20,
        ge=0,
        le=1 << 44,
        description="disk space for the KV cache of stored responses, and of system prompts, which lets them "
        "continue at once after a restart; 0: not kept",
    )
    min_tokens: int = Field(
        default=256,
        ge=1,
        le=1 << 20,
        description="shorter conversations and system prompts are computed again instead",
    )

    system_prompts: bool = Field(
        default=True,
        description="keep what was computed of system prompts and tools that return, of chats that are not "
        "stored, too; only the API key that sent them gets it back",
    )
    min_uses: int = Field(
        default=3,
        ge=1,
        le=1_000_000,
        description="requests with the same system prompt and tools after which these are written",
    )
    min_age_s: float = Field(
        default=300.0,
        ge=0,
        le=86_400 * 365,
        description="seconds between the first of these requests and the last; a prompt that tells the time "
        "of day never gets so old",
    )
    min_saving_ms: float = Field(
        default=100.0,
        ge=0,
        le=3_600_000,
        description="time that reading a system prompt must save against computing it, by the rates measured "
        "so far; 0: keep and read it in any case",
    )


class RetentionSettings(SettingsTable):
    content_days: float = Field(
        default=90.0, ge=0, le=36_500, description="content of items and responses; 0: for ever"
    )
    responses_days: float = Field(
        default=365.0,
        ge=0,
        le=36_500,
        description="stored responses and conversations, counted from the last change; 0: for ever",
    )
    transcripts_days: float = Field(
        default=90.0, ge=0, le=36_500, description="transcripts and their segments; 0: for ever"
    )
    recordings_days: float = Field(
        default=7.0,
        ge=0,
        le=36_500,
        description="audio of transcription jobs, counted from its upload; 0: for ever",
    )
    batches_days: float = Field(
        default=30.0, ge=0, le=36_500, description="files of batches and their answers; 0: for ever"
    )
    knowledge_days: float = Field(
        default=0.0,
        ge=0,
        le=36_500,
        description="vector stores, counted from their last use, and documents in none; 0: for ever",
    )
    feedback_days: float = Field(
        default=365.0, ge=0, le=36_500, description="feedback; 0: for ever"
    )
    requests_days: float = Field(
        default=90.0,
        ge=0,
        le=36_500,
        description="route, times and token counts of requests; 0: for ever",
    )
    audit_days: float = Field(
        default=2_192.0,
        ge=0,
        le=36_500,
        description="the audit; default: six years, as 45 CFR 164.316 requires; 0: for ever",
    )

    @property
    def days(self) -> dict[str, float]:
        """Days by class of rows."""
        return {name.removesuffix("_days"): value for name, value in self}


class StoreSettings(SettingsTable):
    enabled: bool = Field(
        default=True, description="keep requests; off: neither content nor counts are stored"
    )
    encryption: Literal["on", "off"] = Field(
        default="on",
        description="encrypt the database and its backups; cannot be changed after the first start",
    )
    key_file: Path | None = Field(
        default=None,
        description="key of the store, made at the first start; default: a file outside the state directory",
    )
    passphrase_file: Path | None = Field(
        default=None, description="derive the key of the store from the passphrase in this file"
    )
    search: bool = Field(default=False, description="index stored content for search")
    request_flush_s: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="interval at which counts and times of requests are written",
    )
    group_window_ms: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="time a write waits for others to share its commit; spares flash",
    )
    reserve_bytes: int = Field(
        default=32 << 20, ge=0, le=1 << 40, description="disk space that ordinary writes leave free"
    )
    backup_hours: float = Field(
        default=24.0, ge=0, le=10_000, description="interval of verified backups; 0: none"
    )
    n_backups: int = Field(default=3, ge=1, le=1000, description="verified backups that are kept")
    audit_anchor: Path | None = Field(
        default=None,
        description="file outside the database for the head of the audit, best on another disk; default: "
        "audit.anchor in the state directory",
    )
    audit_reads: bool = Field(
        default=False,
        description="audit each read of stored rows where several keys share an owner",
    )
    prefixes: PrefixSettings = PrefixSettings()
    retention: RetentionSettings = RetentionSettings()

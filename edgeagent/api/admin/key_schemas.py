"""Bodies of the paths for API keys. Times in Unix seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from edgeagent.api.http.body_base import BodyModel

YEARS_10_S = 315_360_000


class LimitsBody(BodyModel):
    """The limits of the key; a missing field means no limit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    concurrency: int | None = Field(default=None, ge=1, le=10_000)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=1_000_000_000)
    audio_seconds_per_day: int | None = Field(default=None, ge=1, le=1_000_000_000)


class KeyRequest(BodyModel):
    """A new key."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=100, description="the purpose of the key")
    scopes: list[str] = Field(
        max_length=20,
        description="of chat, bot, transcribe, embeddings, models, data, metrics, admin",
    )
    owner: str | None = Field(
        None,
        max_length=64,
        description="owner of the rows that it sees; default: an owner of its own",
    )
    expires_in_s: int | None = Field(None, ge=1, le=YEARS_10_S, description="default: never")
    limits: LimitsBody = Field(default_factory=LimitsBody)
    tools: list[str] | None = Field(
        None, max_length=100, description="tools it may use; default: any"
    )


class RotateRequest(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    grace_s: int = Field(0, ge=0, le=2_592_000, description="how long the old key stays valid")


class KeyBody(BodyModel):
    """A key without its secret; `hint` is the end of the secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    owner: str
    hint: str
    scopes: list[str]
    limits: LimitsBody
    bot: str | None
    origins: list[str]
    tools: list[str] | None
    is_break_glass: bool
    state: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    replaced_by: str | None


class NewKeyBody(KeyBody):
    """A key with its secret, which is shown only once."""

    secret: str


class KeyList(BodyModel):
    object: Literal["list"] = "list"
    data: list[KeyBody]

"""Bodies of the key paths. Times in Unix seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeagent.store.key_record import Key, KeySpec, scopes_from
from edgeagent.types.caller import KeyLimits

YEARS_10_S = 315_360_000


class LimitsBody(BaseModel):
    """What the key may use; what is left out is not bounded."""

    model_config = ConfigDict(extra="forbid", strict=True)

    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    concurrency: int | None = Field(default=None, ge=1, le=10_000)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=1_000_000_000)


class KeyRequest(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=100, description="what the key is for")
    scopes: list[str] = Field(
        max_length=20, description="of chat, transcribe, embeddings, models, data, admin"
    )
    owner: str | None = Field(
        None, max_length=64, description="whose rows it sees; default: rows of its own"
    )
    expires_in_s: int | None = Field(None, ge=1, le=YEARS_10_S, description="default: never")
    limits: LimitsBody = Field(default_factory=LimitsBody)
    tools: list[str] | None = Field(
        None, max_length=100, description="tools it may use; default: any"
    )

    def spec(self, now_ms: int) -> KeySpec:
        """Raises: InvalidParameter for an unknown scope."""
        return KeySpec(
            name=self.name,
            scopes=scopes_from(self.scopes),
            owner=self.owner,
            limits=KeyLimits(**self.limits.model_dump()),
            tools=frozenset(self.tools) if self.tools is not None else None,
            expires_ms=now_ms + 1000 * self.expires_in_s if self.expires_in_s else None,
        )


class RotateRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    grace_s: int = Field(0, ge=0, le=2_592_000, description="how long the old key stays valid")


class KeyBody(BaseModel):
    """A key without its secret; `hint` is the end of it."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    owner: str
    hint: str
    scopes: list[str]
    limits: LimitsBody
    tools: list[str] | None
    is_break_glass: bool
    state: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    replaced_by: str | None


class NewKeyBody(KeyBody):
    """A key with its secret, which is shown this once."""

    secret: str


class KeyList(BaseModel):
    object: Literal["list"] = "list"
    data: list[KeyBody]


def key_fields(key: Key, now_ms: int) -> dict[str, object]:
    """What is shown of a key, here and on the command line."""
    return {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "hint": key.hint,
        "scopes": sorted(key.scopes),
        "limits": {
            "requests_per_minute": key.limits.requests_per_minute,
            "concurrency": key.limits.concurrency,
            "tokens_per_minute": key.limits.tokens_per_minute,
        },
        "tools": sorted(key.tools) if key.tools is not None else None,
        "is_break_glass": key.is_break_glass,
        "state": key.state(now_ms),
        "created_at": key.created_ms // 1000,
        "expires_at": key.expires_ms // 1000 if key.expires_ms is not None else None,
        "revoked_at": key.revoked_ms // 1000 if key.revoked_ms is not None else None,
        "replaced_by": key.replaced_by,
    }

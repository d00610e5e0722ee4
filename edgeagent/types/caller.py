"""Who makes a request, and what that caller may do."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

KeyScope = Literal["chat", "bot", "transcribe", "embeddings", "models", "data", "metrics", "admin"]


ALL_SCOPES: frozenset[KeyScope] = frozenset(get_args(KeyScope))


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one API key; None is unlimited. `tokens_per_minute` counts prompt and answer,
    `audio_seconds_per_day` the recordings that are transcribed within 24 hours. A key with `bot` may talk to
    that published bot and do nothing else, from pages of `origins` only. Fields that a newer version has
    stored are ignored."""

    requests_per_minute: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    tokens_per_minute: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None
    audio_seconds_per_day: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None
    bot: str | None = None
    origins: tuple[str, ...] = ()


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of a request. The key `key_id` sees the rows of `owner`; `tools` None allows all tools.
    `max_priority` lowers the priority of its requests, as for those of a batch."""

    key_id: str
    owner: str
    scopes: frozenset[KeyScope]
    limits: KeyLimits = KeyLimits()
    tools: frozenset[str] | None = None
    is_break_glass: bool = False
    max_priority: int | None = None


# Every client on this machine while there are no keys.
LOCAL = Caller(key_id="local", owner="local", scopes=ALL_SCOPES)

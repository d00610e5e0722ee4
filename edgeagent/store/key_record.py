"""One API key as a value, the specification of a new one, and the conversion to and from its row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from edgeagent.errors import InvalidParameter
from edgeagent.types.caller import ALL_SCOPES, Caller, KeyLimits, KeyScope

_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,63}")
_TOOL = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_NAME = 100
MAX_TOOLS = 100

COLUMNS = (
    "id, name, owner, hint, scopes, limits, tools, is_break_glass, created_ms, expires_ms, revoked_ms,"
    " replaced_by"
)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A stored key, without its secret."""

    id: str
    name: str
    owner: str
    hint: str
    scopes: frozenset[KeyScope]
    limits: KeyLimits
    tools: frozenset[str] | None
    is_break_glass: bool
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    replaced_by: str | None

    def is_live(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)

    def state(self, now_ms: int) -> str:
        if self.revoked_ms is not None:
            return "revoked"
        return "live" if self.is_live(now_ms) else "expired"

    def caller(self) -> Caller:
        return Caller(
            key_id=self.id,
            owner=self.owner,
            scopes=self.scopes,
            limits=self.limits,
            tools=self.tools,
            is_break_glass=self.is_break_glass,
        )


class NewKey(NamedTuple):
    """A new key and its secret, which is available only now."""

    key: Key
    secret: str


class KeySpec(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of a new key. `owner` None gives the key an owner of its own; `tools` None allows any."""

    name: str
    scopes: frozenset[KeyScope]
    owner: str | None = None
    limits: KeyLimits = KeyLimits()
    tools: frozenset[str] | None = None
    expires_ms: int | None = None
    is_break_glass: bool = False


def scopes_from(names: Iterable[str]) -> frozenset[KeyScope]:
    """Raises: InvalidParameter for an empty list or an unknown name."""
    try:
        found = msgspec.convert(list(names), frozenset[KeyScope])
    except msgspec.ValidationError:
        unknown = sorted(set(names) - ALL_SCOPES)
        raise InvalidParameter(
            f"Unknown scope {unknown[0][:40]!r}: use {', '.join(sorted(ALL_SCOPES))}.",
            param="scopes",
        ) from None
    if not found:
        raise InvalidParameter(
            f"A key needs at least one scope: give some of {', '.join(sorted(ALL_SCOPES))}.",
            param="scopes",
        )
    return found


def check(spec: KeySpec, now_ms: int) -> None:
    """Raises: InvalidParameter for an invalid name, owner, tool or expiry time."""
    if not (0 < len(spec.name) <= MAX_NAME and spec.name.isprintable()):
        raise InvalidParameter(
            f"The key's name has {len(spec.name)} characters, 1 to {MAX_NAME} printable ones are "
            "allowed: describe what the key is for.",
            param="name",
        )
    if spec.owner is not None and not _OWNER.fullmatch(spec.owner):
        raise InvalidParameter(
            f"Owner {spec.owner[:80]!r} is not 1 to 64 letters, digits and . _ @ : - : correct it.",
            param="owner",
        )
    tools = spec.tools or frozenset()
    if len(tools) > MAX_TOOLS or not all(_TOOL.fullmatch(tool) for tool in tools):
        raise InvalidParameter(
            f"A tool's name is 1 to 64 letters, digits, _ and -, and a key lists {MAX_TOOLS} of them "
            "at most: correct the list.",
            param="tools",
        )
    limits = spec.limits
    if limits.bot is not None and not (
        spec.scopes == {"bot"}
        and limits.origins
        and limits.requests_per_minute is not None
        and limits.concurrency is not None
    ):
        raise InvalidParameter(
            "A key for the pages of a bot has the scope `bot` alone, origins, `requests_per_minute` and "
            "`concurrency`: make it with `edgeagent bot publish`.",
            param="limits",
        )
    if spec.expires_ms is not None and spec.expires_ms <= now_ms:
        raise InvalidParameter(
            "The key would have expired already: give a time in the future.", param="expires"
        )


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def to_row(key: Key) -> tuple[Any, ...]:
    return (
        key.id, key.name, key.owner, key.hint, _json(key.scopes), _json(key.limits),
        _json(key.tools) if key.tools is not None else None, int(key.is_break_glass),
        key.created_ms, key.expires_ms, key.revoked_ms, key.replaced_by,
    )  # fmt: skip


def from_row(row: Sequence[Any]) -> Key:
    """A key as it is stored, maybe by a newer version: scopes and limits that are not known are left out."""
    id_, name, owner, hint, scopes, limits, tools, is_break_glass, *times, replaced_by = row
    created_ms, expires_ms, revoked_ms = times
    return Key(
        id=id_,
        name=name,
        owner=owner,
        hint=hint,
        scopes=ALL_SCOPES & msgspec.json.decode(scopes, type=frozenset),
        limits=msgspec.json.decode(limits, type=KeyLimits),
        tools=msgspec.json.decode(tools, type=frozenset[str]) if tools is not None else None,
        is_break_glass=bool(is_break_glass),
        created_ms=created_ms,
        expires_ms=expires_ms,
        revoked_ms=revoked_ms,
        replaced_by=replaced_by,
    )

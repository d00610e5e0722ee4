"""Makes, lists, revokes and rotates API keys, and shows them as plain data."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from edgeagent.errors import Forbidden
from edgeagent.store.key_record import Key, KeySpec, NewKey, scopes_from
from edgeagent.store.keyring import Keyring
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import LOCAL, Caller, KeyLimits

Json = dict[str, Any]


class KeyAdmin:
    """Event loop's thread only. `is_first_on_device`: the first key is made by the command line only."""

    def __init__(self, keyring: Keyring, *, is_first_on_device: bool) -> None:
        self._keyring = keyring
        self._is_first_on_device = is_first_on_device

    async def create(
        self,
        caller: Caller,
        *,
        name: str,
        scopes: Collection[str],
        owner: str | None,
        limits: KeyLimits,
        tools: frozenset[str] | None,
        expires_in_s: int | None,
    ) -> Json:
        """Make a key. Gives its fields and its secret. Raises: InvalidParameter, Forbidden."""
        if caller == LOCAL and self._is_first_on_device:
            raise Forbidden(
                "The first key of this daemon is made on the device (api.first_key = command-line): run "
                "`edgeagent keys create` there."
            )
        now = await asyncio.to_thread(self._keyring.now_ms)
        spec = KeySpec(
            name=name,
            scopes=scopes_from(scopes),
            owner=owner,
            limits=limits,
            tools=tools,
            expires_ms=now + 1000 * expires_in_s if expires_in_s else None,
        )
        return with_secret(await asyncio.wrap_future(self._keyring.create(spec, caller.key_id)))

    async def listed(self) -> list[Json]:
        """The fields of all keys, expired and revoked ones included."""
        found, now = await asyncio.to_thread(lambda: (self._keyring.all(), self._keyring.now_ms()))
        return [key_fields(key, now) for key in found]

    async def revoke(self, caller: Caller, key_id: str) -> Json:
        """End a key. Raises: KeyNotFound; Forbidden for a sealed key."""
        ended = self._keyring.revoke(key_id, caller.key_id, may_be_sealed=False)
        return key_fields(await asyncio.wrap_future(ended), now_ms())

    async def rotate(self, caller: Caller, key_id: str, grace_s: int) -> Json:
        """Replace a key; the old one ends after `grace_s`. Raises as `revoke`."""
        made = self._keyring.rotate(key_id, caller.key_id, grace_s, may_be_sealed=False)
        return with_secret(await asyncio.wrap_future(made))


def with_secret(made: NewKey) -> Json:
    """The fields of a new key and its secret."""
    return key_fields(made.key, now_ms()) | {"secret": made.secret}


def key_fields(key: Key, now_ms: int) -> Json:
    """A key as it is shown, over HTTP and on the command line. Times in Unix seconds."""
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
            "audio_seconds_per_day": key.limits.audio_seconds_per_day,
        },
        "bot": key.limits.bot,
        "origins": list(key.limits.origins),
        "tools": sorted(key.tools) if key.tools is not None else None,
        "is_break_glass": key.is_break_glass,
        "state": key.state(now_ms),
        "created_at": key.created_ms // 1000,
        "expires_at": key.expires_ms // 1000 if key.expires_ms is not None else None,
        "revoked_at": key.revoked_ms // 1000 if key.revoked_ms is not None else None,
        "replaced_by": key.replaced_by,
    }

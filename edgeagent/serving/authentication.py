"""From the secret that a request brings to its caller, and audit rows about callers."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from edgeagent.errors import KeyNotFound, Unauthorized
from edgeagent.store.keyring import Keyring
from edgeagent.store.keys import looks_like_one
from edgeagent.types.caller import LOCAL, Caller
from edgeagent.worker.log_format import escaped


def key_gone() -> Unauthorized:
    """The error for what goes on longer than its key is valid."""
    return Unauthorized(
        "The API key of this work is revoked or expired: begin again with another one."
    )


class Authenticator:
    """Event loop's thread only. `is_exposed`: the daemon can be reached from other machines, and serves
    nobody without a key."""

    def __init__(self, keyring: Keyring, *, is_exposed: bool = False) -> None:
        self._keyring = keyring
        self._is_exposed = is_exposed

    def caller(self, secret: str | None) -> Caller | None:
        """The holder of a key; without keys and a secret, the local owner. None: not authenticated.

        Raises: StoreLocked.
        """
        is_plausible = secret is not None and looks_like_one(secret)
        return self._keyring.caller(secret if is_plausible else None, is_exposed=self._is_exposed)

    def caller_of_key(self, key_id: str) -> Caller | None:
        """The holder of a key that did not send it now, as for work that goes on later; None if the key is
        not valid any more. Reads the database."""
        if key_id == LOCAL.key_id:
            return LOCAL
        with suppress(KeyNotFound):
            key = self._keyring.get(key_id)
            return key.caller() if key.is_live(self._keyring.now_ms()) else None
        return None

    async def note(self, caller: Caller, action: str, what: str) -> None:
        """Audit what a key has done. Raises what the store raises."""
        await asyncio.wrap_future(self._keyring.note(caller, action, what))

    async def note_break_glass(self, caller: Caller, request: str) -> None:
        """Audit the use of a sealed key, before anything is answered. `request` is what the client sent: it
        is escaped. Raises what the store raises."""
        await asyncio.wrap_future(self._keyring.note_break_glass(caller, escaped(request)))

    async def note_read(self, caller: Caller, what: str) -> None:
        """Audit a read of stored data whose owner has several keys. Raises what the store raises."""
        if await asyncio.to_thread(self._keyring.is_shared, caller.owner):
            await asyncio.wrap_future(self._keyring.note_read(caller, what))

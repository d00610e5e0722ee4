"""A process that makes, rotates and revokes keys and erases, and says what was acknowledged: a line each.

    python -m tests.store.entering STATE KEY

`key ID SECRET`, `revoked SECRET`, `erased OWNER`, `kept OWNER`. Killed by `entry_kills`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeagent.store import conversations, erasure
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.key_record import KeySpec
from edgeagent.store.keyring import Keyring
from edgeagent.store.ownership import Selector
from edgeagent.store.store_key import Secret
from edgeagent.types.caller import ALL_SCOPES

SPEC = KeySpec(name="test", scopes=ALL_SCOPES)


@contextmanager
def opened(state: Path, key: str) -> Iterator[tuple[Database, Keyring]]:
    secret = Secret(bytes.fromhex(key), "the test")
    options = StoreOptions(reserve_bytes=0, anchor=state / "audit.anchor")
    with Database(state / "store", secret, options) as store:
        keyring = Keyring(store, store.files.database, lambda: store)
        try:
            yield store, keyring
        finally:
            keyring.close()


def say(*words: str) -> None:
    print(*words, flush=True)


def main(state: Path, key: str, seed: int) -> None:
    rng = random.Random(seed)
    with opened(state, key) as (store, keyring):
        live = [one.id for one in keyring.all() if one.revoked_ms is None]
        while True:
            made = keyring.create(SPEC, "test").result()
            say("key", made.key.id, made.secret)
            live.append(made.key.id)
            owner = f"own-{rng.getrandbits(60)}"
            store.write(
                lambda db, owner=owner: conversations.create(  # type: ignore[misc]
                    db, owner, metadata={}, now_ms=1
                )
            ).result()
            if rng.random() < 0.5:
                erasure.erase(
                    store, store.secret.subkey("audit"),  # type: ignore[union-attr]
                    ErasureRequest(Selector(owner=owner), "test"), ErasureScope(state_dir=state),
                )  # fmt: skip
                say("erased", owner)
            else:
                say("kept", owner)
            gone = live.pop(rng.randrange(len(live)))
            if rng.random() < 0.3:
                new = keyring.rotate(gone, "test").result()
                live.append(new.key.id)
                say("key", new.key.id, new.secret)
            else:
                keyring.revoke(gone, "test").result()
            say("revoked", gone)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

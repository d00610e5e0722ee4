"""Moves idle prefixes out of the KV cache once they cost more there than moving them costs, and back.

llama.cpp's attention reads the masks of all cells up to the last one in use, for every token of every
sequence: idle prefixes slow down all others. What is parked costs nothing, and comes back in milliseconds.
"""

from __future__ import annotations

from edgeagent.engine.batching.kv_cache import IdlePrefix, KVCache, Match, Tokens
from edgeagent.engine.batching.parked_prefixes import Key, ParkedPrefixes
from edgeagent.engine.batching.sequence import Sequence
from edgeagent.engine.batching.step_runner import Runner

# A prefix is parked after so many computed tokens, of any sequences, since its last use.
PARK_TOKENS = 160
# After a step one piece is copied for each so many of its tokens, which takes a third of the time of one.
TOKENS_OF_PIECE = 4
# Fewer tokens are sooner computed than put back.
LEAST_WORTH = 8
# Of the memory that was set aside for cells in which no token has been: the rest stays free.
SHARE = 0.5
# Requests whose parked prefixes the daemon may ask for.
MOST_REQUESTS = 256


class PrefixParking:
    """Engine thread only. `is_on` False: idle prefixes stay in the cache until they are evicted.

    `untouched_bytes`: of the memory of all cells, when none had been used. Parked prefixes take a part of
    what was set aside for cells in which no token has been.
    """

    def __init__(self, kv: KVCache, runner: Runner, *, is_on: bool) -> None:
        self.untouched_bytes = 0
        self._kv = kv
        self._runner = runner
        self._is_on = is_on
        self._parked = ParkedPrefixes(runner.cell_bytes)
        self._of_request: dict[int, tuple[Key, Tokens[int]]] = {}
        if is_on and runner.cell_bytes:
            kv.before_eviction = self._save

    @property
    def reserved_bytes(self) -> int:
        """Memory that was set aside for cells, and is not used."""
        return max(0, self._untouched_now - self._parked.n_bytes)

    @property
    def n_parked(self) -> int:
        return len(self._parked)

    def tidy(self, n_tokens: int, n_decode: int) -> None:
        """Call after a step that computed so many tokens, those of `n_decode` answers among them: park,
        evict or pack what has cost enough."""
        if not self._is_on:
            return
        self._kv.n_computed += n_tokens
        n_batched = n_decode if n_decode > 1 else 0
        n_left = max(1, n_tokens // TOKENS_OF_PIECE)

        def spare(idle: IdlePrefix) -> bool:
            """Whether the prefix is parked instead of evicted, as far as the step has time for it."""
            nonlocal n_left
            if not self._can_park(idle):
                return False
            is_due = self._kv.n_computed - idle.used_at_token > PARK_TOKENS
            while is_due and n_left > 0:
                n_left -= 1
                if self._park(idle, n_pieces=1):
                    self._kv.release(idle.seq_id)
                    break
            return True

        self._kv.expire(n_batched, spare)
        self._kv.pack(n_batched, is_noticed=n_decode > 0)
        self._parked.shrink(self._room_bytes)

    def recall(self, seq: Sequence, have: Match) -> Match:
        """What a sequence can share, once the longest parked beginning of its tokens is an idle prefix again.
        That is what it `have`s already where nothing longer is parked, or has no room."""
        tokens, key = seq.tokens, Key(seq.request.spec.scope, seq.adapter)
        n = min(self._parked.match(key, tokens), len(tokens) - 1)
        if n - have.n < LEAST_WORTH or seq.is_scored:
            return have
        was_idle = self._kv.is_idle(have.seq_id)
        self._put_back(key, tokens[:n], have)
        found = self._kv.best_idle(tokens, *key)
        found = Match(found.seq_id, min(found.n, len(tokens) - 1))
        return found if was_idle or found.n > have.n else have

    def recall_request(self, request_id: int) -> None:
        """Put the prefix of an ended request back, if it was parked."""
        found = self._of_request.pop(request_id, None)
        if found is None or self._parked.match(*found) < len(found[1]):
            return
        key, tokens = found
        have = self._kv.best_idle(tokens, key.scope, key.adapter)
        self._put_back(key, tokens, have, request_id)

    def _put_back(
        self, key: Key, tokens: Tokens[int], have: Match, request_id: int | None = None
    ) -> int:
        """Make an idle prefix of parked `tokens`, behind those that the cache `have`s. Returns how many
        tokens of them are cached then."""
        pieces = [piece for piece in self._parked.pieces(key, tokens) if piece.last > have.n]
        first = done = pieces[0].first if pieces else have.n
        seq_id = self._kv.acquire(Match(have.seq_id if first else None, first))
        if seq_id is None:
            return 0
        for piece in pieces:
            n_cells = len(piece.tokens)
            if not self._kv.make_room(n_cells) or not self._runner.place(
                seq_id, piece.first, piece.last, piece.data
            ):
                break
            self._kv.append(seq_id, n_cells)
            done = piece.last
        done = min(done, len(tokens))
        self._kv.rest(seq_id, tokens[:done], key.scope, request_id, key.adapter)
        return done

    def forget(self, scope: str | None) -> int:
        """Drop idle prefixes of a scope (None: all), parked or not. Returns how many."""
        if scope is None:
            self._of_request.clear()
        else:
            kept = {r: one for r, one in self._of_request.items() if one[0].scope != scope}
            self._of_request = kept
        return self._parked.forget(scope) + self._kv.forget(scope)

    @property
    def _untouched_now(self) -> int:
        return int(self.untouched_bytes * self._kv.share_never_used)

    @property
    def _room_bytes(self) -> int:
        return int(SHARE * self._untouched_now)

    def _can_park(self, idle: IdlePrefix) -> bool:
        return self._runner.cell_bytes > 0 and self._parked.has_room(
            len(idle.tokens), self._room_bytes
        )

    def _park(self, idle: IdlePrefix, n_pieces: int) -> bool:
        """Copy a prefix out of the cache. True: all of it."""
        key = Key(idle.scope, idle.adapter)

        def read(first: int, last: int) -> bytes | memoryview:
            return self._runner.lift(idle.seq_id, first, last)

        is_whole = self._parked.keep(key, idle.tokens, read, self._room_bytes, n_pieces)
        if is_whole and idle.request_id is not None:
            self._of_request[idle.request_id] = (key, idle.tokens)
            if len(self._of_request) > MOST_REQUESTS:
                del self._of_request[next(iter(self._of_request))]
        return is_whole

    def _save(self, idle: IdlePrefix) -> None:
        """Park a prefix whose cells or id are needed now."""
        if self._can_park(idle):
            self._park(idle, n_pieces=len(idle.tokens))

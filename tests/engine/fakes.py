"""A model without weights: what it says next depends on every token before, so that a wrong cell,
position or sequence changes the text."""

from __future__ import annotations

import threading
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeagent.engine.batching.kv_cache import CellRun
from edgeagent.engine.batching.step_runner import Row, StepAborted
from edgeagent.engine.llama.sampler_chain import Candidates

N_VOCAB = 97
END = 0


def next_token(tokens: list[int]) -> int:
    """The fake model: a hash of all tokens so far. Token 0 ends the text."""
    return zlib.crc32(array("i", tokens).tobytes()) % N_VOCAB


def salt(adapter: str | None) -> int:
    """What an adapter adds to the tokens that are computed with it."""
    return 0 if adapter is None else N_VOCAB * (1 + zlib.crc32(adapter.encode()) % 1000)


def reference(prompt: list[int], max_new: int, adapter: str | None = None) -> list[int]:
    """What the fake model continues `prompt` with, computed alone."""
    tokens = list(prompt)
    while len(tokens) - len(prompt) < max_new:
        token = next_token([one + salt(adapter) for one in tokens])
        if token == END:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


class FakeRunner:
    """A `Runner` that keeps the tokens of every sequence, and checks each row against them."""

    def __init__(self, n_cells: int, *, can_trim: bool = True) -> None:
        self.n_vocab = N_VOCAB
        self.n_heads = 9
        self.max_outputs = 6
        self.end_tokens = frozenset({END})
        self.can_trim = can_trim
        self.candidates = Candidates(N_VOCAB)
        self.n_cells = n_cells
        self.held: dict[int, list[tuple[int, int]]] = {}  # (cell, token) by position
        self.steps: list[list[Row]] = []
        self.before_step: Callable[[list[Row]], None] = lambda rows: None
        self._n_written = 0
        self.n_movable = n_cells
        self.cell_bytes = 4
        self.refuses_state = False
        self.n_packed = 0
        self.adapter: str | None = None
        self.n_walking = 0
        self.can_part = self.is_beside = False
        self.n_begun_apart = self.n_rests = self.reserved_bytes = 0
        self.prompt_threads: list[Any] = []
        self.prompt_ended = threading.Event()
        self._is_aborted = False

    def next_token(self, tokens: list[int]) -> int:
        return next_token(tokens)

    def run(self, rows: list[Row], n_used: int = 0) -> np.ndarray[Any, Any]:
        self.steps.append(rows)
        self.n_walking = sum(len(row.tokens) for row in rows)
        assert sum(row.n_outputs for row in rows) <= self.max_outputs, "llama.cpp would abort"
        self.before_step(rows)
        outputs = []
        for row in rows:
            held = self.held.setdefault(row.seq_id, [])
            assert len(held) == row.first_pos, "a row continues its sequence"
            for token in row.tokens:
                held.append((self._n_written, token + salt(self.adapter)))
                self._n_written += 1
            n_before = len(held) - row.n_outputs
            if self._is_aborted:
                raise StepAborted  # with some rows written, as llama.cpp may leave them
            tokens = [token for _, token in held]
            outputs += [self.next_token(tokens[: n_before + i + 1]) for i in range(row.n_outputs)]
        n_used = len({cell for held in self.held.values() for cell, _ in held})
        assert n_used <= self.n_cells, "the cache is never overfilled"
        logits = np.full((len(outputs), N_VOCAB), -10.0, np.float32)
        for i, token in enumerate(outputs):
            logits[i, token] = 10.0
        return logits

    def piece(self, token: int) -> bytes:
        return b"%d " % token

    def name(self, token: int) -> str:
        return f"<{token}>"

    def begin_apart(self) -> None:
        self.n_begun_apart += 1

    def rest(self) -> None:
        self.n_rests += 1

    def copy(self, src: int, dst: int, n: int) -> None:
        assert not self.held.get(dst)
        self.held[dst] = self.held[src][:n]

    def trim(self, seq_id: int, n: int) -> None:
        assert self.can_trim or n == 0, "recurrent state cannot be cut"
        self.held[seq_id] = self.held.get(seq_id, [])[:n]

    def settle(self, seq_id: int) -> None:
        assert self.held[seq_id], "only what is kept is settled"

    def pack(self, runs: list[CellRun]) -> None:
        assert_covers(runs, self.held)
        self.n_packed += 1

    def lift(self, seq_id: int, first: int, last: int) -> bytes:
        return array("i", [token for _, token in self.held[seq_id][first:last]]).tobytes()

    def place(self, seq_id: int, first: int, last: int, data: bytes) -> bool:
        tokens = array("i")
        tokens.frombytes(data)
        if self.refuses_state or len(tokens) != last - first:
            return False
        held = self.held.setdefault(seq_id, [])
        assert len(held) == first, "a piece continues its sequence"
        for token in tokens:
            held.append((self._n_written, token))
            self._n_written += 1
        return True

    def set_threads(self, n_threads: int) -> None:
        assert n_threads >= 1

    def wait_briefly(self, is_contended: bool) -> None:
        self.waits_briefly = is_contended

    def use_adapter(self, adapter: str | None) -> None:
        self.adapter = adapter

    def arm(self) -> None:
        self._is_aborted = False

    def abort(self) -> None:
        self._is_aborted = True


def assert_covers(runs: list[CellRun], held: Mapping[int, Sequence[object]]) -> None:
    """The runs are every position of every sequence, once, and shared where the sequences share."""
    found: dict[int, dict[int, object]] = {}
    for run in runs:
        for position in range(run.first_pos, run.first_pos + run.n):
            cells = {owner: held[owner][position] for owner in run.owners}
            assert len(set(cells.values())) == 1, "owners of a run hold the same cells"
            for owner, cell in cells.items():
                assert position not in found.setdefault(owner, {}), "no cell is moved twice"
                found[owner][position] = cell
    assert found == {owner: dict(enumerate(cells)) for owner, cells in held.items() if cells}
    n_cells = len({cell for cells in held.values() for cell in cells})
    assert sum(run.n for run in runs) == n_cells, "what is shared is moved once"

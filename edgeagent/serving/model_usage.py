"""What models cost lately: tokens by key and model over 24 hours, and how long answers take.

Times are those of a model that answers one request: what was measured beside others is divided by their
number, since they share the processor, and the prediction multiplies by what runs or waits now.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeagent.errors import EdgeAgentError
from edgeagent.store import requests
from edgeagent.store.database import Database
from edgeagent.store.requests import RequestRow
from edgeagent.store.sql import now_ms

logger = logging.getLogger(__name__)

DAY_S = 86_400.0
SLICE_S = 900.0  # tokens of a quarter of an hour leave the day together
NEW_SHARE = 0.2  # of a mean is the newest answer
MAX_PAIRS = 4096  # of key and model that are counted


@dataclass
class AnswerTimes:
    """Means over the last answers of a model, alone: seconds to the first token and to the end."""

    first_token_s: float
    answer_s: float

    def add(self, first_token_s: float, answer_s: float) -> None:
        self.first_token_s += NEW_SHARE * (first_token_s - self.first_token_s)
        self.answer_s += NEW_SHARE * (answer_s - self.answer_s)


class ModelUsage:
    """Event loop's thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens: dict[tuple[str, str], deque[tuple[float, int]]] = {}
        self._times: dict[str, AnswerTimes] = {}

    def note(self, row: RequestRow, n_busy: int) -> None:
        """Count a request that has ended; `n_busy` others run or wait at its model."""
        if row.key_id is not None:
            self.add(row.key_id, row.model, row.n_prompt + row.n_generated)
        if row.status != 200 or row.ttft_ms is None:
            return
        queue_ms, n_sharing = row.queue_ms or 0.0, 1 + n_busy
        first_s = max(0.0, row.ttft_ms - queue_ms) / 1e3 / n_sharing
        answer_s = max(0.0, row.total_ms - queue_ms) / 1e3 / n_sharing
        if (times := self._times.get(row.model)) is not None:
            times.add(first_s, answer_s)
        else:
            self._times[row.model] = AnswerTimes(first_s, answer_s)

    def add(self, key_id: str, model_id: str, n_tokens: int, ago_s: float = 0.0) -> None:
        """Count tokens of a key; those of before a restart were used `ago_s` seconds ago, oldest first."""
        if n_tokens <= 0:
            return
        at = self._clock() - ago_s
        if (key_id, model_id) not in self._tokens and len(self._tokens) >= MAX_PAIRS:
            self._tokens.pop(next(iter(self._tokens)))
        slices = self._tokens.setdefault((key_id, model_id), deque())
        if slices and at - slices[-1][0] < SLICE_S:
            slices[-1] = (slices[-1][0], slices[-1][1] + n_tokens)
        else:
            slices.append((at, n_tokens))

    async def recall(self, database: Database) -> None:
        """Count the tokens of the last 24 hours that the request log knows. Call before the first request."""
        now = now_ms()
        try:
            found = await database.read_async(
                lambda db: requests.key_tokens(
                    db, since_ms=now - int(1e3 * DAY_S), slice_ms=int(1e3 * SLICE_S)
                )
            )
        except EdgeAgentError as exc:
            logger.warning("tokens_not_recalled code=%s", exc.code)
            return
        for key_id, model_id, at_ms, n_tokens in found:
            self.add(key_id, model_id, n_tokens, max(0.0, (now - at_ms) / 1e3))

    def tokens_of(self, key_id: str, model_ids: Mapping[str, object]) -> dict[str, int]:
        """The tokens that a key has used of each of these models in 24 hours, without unused ones."""
        found = {}
        for model_id in model_ids:
            slices = self._tokens.get((key_id, model_id))
            if slices is None:
                continue
            while slices and slices[0][0] <= self._clock() - DAY_S:
                slices.popleft()
            if slices:
                found[model_id] = sum(n for _, n in slices)
            else:
                del self._tokens[key_id, model_id]
        return found

    def predicted(self, model_id: str, n_busy: int) -> AnswerTimes | None:
        """Seconds to the first token and to the end of an answer beside `n_busy` others; None: not known."""
        times = self._times.get(model_id)
        if times is None:
            return None
        return AnswerTimes(times.first_token_s * (1 + n_busy), times.answer_s * (1 + n_busy))

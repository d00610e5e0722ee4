"""What models cost lately: tokens and joules by key and model over 24 hours, and how long answers take and
what energy.

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
# A mean that is older says nothing: a model that a budget leaves out is tried again, and may be faster now.
MEAN_KEPT_S = 600.0
MAX_PAIRS = 4096  # of key and model that are counted


@dataclass
class AnswerTimes:
    """Means over the last answers of a model, alone: seconds to the first token and to the end."""

    first_token_s: float
    answer_s: float
    at_s: float = 0.0  # of the last answer

    def add(self, first_token_s: float, answer_s: float) -> None:
        self.first_token_s += NEW_SHARE * (first_token_s - self.first_token_s)
        self.answer_s += NEW_SHARE * (answer_s - self.answer_s)


class DayCount:
    """A sum over 24 hours, by slices of time."""

    def __init__(self) -> None:
        self._slices: deque[tuple[float, float]] = deque()

    def add(self, at_s: float, value: float) -> None:
        slices = self._slices
        if slices and at_s - slices[-1][0] < SLICE_S:
            slices[-1] = (slices[-1][0], slices[-1][1] + value)
        else:
            slices.append((at_s, value))

    def total(self, now_s: float) -> float:
        while self._slices and self._slices[0][0] <= now_s - DAY_S:
            self._slices.popleft()
        return sum(value for _, value in self._slices)


Counts = dict[tuple[str, str], DayCount]


class ModelUsage:
    """Event loop's thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens: Counts = {}
        self._joules: Counts = {}
        self._answer_j: dict[str, tuple[float, float]] = {}  # and when it was last measured
        self._times: dict[str, AnswerTimes] = {}

    def note(self, row: RequestRow, n_busy: int) -> None:
        """Count a request that has ended; `n_busy` others run or wait at its model."""
        if row.key_id is not None:
            self.add(row.key_id, row.model, row.n_prompt + row.n_generated)
            self.add_joules(row.key_id, row.model, row.energy_j or 0.0)
        if row.status != 200 or row.ttft_ms is None:
            return
        if row.energy_j is not None:
            mean = self.answer_j(row.model) or row.energy_j
            mean += NEW_SHARE * (row.energy_j - mean)
            self._answer_j[row.model] = mean, self._clock()
        queue_ms, n_sharing = row.queue_ms or 0.0, 1 + n_busy
        first_s = max(0.0, row.ttft_ms - queue_ms) / 1e3 / n_sharing
        answer_s = max(0.0, row.total_ms - queue_ms) / 1e3 / n_sharing
        times = self._times.get(row.model)
        if times is None or self._is_old(times.at_s):
            times = self._times[row.model] = AnswerTimes(first_s, answer_s)
        else:
            times.add(first_s, answer_s)
        times.at_s = self._clock()

    def _is_old(self, at_s: float) -> bool:
        return self._clock() - at_s > MEAN_KEPT_S

    def add(self, key_id: str, model_id: str, n_tokens: int, ago_s: float = 0.0) -> None:
        """Count tokens of a key; those of before a restart were used `ago_s` seconds ago, oldest first."""
        self._count(self._tokens, (key_id, model_id), n_tokens, ago_s)

    def add_joules(self, key_id: str, model_id: str, joules: float, ago_s: float = 0.0) -> None:
        """The same of energy."""
        self._count(self._joules, (key_id, model_id), joules, ago_s)

    def _count(self, counts: Counts, whose: tuple[str, str], value: float, ago_s: float) -> None:
        if value <= 0:
            return
        if whose not in counts and len(counts) >= MAX_PAIRS:
            counts.pop(next(iter(counts)))
        counts.setdefault(whose, DayCount()).add(self._clock() - ago_s, value)

    async def recall(self, database: Database) -> None:
        """Count the tokens and joules of the last 24 hours, by the request log. Call it first."""
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
        for key_id, model_id, at_ms, n_tokens, joules in found:
            ago_s = max(0.0, (now - at_ms) / 1e3)
            self.add(key_id, model_id, n_tokens, ago_s)
            self.add_joules(key_id, model_id, joules, ago_s)

    def tokens_of(self, key_id: str, model_ids: Mapping[str, object]) -> dict[str, int]:
        """The tokens that a key has used of each of these models in 24 hours, without unused ones."""
        found = self._of_day(self._tokens, key_id, model_ids)
        return {model_id: int(n) for model_id, n in found.items()}

    def joules_of(self, key_id: str, model_ids: Mapping[str, object]) -> dict[str, float]:
        """The same of energy."""
        return self._of_day(self._joules, key_id, model_ids)

    def _of_day(
        self, counts: Counts, key_id: str, model_ids: Mapping[str, object]
    ) -> dict[str, float]:
        found = {}
        for model_id in model_ids:
            count = counts.get((key_id, model_id))
            if count is None:
                continue
            if total := count.total(self._clock()):
                found[model_id] = total
            else:
                del counts[key_id, model_id]
        return found

    def answer_j(self, model_id: str) -> float | None:
        """Joules of an answer, the mean of the last ones; None: not measured lately."""
        mean, at_s = self._answer_j.get(model_id, (None, 0.0))
        return None if mean is None or self._is_old(at_s) else mean

    def predicted(self, model_id: str, n_busy: int) -> AnswerTimes | None:
        """Seconds to the first token and to the end of an answer beside `n_busy` others; None: not known."""
        times = self._times.get(model_id)
        if times is None or self._is_old(times.at_s):
            return None
        return AnswerTimes(times.first_token_s * (1 + n_busy), times.answer_s * (1 + n_busy))

"""An engine that measures the costs of its steps once, while it has nothing to do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edgeagent.engine.batching.engine import Engine
from edgeagent.types.engine_config import EngineHealth
from edgeagent.types.step_costs import StepCosts
from edgeagent.types.worker_config import ComputeLimits

logger = logging.getLogger(__name__)

QUIET_S = 1.0
# After a measurement that other programs disturbed it rests, twice as long each time.
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 3600.0


class IdleMeasurement:
    """What the worker's loop steps in place of the engine, until the costs are known and `tell` has got them.

    Engine thread only, apart from `interrupt`. It measures after a pause without work, and only with the
    limits of a device that nothing else uses.
    """

    def __init__(
        self,
        engine: Engine,
        n_threads: int,
        tell: Callable[[StepCosts], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._probe = engine.probe
        self._n_threads = n_threads
        self._tell = tell
        self._clock = clock
        self._worked_s = clock()
        self._is_undisturbed = True
        self._is_done = False
        self._pause_s, self._next_s = FIRST_PAUSE_S, float("-inf")

    def interrupt(self) -> None:
        """A request has arrived: end the step that is measured. Any thread."""
        if self._probe.is_running:
            self._probe.runner.abort()

    @property
    def is_idle(self) -> bool:
        return self._engine.is_idle and not self._is_due()

    def step(self) -> bool:
        if not self._engine.is_idle or not self._is_due():
            self._probe.close()
            has_worked = self._engine.step()
            if has_worked:
                self._worked_s = self._clock()
            return has_worked
        self._probe.step()
        if self._probe.is_over:
            self._finish()
        return True

    def limit(self, limits: ComputeLimits) -> None:
        self._engine.limit(limits)
        self._is_undisturbed = limits.n_threads >= self._n_threads and not limits.n_cores_taken
        self._is_undisturbed &= limits.chunk_share >= 1

    def health(self, rss_bytes: int) -> EngineHealth:
        return self._engine.health(rss_bytes)

    def _is_due(self) -> bool:
        return (
            not self._is_done
            and self._is_undisturbed
            and self._clock() >= max(self._worked_s + QUIET_S, self._next_s)
            and (self._probe.is_begun or self._probe.can_run())
        )

    def _finish(self) -> None:
        costs = self._probe.result()
        if costs is None and self._probe.was_disturbed:
            logger.info("step_costs_unknown reason=other_programs again_in_s=%.0f", self._pause_s)
            self._probe.begin_anew()
            self._next_s = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            return
        self._is_done = True
        if costs is None:
            logger.info("step_costs_unknown reason=time")
            return
        self._engine.take_costs(costs)
        self._tell(costs)
        logger.info("step_costs_measured n_sizes=%s", len(costs.step_s))

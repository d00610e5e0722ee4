"""Measure a new device while the daemon is idle.

The measurement runs in child processes once the daemon has been idle for a while. A request stops it; it
starts again when the daemon is idle the next time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from edgeagent.device.benchmark import DeviceBenchmark, StopSignal

logger = logging.getLogger(__name__)

QUIET_S = 20.0
POLL_S = 0.25


class IdleBenchmark:
    """Runs on the event loop's thread only; `close()` may be called twice.

    `is_busy` tells whether a request is running; `model` gives the model file to measure, None if there
    is none.
    """

    def __init__(
        self,
        measuring: DeviceBenchmark,
        is_busy: Callable[[], bool],
        model: Callable[[], Path | None],
        *,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._measuring = measuring
        self._is_busy = is_busy
        self._model = model
        self._quiet_s = quiet_s
        self._task: asyncio.Task[None] | None = None
        self._stop: StopSignal | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="idle-benchmark")

    async def _run(self) -> None:
        while self._measuring.kept() is None:
            await self._wait_for_quiet()
            model = self._model()
            if model is None:
                await asyncio.sleep(self._quiet_s)
                continue
            await self._measure(model)

    async def _wait_for_quiet(self) -> None:
        since = time.monotonic()
        while time.monotonic() - since < self._quiet_s:
            await asyncio.sleep(min(POLL_S, self._quiet_s))
            if self._is_busy():
                since = time.monotonic()

    async def _measure(self, model: Path) -> None:
        self._stop = stop = StopSignal()
        logger.info("benchmark_started")
        work = asyncio.create_task(
            asyncio.to_thread(self._measuring.run, model, _log_progress, stop)
        )
        while not work.done():
            await asyncio.wait({work}, timeout=POLL_S)
            if self._is_busy() and not stop.is_set:
                stop.set()
                logger.info("benchmark_stopped reason=request")
        measured = await work
        if not stop.is_set:
            logger.info("benchmark_done wall_s=%.1f", measured.wall_s)

    async def close(self) -> None:
        if self._stop is not None:
            self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _log_progress(what: str, share: float) -> None:
    logger.debug("benchmark stage=%s share=%.2f", what, share)

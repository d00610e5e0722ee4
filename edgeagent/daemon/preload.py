"""Load the default model into a worker while the daemon still imports its own modules.

Importing the API takes about as long as a worker needs to load a small model. Done side by side on two cores,
they shorten the start by the shorter of the two.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from edgeagent.catalog.installed import InstalledModels
from edgeagent.device.configuration import Configuration
from edgeagent.errors import EdgeAgentError
from edgeagent.pool import Placement
from edgeagent.pool.placement import ModelPlacer
from edgeagent.types.worker_config import WorkerConfig
from edgeagent.worker.process import WaitingProcess, WorkerProcess

logger = logging.getLogger(__name__)


class Preload:
    """Starts the worker at once, on its own thread, or tells `waiting` what to load, if it is of that kind;
    otherwise ends it. Call `take` from any thread, once; `close` may be called twice."""

    def __init__(self, configuration: Configuration, waiting: WaitingProcess | None = None) -> None:
        self._configuration = configuration
        self._waiting = waiting
        self._process: WorkerProcess | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._begin, name="preload", daemon=True)
        self._thread.start()

    def take(self, config: WorkerConfig) -> WorkerProcess | None:
        """The worker that loads exactly this configuration. Blocks while model headers are read.

        None if no worker was started or it loads something else; that worker is then ended.
        """
        self._thread.join()
        with self._lock:
            process, self._process = self._process, None
        if process is not None and process.config != config:
            process.close()
            return None
        return process

    def close(self) -> None:
        """End the worker unless it was taken."""
        with self._lock:
            self._is_closed = True
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def _begin(self) -> None:
        try:
            placement = asyncio.run(self._default())
            with self._lock:
                if placement is not None and not self._is_closed:
                    self._process = self._launch(placement)
        except (EdgeAgentError, OSError) as exc:  # the daemon meets the same error and reports it
            logger.debug("preload_skipped %s", exc)
        finally:
            if self._waiting is not None:
                self._waiting.close()

    def _launch(self, placement: Placement) -> WorkerProcess:
        kind, log_level = placement.kind, self._configuration.settings.log_level
        waiting = self._waiting
        if waiting is None or not kind.is_run_by(waiting):
            return kind.launch(placement.config, log_level)
        self._waiting = None
        return waiting.load(placement.config, log_level)

    async def _default(self) -> Placement | None:
        """How to load the default model; None if there is none or it needs more than the budget."""
        models = InstalledModels.of(self._configuration.resolved)
        await models.examine()
        model_id = models.default_id()
        if model_id is None:
            return None
        placement = await ModelPlacer.of(self._configuration, models).place(model_id)
        budget = self._configuration.settings.pool.ram_budget_bytes
        return placement if budget is None or placement.need_bytes <= budget else None

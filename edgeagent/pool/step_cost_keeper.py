"""Keeps the step costs that workers measure."""

from __future__ import annotations

import asyncio
import logging

from edgeagent.device.step_cost_store import StepCostStore
from edgeagent.engine.client import EngineClient
from edgeagent.types.step_costs import StepCosts
from edgeagent.worker.client import WorkerClient

logger = logging.getLogger(__name__)


class StepCostKeeper:
    """Stores what workers measure, for the next load of their models. Event loop's thread only."""

    def __init__(self, store: StepCostStore) -> None:
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()

    def expect(self, model_id: str, client: WorkerClient) -> None:
        """Store the costs that this worker, which was just loaded, will report. Does not wait."""
        if isinstance(client, EngineClient) and client.config.measures_steps:
            client.on_step_costs = lambda costs: self._keep(client, costs)

    def _keep(self, client: EngineClient, costs: StepCosts) -> None:
        task = asyncio.create_task(self._save(client, costs), name="keep-step-costs")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _save(self, client: EngineClient, costs: StepCosts) -> None:
        try:
            await asyncio.to_thread(self._store.save, client.config, costs)
        except OSError as exc:  # measured again at the next load
            logger.warning("step_costs_not_kept error=%s", exc)

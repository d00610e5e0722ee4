"""The names that stand for a choice among models, such as `auto`, and the state of this device for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from edgeagent.catalog.installed import InstalledModels
from edgeagent.device.power import read_power
from edgeagent.device.system_files import SystemFiles
from edgeagent.device.thermal import read_thermal
from edgeagent.errors import InvalidParameter, SettingsError
from edgeagent.pool.resident_model import Resident
from edgeagent.routing.auto_router import LOCAL, RESERVED, AutoRouter
from edgeagent.routing.decision import Decision
from edgeagent.routing.route_request import (
    ModelState,
    RouteRequest,
    RouteState,
    length_of,
    text_of,
    window,
)
from edgeagent.serving.energy_watch import EnergyWatch
from edgeagent.serving.model_usage import ModelUsage
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.upstreams.upstreams import Upstreams
from edgeagent.settings.route_rules import Privacy
from edgeagent.settings.routing import RoutingSettings
from edgeagent.store.database import Database
from edgeagent.store.requests import RequestRow
from edgeagent.types.prompt import Prompt

logger = logging.getLogger(__name__)

# Heat and power are read at most this often.
DEVICE_AGE_S = 5.0
_NOBODY = RequestOrigin("", "", "local", "local")


class Routes:
    """The routes of one daemon. Event loop's thread only.

    `residents` are the models in the pool; a command without a pool has none. Raises: SettingsError.
    """

    def __init__(
        self,
        settings: RoutingSettings,
        models: InstalledModels,
        residents: Callable[[], Iterable[Resident]] = lambda: (),
        root: Path = Path("/"),
        upstreams: Upstreams | None = None,
    ) -> None:
        self.upstreams = upstreams or Upstreams(settings.upstreams)
        self.router = AutoRouter(settings)
        of = settings.budgets
        self._recalls = of.tokens_per_key_day is not None or of.energy_per_key_day_j is not None
        self._names = frozenset(self.router.names)
        for name in (*self.router.names, *RESERVED):
            if self.upstreams.of(name):
                raise SettingsError(
                    f"[[routing.upstreams]] has a model {name!r}, which is the name of a route: give it "
                    "another name here."
                )
        self._cooldown_s = settings.cooldown_s
        self._models = models
        self._residents = residents
        self._tree = SystemFiles(root)
        self._cold_from_s: dict[str, float] = {}  # by model, monotonic: when it may be tried again
        self.usage = ModelUsage()
        self._energy = (
            EnergyWatch(self._tree, lambda: self._n_running() > 0)
            if self.router.counts_energy
            else None
        )
        self._device = RouteState({})
        self._device_read_s = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def has(self, name: str | None) -> bool:
        """Whether a name is a route. The name of an installed model never is."""
        return name in self._names and all(name != model.id for model in self._models.installed())

    def listing(self, origin: RequestOrigin) -> list[str]:
        """The routes that the caller may use."""
        names = [name for name in self.router.names if self.has(name)]
        return [name for name in names if self.router.may_use(name, origin.key_id, origin.owner)]

    def decide(self, request: RouteRequest) -> Decision:
        """The model of a request. Raises: Forbidden, Unavailable (routing/auto_router.py)."""
        if self._energy is not None:
            self._energy.begin()
        return self.router.route(request, self.state(request.key_id))

    def state(self, key_id: str = "") -> RouteState:
        """This device now, for a key."""
        if self.router.uses_device and time.monotonic() - self._device_read_s > DEVICE_AGE_S:
            self._refresh_device()
        default = self._models.default_id()
        now = time.localtime()
        models = self._model_states()
        return replace(
            self._device,
            models=models,
            tokens_of_key=self.usage.tokens_of(key_id, models),
            joules_of_key=self.usage.joules_of(key_id, models),
            default_id=default,
            larger_id=self._models.larger(default) if default is not None else None,
            minute=60 * now.tm_hour + now.tm_min,
        )

    def _model_states(self) -> dict[str, ModelState]:
        now = time.monotonic()
        loaded = {one.model_id: one for one in self._residents() if one.state == "loaded"}
        found: dict[str, ModelState] = {}
        for model in self._models.installed():
            if self._models.task(model) != "generate":
                continue
            resident = loaded.get(model.id)
            client = resident.client if resident is not None else None
            health = client.health if client is not None else None
            n_busy = health.n_running + health.n_waiting if health is not None else 0
            times = self.usage.predicted(model.id, n_busy)
            found[model.id] = ModelState(
                model.id,
                size_bytes=model.size_bytes,
                is_assistant=self._models.is_assistant(model),
                is_resident=resident is not None,
                n_busy=n_busy,
                first_token_s=times.first_token_s if times is not None else None,
                answer_s=times.answer_s if times is not None else None,
                answer_j=self.usage.answer_j(model.id),
                cooling_s=max(0.0, self._cold_from_s.get(model.id, 0.0) - now),
            )
        for model_id, upstreams in self.upstreams.models.items():
            if model_id not in found:  # a model on this device keeps its name
                n_busy = sum(one.n_running for one in upstreams)
                times = self.usage.predicted(model_id, n_busy)
                found[model_id] = ModelState(
                    model_id,
                    is_resident=any(one.cooling_s(now) <= 0 for one in upstreams),
                    n_busy=n_busy,
                    first_token_s=times.first_token_s if times is not None else None,
                    answer_s=times.answer_s if times is not None else None,
                    cooling_s=min(one.cooling_s(now) for one in upstreams),
                    access=tuple(one.access for one in upstreams),
                )
        return found

    def _refresh_device(self) -> None:
        """Read heat and power beside the event loop, since drivers may be slow: this request still sees the
        values before. Before `prepare`, and where there is no event loop, they are read at once."""
        is_first, self._device_read_s = self._device_read_s == float("-inf"), time.monotonic()
        try:
            loop = None if is_first else asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None:
            self._device = self._read_device()
        elif self._reading is None or self._reading.done():
            self._reading = loop.create_task(self._read_beside(), name="route-device")

    async def _read_beside(self) -> None:
        try:
            self._device = await asyncio.to_thread(self._read_device)
        except Exception:  # whatever a driver shows: routes go on by the values before
            logger.exception("route_device_reading_failed")

    def _read_device(self) -> RouteState:
        """Any thread."""
        power, thermal = read_power(self._tree), read_thermal(self._tree)
        throttling = thermal.throttling
        return RouteState(
            {},
            is_on_battery=power.source == "battery" if power.source is not None else None,
            battery_percent=power.battery_percent,
            is_throttled=throttling.is_throttled if throttling.is_known else None,
            hottest_c=thermal.hottest_c,
            energy_source=self._energy.source if self._energy is not None else None,
        )

    async def prepare(self, database: Database | None) -> None:
        """Read heat and power, and count what was used before a restart, where a rule or a budget needs it.
        Call before the first request."""
        if self.router.uses_device:
            await self._read_beside()
            self._device_read_s = time.monotonic()
        if database is not None and self._recalls:
            await self.usage.recall(database)

    def _n_running(self) -> int:
        """Requests that run on this device."""
        clients = (one.client for one in self._residents() if one.state == "loaded")
        return sum(one.health.n_running for one in clients if one is not None)

    def note(self, row: RequestRow) -> RequestRow:
        """Count what a request has cost, which has ended. Returns the row with its energy, where that is
        measured for a budget."""
        busy = {one.model_id: one.client for one in self._residents() if one.state == "loaded"}
        client = busy.get(row.model)
        health = client.health if client is not None else None
        others = (health.n_running + health.n_waiting - 1) if health is not None else 0
        if (
            self._energy is not None and client is not None
        ):  # what runs elsewhere takes no energy here
            seconds = max(0.0, row.total_ms - (row.queue_ms or 0.0)) / 1e3
            used = self._energy.used(seconds, max(1, self._n_running()))
            row = msgspec.structs.replace(row, energy_j=used)
        self.usage.note(row, max(0, others))
        return row

    def cool(self, model_id: str) -> None:
        """Avoid a model for a while, because it failed."""
        self._cold_from_s[model_id] = time.monotonic() + self._cooldown_s


def route_request(
    route: str,
    origin: RequestOrigin | None = None,
    prompts: Sequence[Prompt] = (),
    *,
    metadata: dict[str, str] | None = None,
    **features: Any,
) -> RouteRequest:
    """What the router reads of a request. Raises: InvalidParameter for an unknown privacy."""
    origin, metadata = origin or _NOBODY, metadata or {}
    privacy = privacy_of(metadata)
    text, n_chars = "", 0
    for prompt in prompts[:1]:
        messages = prompt.messages
        text = text_of(messages) if messages is not None else window(prompt.text or "")
    for prompt in prompts:
        n_chars += length_of(prompt.messages or ()) + len(prompt.text or "")
    return RouteRequest(
        route,
        text=text,
        n_chars=n_chars,
        metadata=metadata,
        key_id=origin.key_id,
        owner=origin.owner,
        request_id=origin.request_id,
        n_hops=origin.n_hops,
        left_s=origin.deadline_s - time.monotonic() if origin.deadline_s is not None else None,
        privacy="local" if route == LOCAL else privacy,
        **features,
    )


def privacy_of(metadata: Mapping[str, str]) -> Privacy:
    """Where a request may be answered. Raises: InvalidParameter."""
    match metadata.get("privacy", "any"):
        case "local":
            return "local"
        case "site":
            return "site"
        case "any":
            return "any"
        case other:
            raise InvalidParameter(
                f'`metadata.privacy` is {other[:80]!r}: write "local", "site" or "any".',
                param="metadata",
            )

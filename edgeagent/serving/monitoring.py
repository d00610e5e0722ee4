"""What there is to see of a running daemon: the state of models, device and store, for its metrics."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from edgeagent.device.energy import read_energy
from edgeagent.device.power import read_power
from edgeagent.device.system_files import SystemFiles
from edgeagent.device.thermal import THROTTLE_CAUSES, read_thermal
from edgeagent.errors import DeadlineExceeded, EdgeAgentError, InsufficientMemory, Unavailable
from edgeagent.pool import Pool
from edgeagent.pool.resident_model import Resident
from edgeagent.serving.gauges import DeviceGauges, Gauges, ModelGauges, UpstreamGauges
from edgeagent.serving.metrics import CONTENT_TYPE, Metrics, RequestCounts
from edgeagent.serving.recent_requests import N_RECENT, RecentRequest, recent_request
from edgeagent.serving.upstreams.upstream import Upstream
from edgeagent.serving.upstreams.upstreams import Upstreams
from edgeagent.settings import Settings
from edgeagent.store.database_files import StoreFiles, beside
from edgeagent.store.requests import RequestRow
from edgeagent.types.engine_config import EngineHealth
from edgeagent.types.throttle import Reason
from edgeagent.types.version import VERSION


class Monitoring:
    """The metrics of one daemon. Event loop's thread only."""

    content_type = CONTENT_TYPE

    def __init__(
        self, pool: Pool, settings: Settings, upstreams: Upstreams, root: Path = Path("/")
    ) -> None:
        self._metrics = Metrics()
        self._pool = pool
        self._upstreams = upstreams
        self._settings = settings
        self._root = root
        self._recent: deque[RecentRequest] = deque(maxlen=N_RECENT)

    def recent(self) -> list[RecentRequest]:
        """The last requests to models, the newest first."""
        return list(reversed(self._recent))

    def end_request(self, row: RequestRow) -> None:
        """Count a request to a model that has ended."""
        self._recent.append(recent_request(row))
        self._metrics.end_request(
            RequestCounts(
                model=row.model,
                route=row.route,
                status=row.status,
                finish=row.finish,
                n_prompt=row.n_prompt,
                n_cached=row.n_cached,
                n_generated=row.n_generated,
                queue_s=_seconds(row.queue_ms),
                ttft_s=_seconds(row.ttft_ms),
                tpot_s=_seconds(row.tpot_ms),
                total_s=row.total_ms / 1e3,
                audio_s=row.audio_s,
                route_name=row.route_name,
                rule=row.rule,
            )
        )

    def refuse(self, error: EdgeAgentError) -> None:
        """Count a request that was answered with an error."""
        is_temporary = isinstance(error, Unavailable | InsufficientMemory | DeadlineExceeded)
        self._metrics.refuse(error.code, is_temporary=is_temporary)

    async def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        models = tuple(map(model_gauges, self._pool.residents()))
        degraded = frozenset(self._pool.cores.throttle.reasons)
        upstreams = tuple(map(upstream_gauges, self._upstreams.all()))
        return await asyncio.to_thread(self._text, models, degraded, upstreams)

    def _text(
        self,
        models: tuple[ModelGauges, ...],
        degraded: frozenset[Reason],
        upstreams: tuple[UpstreamGauges, ...],
    ) -> bytes:
        tree = SystemFiles(self._root)
        return self._metrics.text(
            Gauges(
                version=VERSION,
                models=models,
                memory_budget_bytes=self._settings.pool.ram_budget_bytes,
                device=device_gauges(tree),
                degraded=degraded,
                upstreams=upstreams,
                store_bytes=store_bytes(StoreFiles(self._settings.store_dir)),
            )
        )


def model_gauges(resident: Resident) -> ModelGauges:
    """The state of one model of the pool."""
    client = resident.client if resident.state == "loaded" else None
    health = client.health if client is not None else None
    n_preempted, token_gaps, kv_used = resident.n_past_preempted, resident.past_gaps, None
    n_drafted, n_accepted = resident.n_past_drafted, resident.n_past_accepted
    if isinstance(health, EngineHealth):
        n_preempted += health.n_preempted
        n_drafted += health.n_drafted
        n_accepted += health.n_accepted
        token_gaps = token_gaps.plus(health.token_gaps)
        kv_used = health.n_cells_used / health.n_cells if health.n_cells else None
    return ModelGauges(
        model_id=resident.model_id,
        is_loaded=health is not None,
        n_running=health.n_running if health is not None else 0,
        n_waiting=health.n_waiting if health is not None else 0,
        rss_bytes=health.rss_bytes if health is not None else 0,
        kv_used=kv_used,
        n_preempted=n_preempted,
        n_drafted=n_drafted,
        n_accepted=n_accepted,
        token_gaps=token_gaps,
        n_loads=resident.n_loads,
        n_deaths=resident.n_deaths,
        n_threads=health.n_threads if health is not None else 0,
        unloads={str(cause): n for cause, n in resident.unloads.items()},
    )


def upstream_gauges(upstream: Upstream) -> UpstreamGauges:
    """The state of one upstream."""
    outcomes = dict(upstream.n_by_outcome)
    return UpstreamGauges(upstream.settings.name, upstream.n_running, upstream.is_open, outcomes)


def device_gauges(tree: SystemFiles) -> DeviceGauges:
    """Heat and power, as the kernel shows them. Values that it does not show are left out."""
    thermal, power = read_thermal(tree), read_power(tree)
    return DeviceGauges(
        temperatures_c={
            f"{zone.name}:{zone.kind}": zone.temp_c
            for zone in thermal.zones
            if zone.temp_c is not None
        },
        throttled=frozenset(thermal.throttling.now),
        causes=THROTTLE_CAUSES if thermal.throttling.is_known else (),
        is_on_battery=power.source == "battery" if power.source is not None else None,
        energy=read_energy(tree),
    )


def store_bytes(files: StoreFiles) -> dict[str, int]:
    """Sizes of the parts of a store. Those that are not there have 0 bytes."""
    log = beside(files.database)[0]
    return {
        "database": _size(files.database),
        "log": _size(log),
        "journal": _size(files.journal),
        "backups": sum(map(_size, files.backups.glob("*"))),
        "recordings": sum(map(_size, files.recordings.glob("*"))),
        "prefixes": sum(map(_size, files.prefixes.glob("*"))),
        "quarantine": sum(map(_size, files.quarantine.rglob("*"))),
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # it has gone since it was listed
        return 0


def _seconds(ms: float | None) -> float | None:
    return ms / 1e3 if ms is not None else None

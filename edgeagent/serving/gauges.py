"""The gauges of a daemon: what is read when somebody asks for its metrics, and what workers have counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edgeagent.device.energy import EnergyReading
from edgeagent.types import histogram
from edgeagent.types.histogram import TOKEN_GAP_BOUNDS_S
from edgeagent.types.throttle import REASONS, Reason

PREFIX = "edgeagent:"
MODEL = "model_name"


@dataclass(frozen=True)
class ModelGauges:
    """The state of one model: its worker by the last heartbeat, its counts over all of its workers."""

    model_id: str
    is_loaded: bool
    n_running: int
    n_waiting: int
    rss_bytes: int
    kv_used: float | None  # 0..1; None without a KV cache
    n_preempted: int
    token_gaps: histogram.Histogram
    n_loads: int
    n_deaths: int
    unloads: Mapping[str, int]
    n_threads: int = 0  # of the last step
    n_drafted: int = 0
    n_accepted: int = 0


@dataclass(frozen=True)
class DeviceGauges:
    """Heat and power. `temperatures_c` by sensor; `throttled` names the causes that reduce the clock now,
    out of `causes`."""

    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    throttled: frozenset[str] = frozenset()
    causes: tuple[str, ...] = ()
    is_on_battery: bool | None = None
    energy: EnergyReading = field(default_factory=EnergyReading)


@dataclass(frozen=True)
class UpstreamGauges:
    """The state of one upstream. `outcomes` counts the requests that were sent, by how they ended."""

    name: str
    n_running: int
    is_open: bool
    outcomes: Mapping[str, int]


@dataclass(frozen=True)
class Gauges:
    """What is read when somebody asks for the metrics. Sizes in bytes; None: there is none."""

    version: str
    models: tuple[ModelGauges, ...] = ()
    memory_budget_bytes: int | None = None
    device: DeviceGauges = DeviceGauges()
    store_bytes: Mapping[str, int] = field(default_factory=dict)
    degraded: frozenset[Reason] = frozenset()
    upstreams: tuple[UpstreamGauges, ...] = ()


class GaugeCollector(Collector):
    """The gauges of one moment, and what workers have counted themselves."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            PREFIX + "build", "The version of edgeagent", {"version": self._gauges.version}
        )
        yield from self._of_models()
        yield from self._of_workers()
        yield from self._of_device()
        yield from self._of_upstreams()
        degraded = GaugeMetricFamily(
            PREFIX + "degraded", "1 if engines are held back for this reason", labels=["reason"]
        )
        for reason in REASONS:
            degraded.add_metric([reason], int(reason in self._gauges.degraded))
        yield degraded

    def _of_models(self) -> Iterator[Metric]:
        """By model, of loaded models only where a value belongs to a worker."""
        gauges = self._gauges
        loaded = [model for model in gauges.models if model.is_loaded]
        for name, help_text, values in (
            ("num_requests_running", "Sequences in the batch", [m.n_running for m in loaded]),
            ("num_requests_waiting", "Sequences that wait", [m.n_waiting for m in loaded]),
            ("worker_resident_memory_bytes", "Memory of the worker", [m.rss_bytes for m in loaded]),
            ("threads", "Threads of the last step", [m.n_threads for m in loaded]),
        ):
            yield _by_model(GaugeMetricFamily, name, help_text, loaded, values)
        cells = GaugeMetricFamily(
            PREFIX + "kv_cache_usage_perc", "Cells of the KV cache in use, 0 to 1", labels=[MODEL]
        )
        state = GaugeMetricFamily(
            PREFIX + "model_loaded", "1 if the model is in memory", labels=[MODEL]
        )
        for model in gauges.models:
            state.add_metric([model.model_id], int(model.is_loaded))
            if model.is_loaded and model.kv_used is not None:
                cells.add_metric([model.model_id], model.kv_used)
        yield from (cells, state)
        if gauges.memory_budget_bytes is not None:
            yield GaugeMetricFamily(
                PREFIX + "memory_budget_bytes",
                "What all workers may use together",
                value=gauges.memory_budget_bytes,
            )

    def _of_workers(self) -> Iterator[Metric]:
        models = self._gauges.models
        for name, help_text, counts in (
            ("num_preemptions", "Sequences put back", [m.n_preempted for m in models]),
            ("spec_decode_num_draft_tokens", "Drafted", [m.n_drafted for m in models]),
            ("spec_decode_num_accepted_tokens", "Then drawn", [m.n_accepted for m in models]),
            ("model_loads", "Models loaded", [m.n_loads for m in models]),
            ("worker_deaths", "Workers that ended unexpectedly", [m.n_deaths for m in models]),
        ):
            yield _by_model(CounterMetricFamily, name, help_text, models, counts)
        unloads = CounterMetricFamily(
            PREFIX + "model_unloads",
            'Models unloaded; those for "memory" were evicted',
            labels=[MODEL, "reason"],
        )
        gaps = HistogramMetricFamily(
            PREFIX + "inter_token_latency_seconds",
            "Between two tokens of an answer",
            labels=[MODEL],
        )
        for model in models:
            for reason, count in model.unloads.items():
                unloads.add_metric([model.model_id, reason], count)
            if model.token_gaps.counts:
                buckets = _cumulative(model.token_gaps)
                gaps.add_metric([model.model_id], buckets, model.token_gaps.total)
        yield from (unloads, gaps)

    def _of_upstreams(self) -> Iterator[Metric]:
        where, gauge = ["upstream"], GaugeMetricFamily
        running = gauge(PREFIX + "upstream_requests_running", "Requests there", labels=where)
        is_open = gauge(PREFIX + "upstream_open", "1 if it is avoided for failures", labels=where)
        ended = CounterMetricFamily(
            PREFIX + "upstream_requests", "By how they ended", labels=[*where, "outcome"]
        )
        for upstream in self._gauges.upstreams:
            running.add_metric([upstream.name], upstream.n_running)
            is_open.add_metric([upstream.name], int(upstream.is_open))
            for outcome, n in upstream.outcomes.items():
                ended.add_metric([upstream.name, outcome], n)
        yield from (running, is_open, ended)

    def _of_device(self) -> Iterator[Metric]:
        device = self._gauges.device
        heat = GaugeMetricFamily(
            PREFIX + "device_temperature_celsius", "By the kernel's thermal zone", labels=["zone"]
        )
        for zone, temp_c in device.temperatures_c.items():
            heat.add_metric([zone], temp_c)
        throttled = GaugeMetricFamily(
            PREFIX + "device_throttled", "1 if this reduces the clock now", labels=["cause"]
        )
        for cause in device.causes:
            throttled.add_metric([cause], int(cause in device.throttled))
        yield from (heat, throttled)
        if device.is_on_battery is not None:
            yield GaugeMetricFamily(
                PREFIX + "device_on_battery", "1 on battery", value=int(device.is_on_battery)
            )
        if device.energy.joules is not None:
            yield CounterMetricFamily(
                PREFIX + "device_energy_joules",
                "What the processor has used, by RAPL; other programs' part included",
                value=device.energy.joules,
            )
        watts = GaugeMetricFamily(
            PREFIX + "device_power_watts", "What the device uses now", labels=["source"]
        )
        for source, value in device.energy.watts.items():
            watts.add_metric([source], value)
        yield watts
        store = GaugeMetricFamily(
            PREFIX + "store_size_bytes", "Files of the store on disk", labels=["file"]
        )
        for name, n_bytes in self._gauges.store_bytes.items():
            store.add_metric([name], n_bytes)
        yield store


def _by_model(
    family_type: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    help_text: str,
    models: Sequence[ModelGauges],
    values: Sequence[float],
) -> Metric:
    """A family with one value for each model."""
    family = family_type(PREFIX + name, help_text, labels=[MODEL])
    for model, value in zip(models, values, strict=True):
        family.add_metric([model.model_id], value)
    return family


def _cumulative(gaps: histogram.Histogram) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each counts all values up to its bound."""
    found: list[tuple[str, float]] = []
    n = 0
    for bound, count in zip((*map(str, TOKEN_GAP_BOUNDS_S), "+Inf"), gaps.counts, strict=True):
        n += count
        found.append((bound, n))
    return found

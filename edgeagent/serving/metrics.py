"""The metrics of a daemon, in vLLM's terms, for Prometheus.

Counters and histograms are changed once for each request that ends. Gauges are read when somebody asks for
them. Labels have few values, none of them chosen by a client: installed models, reasons of routing, error
codes, and the sensors and files of this device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from edgeagent.types import histogram
from edgeagent.types.histogram import TOKEN_GAP_BOUNDS_S
from edgeagent.types.throttle import REASONS, Reason

PREFIX = "edgeagent:"
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
MODEL = "model_name"

# Seconds. Source: the buckets of vLLM's histograms of the same names.
LATENCY_BOUNDS_S = (
    0.1,
    0.3,
    0.5,
    0.8,
    1,
    1.5,
    2,
    2.5,
    5,
    10,
    15,
    20,
    30,
    40,
    50,
    60,
    120,
    240,
    480,
)
FIRST_TOKEN_BOUNDS_S = (
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
)
# How a live transcription ends, and a transcription job.
LIVE, JOB = "live", "job"
REAL_TIME_BOUNDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 4)


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


@dataclass(frozen=True)
class RequestCounts:
    """One request that has ended, as the request log has it. Times in seconds; None: unknown."""

    model: str
    route: str
    status: int
    finish: str | None
    n_prompt: int
    n_cached: int
    n_generated: int
    queue_s: float | None
    ttft_s: float | None
    tpot_s: float | None
    total_s: float
    audio_s: float | None
    route_name: str | None = None
    rule: str | None = None


class Metrics:
    """Everything that is counted. Any thread may call anything."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        by_route = (MODEL, "route")
        self._total_s = self._histogram(
            "e2e_request_latency_seconds", "From arrival to the end", by_route, LATENCY_BOUNDS_S
        )
        self._queue_s = self._histogram(
            "request_queue_time_seconds",
            "From arrival to the first step",
            by_route,
            LATENCY_BOUNDS_S,
        )
        self._ttft_s = self._histogram(
            "time_to_first_token_seconds",
            "From arrival to the first token",
            by_route,
            FIRST_TOKEN_BOUNDS_S,
        )
        self._tpot_s = self._histogram(
            "request_time_per_output_token_seconds",
            "Mean time between two tokens of an answer, by request",
            by_route,
            TOKEN_GAP_BOUNDS_S,
        )
        self._n_prompt = self._counter("prompt_tokens", "Tokens of prompts", (MODEL,))
        self._n_generated = self._counter("generation_tokens", "Tokens generated", (MODEL,))
        self._n_queried = self._counter(
            "prefix_cache_queries", "Tokens of prompts looked up in the KV cache", (MODEL,)
        )
        self._n_hits = self._counter(
            "prefix_cache_hits", "Tokens of prompts found in the KV cache", (MODEL,)
        )
        self._n_succeeded = self._counter(
            "request_success", "Requests answered completely", (MODEL, "finished_reason")
        )
        self._n_failed = self._counter(
            "request_failure", "Requests to a model that had no complete answer", (MODEL, "status")
        )
        self._n_routed = self._counter(
            "routed_requests",
            "Requests to a route such as auto, by the reason for the model",
            ("route_name", "reason", "rule", MODEL),
        )
        self._real_time = self._histogram(
            "speech_real_time_factor",
            "Processing seconds for each second of audio",
            (MODEL,),
            REAL_TIME_BOUNDS,
        )
        self._audio_s = self._counter("speech_audio_seconds", "Seconds of audio heard", (MODEL,))
        self._n_rejected = self._counter(
            "requests_rejected", "Requests refused for now, which may be sent again", ("reason",)
        )
        self._n_errors = self._counter("request_errors", "Other requests refused", ("code",))
        ProcessCollector(registry=self._registry)

    def _histogram(
        self, name: str, help_text: str, labels: Iterable[str], bounds: Iterable[float]
    ) -> Histogram:
        return Histogram(
            PREFIX + name, help_text, labels, registry=self._registry, buckets=tuple(bounds)
        )

    def _counter(self, name: str, help_text: str, labels: Iterable[str]) -> Counter:
        return Counter(PREFIX + name, help_text, labels, registry=self._registry)

    # --- counting

    def end_request(self, request: RequestCounts) -> None:
        """Count a request to a model that has ended, however it ended."""
        model, route = request.model, request.route
        if request.finish in (LIVE, JOB):
            # One lasts as long as somebody listens, the other gives way to everybody: that is no latency.
            self._audio_s.labels(model).inc(request.audio_s or 0.0)
            self._n_succeeded.labels(model, request.finish).inc()
            return
        self._total_s.labels(model, route).observe(request.total_s)
        if request.route_name is not None:
            self._n_routed.labels(request.route_name, route, request.rule or "", model).inc()
        for measured, seconds in (
            (self._queue_s, request.queue_s),
            (self._ttft_s, request.ttft_s),
            (self._tpot_s, request.tpot_s),
        ):
            if seconds is not None:
                measured.labels(model, route).observe(seconds)
        self._n_prompt.labels(model).inc(request.n_prompt)
        self._n_queried.labels(model).inc(request.n_prompt)
        self._n_hits.labels(model).inc(request.n_cached)
        self._n_generated.labels(model).inc(request.n_generated)
        if request.status < 400:
            # Answers of one request may end in different ways: the first one counts.
            self._n_succeeded.labels(model, (request.finish or "stop").partition(",")[0]).inc()
        else:
            self._n_failed.labels(model, str(request.status)).inc()
        if request.audio_s:
            self._audio_s.labels(model).inc(request.audio_s)
            if request.status < 400:
                self._real_time.labels(model).observe(request.total_s / request.audio_s)

    def refuse(self, code: str, *, is_temporary: bool) -> None:
        """Count a request that was answered with an error; `code` is one of `errors.py`."""
        (self._n_rejected if is_temporary else self._n_errors).labels(code).inc()

    # --- showing

    def text(self, gauges: Gauges) -> bytes:
        """All metrics in Prometheus's text format. Takes milliseconds."""
        shown = CollectorRegistry()
        shown.register(_GaugeCollector(gauges))
        return generate_latest(self._registry) + generate_latest(shown)


class _GaugeCollector(Collector):
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
            family = GaugeMetricFamily(PREFIX + name, help_text, labels=[MODEL])
            for model, value in zip(loaded, values, strict=True):
                family.add_metric([model.model_id], value)
            yield family
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
            family = CounterMetricFamily(PREFIX + name, help_text, labels=[MODEL])
            for model, count in zip(models, counts, strict=True):
                family.add_metric([model.model_id], count)
            yield family
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
        store = GaugeMetricFamily(
            PREFIX + "store_size_bytes", "Files of the store on disk", labels=["file"]
        )
        for name, n_bytes in self._gauges.store_bytes.items():
            store.add_metric([name], n_bytes)
        yield store


def _cumulative(gaps: histogram.Histogram) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each counts all values up to its bound."""
    found: list[tuple[str, float]] = []
    n = 0
    for bound, count in zip((*map(str, TOKEN_GAP_BOUNDS_S), "+Inf"), gaps.counts, strict=True):
        n += count
        found.append((bound, n))
    return found

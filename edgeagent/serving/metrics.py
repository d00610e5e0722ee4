"""The metrics of a daemon, in vLLM's terms, for Prometheus.

Counters and histograms are changed once for each request that ends. Gauges are read when somebody asks for
them. Labels have few values, none of them chosen by a client: installed models, reasons of routing, error
codes, and the sensors and files of this device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.process_collector import ProcessCollector

from edgeagent.serving.gauges import MODEL, PREFIX, GaugeCollector, Gauges
from edgeagent.types.histogram import TOKEN_GAP_BOUNDS_S

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

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
        shown.register(GaugeCollector(gauges))
        return generate_latest(self._registry) + generate_latest(shown)

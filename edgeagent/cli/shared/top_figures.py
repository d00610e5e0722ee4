"""The figures of `edgeagent top`: two samples of a daemon's metrics, and what happened between them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

# As edgeagent/serving/gauges.py names them, for whoever reads them over HTTP.
PREFIX = "edgeagent:"
MODEL = "model_name"
# By name, then by labels in the order of their names: ((name, value), ...).
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sample:
    """The metrics of one moment, by the monotonic clock."""

    at_s: float
    values: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def parsed(cls, text: str, at_s: float) -> Sample:
        """Raises: ValueError for what is no text of Prometheus."""
        values: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                values.setdefault(sample.name, {})[labels] = float(sample.value)
        return cls(at_s, values)

    def of(self, name: str) -> Mapping[Labels, float]:
        return self.values.get(PREFIX + name, {})

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums by one label."""
        found: dict[str, float] = {}
        for labels, value in self.of(name).items():
            key = dict(labels).get(label, "")
            found[key] = found.get(key, 0.0) + value
        return found


@dataclass(frozen=True)
class ModelFigures:
    """One model now, and in the time between two samples. None: nothing was measured."""

    model_id: str
    is_loaded: bool
    n_running: int
    n_waiting: int
    rss_bytes: int
    kv_used: float | None
    generated_per_s: float
    prompt_per_s: float
    requests_per_s: float
    ttft_s: float | None
    token_gap_s: float | None
    queue_s: float | None
    n_deaths: int


@dataclass(frozen=True)
class TopFigures:
    """Everything that is shown. `refused_per_s` by reason."""

    version: str
    models: tuple[ModelFigures, ...]
    budget_bytes: int | None
    daemon_bytes: int
    hottest_c: float | None
    throttled: tuple[str, ...]
    degraded: tuple[str, ...]
    refused_per_s: Mapping[str, float]
    store_bytes: int


def figures(before: Sample, now: Sample) -> TopFigures:
    """The figures of `now`, with rates and means since `before`."""
    versions = [dict(labels).get("version", "") for labels in now.of("build_info")]
    budget = now.of("memory_budget_bytes")
    throttled = now.by("device_throttled", "cause")
    degraded = now.by("degraded", "reason")
    heat = now.of("device_temperature_celsius").values()
    return TopFigures(
        version=versions[0] if versions else "",
        models=tuple(_model(name, before, now) for name in sorted(now.by("model_loaded", MODEL))),
        budget_bytes=int(next(iter(budget.values()))) if budget else None,
        daemon_bytes=int(sum(now.values.get("process_resident_memory_bytes", {}).values())),
        hottest_c=max(heat, default=None),
        throttled=tuple(sorted(cause for cause, value in throttled.items() if value)),
        degraded=tuple(sorted(reason for reason, value in degraded.items() if value)),
        refused_per_s={
            reason: rate
            for reason in now.by("requests_rejected_total", "reason")
            if (rate := _rate("requests_rejected_total", "reason", reason, before, now)) > 0
        },
        store_bytes=int(sum(now.of("store_size_bytes").values())),
    )


def _model(name: str, before: Sample, now: Sample) -> ModelFigures:
    def gauge(metric: str) -> float | None:
        return now.by(metric, MODEL).get(name)

    def rate(metric: str) -> float:
        return _rate(metric, MODEL, name, before, now)

    def mean(metric: str) -> float | None:
        count = _more(f"{metric}_count", MODEL, name, before, now)
        return _more(f"{metric}_sum", MODEL, name, before, now) / count if count else None

    return ModelFigures(
        model_id=name,
        is_loaded=bool(gauge("model_loaded")),
        n_running=int(gauge("num_requests_running") or 0),
        n_waiting=int(gauge("num_requests_waiting") or 0),
        rss_bytes=int(gauge("worker_resident_memory_bytes") or 0),
        kv_used=gauge("kv_cache_usage_perc"),
        generated_per_s=rate("generation_tokens_total"),
        prompt_per_s=rate("prompt_tokens_total"),
        requests_per_s=rate("e2e_request_latency_seconds_count"),
        ttft_s=mean("time_to_first_token_seconds"),
        token_gap_s=mean("inter_token_latency_seconds"),
        queue_s=mean("request_queue_time_seconds"),
        n_deaths=int(gauge("worker_deaths_total") or 0),
    )


def _more(metric: str, label: str, value: str, before: Sample, now: Sample) -> float:
    """How much a counter has risen; one that fell has begun anew."""
    was, found = before.by(metric, label).get(value, 0.0), now.by(metric, label).get(value, 0.0)
    return found - was if found >= was else found


def _rate(metric: str, label: str, value: str, before: Sample, now: Sample) -> float:
    took_s = now.at_s - before.at_s
    return _more(metric, label, value, before, now) / took_s if took_s > 0 else 0.0

"""What is measured of one model: plain data, and the medians of its runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeagent.optimize.divergence import Divergence, Perplexity
from edgeagent.optimize.tensor_bits import TensorBits


@dataclass(frozen=True)
class RunFigures:
    """One run in a process of its own. `ttft_ms`: from the request to the logits of the first token, with a
    short prompt. `rss_bytes` after the run, the mapped weights included. `others_cores`: cores that other
    programs used meanwhile; None where that is not known. `undisturbed_tok_s`: the decode rate by the
    fastest tenth of the tokens, which nothing delayed. `request_s` and `energy_j` of a whole prompt with its
    answer; None: nothing measures energy here."""

    load_ms: float
    rss_bytes: int
    prefill_tok_s: float
    decode_tok_s: float
    ttft_ms: float
    undisturbed_tok_s: float
    others_cores: float | None = None
    request_s: float | None = None
    energy_j: float | None = None


@dataclass(frozen=True)
class Spread:
    """The median of some runs, the lowest and the highest."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class SuiteFigures:
    """One suite of tasks with one model. `accuracy`: the mean score, 0 to 1, with its standard error.

    Latencies of whole answers in milliseconds, over all runs. `rouge_1`, `rouge_2`: of summaries, if any.
    """

    suite: str
    n_tasks: int
    n_runs: int
    accuracy: float
    error: float
    latency_ms: Spread
    rouge_1: float | None = None
    rouge_2: float | None = None


@dataclass(frozen=True)
class ModelFigures:
    """Everything measured of one file. None: not measured (no text, no reference).

    `cost_per_1000` requests and `efficiency` follow from the others (`efficiency`).
    """

    name: str
    path: Path
    size_bytes: int
    n_params: int
    bits: TensorBits
    runs: tuple[RunFigures, ...]
    perplexity: Perplexity | None = None
    divergence: Divergence | None = None
    suites: tuple[SuiteFigures, ...] = ()
    cost_per_1000: float | None = None
    efficiency: float | None = None

    @property
    def accuracy(self) -> float | None:
        """The mean over the suites."""
        return statistics.mean(s.accuracy for s in self.suites) if self.suites else None

    def spread(self, name: str) -> Spread | None:
        """The spread of one figure of the runs; None where it was not measured in all of them."""
        values = [getattr(run, name) for run in self.runs]
        return Spread.of(values) if values and None not in values else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every run, and the medians."""
        return {
            "name": self.name,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "n_params": self.n_params,
            "bits_per_weight": self.bits.bits_per_weight,
            "bytes_by_type": self.bits.n_bytes,
            "params_by_type": self.bits.n_params,
            "perplexity": asdict(self.perplexity) if self.perplexity else None,
            "kl_divergence": asdict(self.divergence) if self.divergence else None,
            "suites": [asdict(suite) for suite in self.suites],
            "energy": "measured" if self.spread("energy_j") else "unmeasured",
            "medians": {m.name: m.value(self) for m in METRICS},
            "runs": [asdict(run) for run in self.runs],
        }


@dataclass(frozen=True)
class Metric:
    """One figure of a model for tables and plots. `value` is None where it was not measured."""

    name: str
    title: str
    is_lower_better: bool
    value: Callable[[ModelFigures], float | None]
    shown: Callable[[float], str]


def _of_runs(name: str) -> Callable[[ModelFigures], float | None]:
    def value(figures: ModelFigures) -> float | None:
        found = figures.spread(name)
        return None if found is None else found.median

    return value


def _of_divergence(name: str) -> Callable[[ModelFigures], float | None]:
    return lambda figures: getattr(figures.divergence, name, None)


METRICS: tuple[Metric, ...] = (
    Metric("size_bytes", "size", True, lambda f: f.size_bytes, lambda x: f"{x / 1e6:.1f} MB"),
    Metric(
        "bits_per_weight", "bits", True, lambda f: f.bits.bits_per_weight, lambda x: f"{x:.2f}"
    ),
    Metric("load_ms", "load", True, _of_runs("load_ms"), lambda x: f"{x:.0f} ms"),
    Metric("rss_bytes", "RSS", True, _of_runs("rss_bytes"), lambda x: f"{x / 1e6:.0f} MB"),
    Metric("prefill_tok_s", "prefill", False, _of_runs("prefill_tok_s"), lambda x: f"{x:.0f} tok/s"),
    Metric("decode_tok_s", "decode", False, _of_runs("decode_tok_s"), lambda x: f"{x:.1f} tok/s"),
    Metric("ttft_ms", "TTFT", True, _of_runs("ttft_ms"), lambda x: f"{x:.0f} ms"),
    Metric(
        "perplexity", "perplexity", True,
        lambda f: f.perplexity.value if f.perplexity else None, lambda x: f"{x:.4g}",
    ),
    Metric("kld_mean", "KLD", True, _of_divergence("mean"), lambda x: f"{x:.5f}"),
    Metric("kld_p90", "KLD 90%", True, _of_divergence("p90"), lambda x: f"{x:.4f}"),
    Metric("kld_p99", "KLD 99%", True, _of_divergence("p99"), lambda x: f"{x:.4f}"),
    Metric("kld_p999", "KLD 99.9%", True, _of_divergence("p999"), lambda x: f"{x:.3f}"),
    Metric("accuracy", "tasks", False, lambda f: f.accuracy, lambda x: f"{x:.1%}"),
    Metric("energy_j", "energy", True, _of_runs("energy_j"), lambda x: f"{x:.2f} J/request"),
    Metric("cost_per_1000", "1,000 requests", True, lambda f: f.cost_per_1000, lambda x: f"{x:.4g}"),
    Metric("efficiency", "efficiency", False, lambda f: f.efficiency, lambda x: f"{x:.3f}"),
    Metric("same_top", "same top", False, _of_divergence("same_top"), lambda x: f"{x:.1%}"),
)  # fmt: skip


def best_by_metric(models: Sequence[ModelFigures]) -> dict[str, str]:
    """The name of the best model for each metric that at least two models have."""
    found = {}
    for metric in METRICS:
        values = {m.name: v for m in models if (v := metric.value(m)) is not None}
        if len(values) > 1:
            pick = min if metric.is_lower_better else max
            found[metric.name] = pick(values, key=lambda name: values[name])
    return found

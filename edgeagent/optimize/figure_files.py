"""Writes the figures of an evaluation as JSON, CSV and PNG."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeagent.errors import InvalidParameter
from edgeagent.optimize.figures import METRICS, ModelFigures, best_by_metric
from edgeagent.types.spreadsheet_cell import as_text_cell

DPI = 120


def write_json(models: Sequence[ModelFigures], about: dict[str, Any], path: Path) -> None:
    """All figures of all runs; `about` says how they were measured."""
    told = {**about, "best": best_by_metric(models), "models": [m.as_dict() for m in models]}
    _write(path, json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def write_csv(models: Sequence[ModelFigures], path: Path) -> None:
    """One line per model: medians of the runs, with the lowest and the highest of each."""
    spreads = ("load_ms", "rss_bytes", "prefill_tok_s", "decode_tok_s", "ttft_ms", "energy_j")
    suites = list(dict.fromkeys(suite.suite for model in models for suite in model.suites))
    columns = ["name", *(m.name for m in METRICS), "types"]
    columns += [f"{name}_{end}" for name in spreads for end in ("low", "high")]
    columns += [f"{suite}_{what}" for suite in suites for what in ("accuracy", "latency_ms")]
    rows = io.StringIO()
    out = csv.DictWriter(rows, columns, lineterminator="\n")
    out.writeheader()
    for model in models:
        row: dict[str, Any] = {m.name: m.value(model) for m in METRICS}
        row |= {"name": as_text_cell(model.name), "types": model.bits.described()}
        for name in spreads:
            if (found := model.spread(name)) is not None:
                row |= {f"{name}_low": found.low, f"{name}_high": found.high}
        for suite in model.suites:
            row |= {
                f"{suite.suite}_accuracy": suite.accuracy,
                f"{suite.suite}_latency_ms": suite.latency_ms.median,
            }
        out.writerow(row)
    _write(path, rows.getvalue())


def draw(models: Sequence[ModelFigures], path: Path) -> None:
    """A PNG: divergence (or perplexity), decode rate and solved tasks by size.

    Raises: InvalidParameter where matplotlib is not installed, nothing was measured, or the file cannot be
    written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise InvalidParameter(
            "Figures need matplotlib, which is not installed: `pip install 'edgeagent[plot]'`."
        ) from exc
    has_kld = any(m.divergence for m in models)
    wanted = ["kld_mean" if has_kld else "perplexity", "decode_tok_s", "accuracy"]
    metrics = [m for m in METRICS if m.name in wanted and any(m.value(one) for one in models)]
    if not metrics:
        raise InvalidParameter(
            "There is nothing to draw: give --text for quality, or --runs 1 or more for speed."
        )
    figure = Figure(figsize=(5.5 * len(metrics), 4.5), layout="constrained")
    for axes, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        for model in models:
            value = metric.value(model)
            if value is None:
                continue
            x = model.size_bytes / 1e6
            error = _error(model, metric.name)
            axes.errorbar([x], [value], yerr=error, fmt="o", capsize=3)
            axes.annotate(
                model.name, (x, value), textcoords="offset points", xytext=(5, 4), fontsize=8
            )
        axes.set(xlabel="file, MB", ylabel=_LABELS[metric.name])
        axes.grid(alpha=0.3)
    try:
        figure.savefig(path, format="png", dpi=DPI)
    except OSError as exc:
        raise _unwritable(path, exc) from exc


_LABELS = {
    "kld_mean": "mean KL divergence to the reference, nats",
    "perplexity": "perplexity",
    "accuracy": "tasks solved, share",
    "decode_tok_s": "decode, tokens/s",
}


def _error(model: ModelFigures, name: str) -> list[list[float]] | float | None:
    """Bars: the standard error of a mean, or the lowest and the highest run."""
    if name == "kld_mean":
        return model.divergence.error if model.divergence else None
    if name == "perplexity":
        return model.perplexity.error if model.perplexity else None
    found = model.spread(name) if name != "accuracy" else None
    if found is None:
        return None
    return [[found.median - found.low], [found.high - found.median]]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def _unwritable(path: Path, exc: OSError) -> InvalidParameter:
    return InvalidParameter(f"{path} cannot be written: {exc.strerror}. Choose another file.")

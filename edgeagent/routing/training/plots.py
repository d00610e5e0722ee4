"""Figures of an evaluation, with matplotlib (the extra `plot`)."""

from __future__ import annotations

from pathlib import Path

from edgeagent.errors import InvalidParameter
from edgeagent.routing.training.evaluation import Evaluation

SIZE_INCHES = (10.0, 4.5)
DPI = 120


def draw(found: Evaluation, path: Path) -> None:
    """Write a PNG: quality by the share of the large model, and the reliability of the learned confidence.

    Raises: InvalidParameter where matplotlib is not installed or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise InvalidParameter(
            "Figures need matplotlib, which is not installed: `pip install 'edgeagent[plot]'`."
        ) from exc
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    curves, bins = figure.subplots(1, 2)
    for name, curve in found.curves.items():
        curves.plot(100 * curve.share, curve.quality, marker=".", label=name)
    curves.set(xlabel="requests to the large model, %", ylabel="mean quality")
    curves.legend()
    bins.plot([0, 1], [0, 1], linestyle=":", color="grey", label="calibrated")
    bins.plot(
        [one.confidence for one in found.bins], [one.accuracy for one in found.bins],
        marker="o", label="learned",
    )  # fmt: skip
    bins.set(
        xlabel="confidence that the small model is right", ylabel="share that was right",
        xlim=(0, 1), ylim=(0, 1),
    )  # fmt: skip
    bins.legend()
    try:
        figure.savefig(path, format="png", dpi=DPI)
    except OSError as exc:
        raise InvalidParameter(
            f"{path} cannot be written: {exc.strerror}. Choose another file."
        ) from exc

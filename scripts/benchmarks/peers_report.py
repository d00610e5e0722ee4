"""What `scripts/bench peers` found, as a table and as a chart."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

Records = list[dict[str, Any]]

TITLES = {
    "one": "one chat",
    "eight": "8 chats",
    "prefix": "900 shared words, 8 clients",
    "dialogues": "growing dialogues, 8 clients",
    "json 1": "JSON by a schema, 1 client",
    "json 8": "JSON by a schema, 8 clients",
    "long": "long prompts, 4 clients (with prompt tokens)",
    "copy": "answers that copy, 1 client",
}
# Ours over theirs: rate, TTFT p95. None: no bar is set.
BARS: dict[str, tuple[float, float | None]] = {
    "one": (1.0, None), "eight": (1.05, 0.6), "prefix": (1.6, 0.2), "dialogues": (1.2, 0.8),
    "json 1": (2.0, None), "json 8": (2.0, None), "long": (1.0, None), "copy": (1.5, None),
}  # fmt: skip
BEGIN, END = "<!-- bench peers -->", "<!-- end of bench peers -->"


def ratio(records: Records, key: str) -> float | None:
    """The median over the rounds of ours over theirs."""
    pairs = [(record["ours"][key], record["theirs"][key]) for record in records]
    ratios = [a / b for a, b in pairs if a is not None and b]
    return statistics.median(ratios) if ratios else None


def markdown(records: Records) -> str:
    """A row for each workload: medians of both, and the medians of the ratios of each round."""
    lines = [
        "| workload | tokens/s, ours / theirs | ratio (rounds) | bar | TTFT p50, s | TTFT p95, s | ratio "
        "| bar | token gaps p95, ms | ratio | failed | memory, MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        rows = [record for record in records if record["workload"] == name]
        if rows:
            lines.append(_row(title, rows, BARS[name]))
    return "\n".join(lines)


def _row(title: str, rows: Records, bars: tuple[float, float | None]) -> str:
    def both(key: str, show: Callable[[float], str]) -> str:
        shown = []
        for side in ("ours", "theirs"):
            values = [row[side][key] for row in rows if row[side][key] is not None]
            shown.append(show(statistics.median(values)) if values else "-")
        return " / ".join(shown)

    def of(key: str) -> str:
        found = ratio(rows, key)
        return "-" if found is None else f"{found:.2f}"

    rates = [row["ours"]["tok_s"] / row["theirs"]["tok_s"] for row in rows]
    failed = " / ".join(
        str(sum(row[side]["failed"] for row in rows)) for side in ("ours", "theirs")
    )
    spread = f"{of('tok_s')} ({min(rates):.2f} to {max(rates):.2f}, n={len(rates)})"
    cells = [
        title, both("tok_s", lambda v: f"{v:.0f}"), spread, f"{bars[0]}",
        both("ttft_p50_s", lambda v: f"{v:.2f}"), both("ttft_p95_s", lambda v: f"{v:.2f}"),
        of("ttft_p95_s"), "" if bars[1] is None else f"{bars[1]}",
        both("gap_p95_s", lambda v: f"{1e3 * v:.0f}"), of("gap_p95_s"), failed,
        both("memory", lambda v: f"{v / 1e6:.0f}"),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def replace_section(path: Path, text: str) -> None:
    """Put the text between the two marks of a file. Ends the program where they are not there."""
    whole = path.read_text()
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(
            f"{path} has no lines {BEGIN} and {END}: add them where the table belongs."
        )
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def chart(records: Records, path: Path) -> None:
    """Bars of the ratios of rates, with the bar that each should reach."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("The chart needs matplotlib: pip install 'edgeagent[plot]'.") from None
    names = [name for name in TITLES if any(record["workload"] == name for record in records)]
    rates = [
        ratio([record for record in records if record["workload"] == name], "tok_s") or 0.0
        for name in names
    ]
    figure = Figure(figsize=(7, 0.45 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh([TITLES[name] for name in names], rates, color="#3b7dd8")
    for i, (name, rate) in enumerate(zip(names, rates, strict=True)):
        axes.text(rate + 0.03, i, f"{rate:.2f}", va="center", fontsize=8)
        axes.plot([BARS[name][0]] * 2, [i - 0.4, i + 0.4], color="#888888", linewidth=1)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("tokens per second, edgeagent over llama-server (grey: aim)")
    figure.savefig(path, dpi=150)

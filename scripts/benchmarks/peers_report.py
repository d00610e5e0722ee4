"""What `scripts/bench peers` found, as a table and as a chart."""

from __future__ import annotations

import re
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


HEAD = (
    "| workload | tokens/s, ours / theirs | ratio (rounds) | bar | TTFT p50, s | TTFT p95, s | ratio "
    "| bar | token gaps p95, ms | ratio | failed | memory, MB |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)
SHOWN_RATIO = re.compile(r"([\d.]+) \([^)]*n=(\d+)\)")
Rows = dict[str, str]  # lines of the table, by title of the workload


def rows_of(records: Records) -> Rows:
    """A row for each workload: medians of both, and the medians of the ratios of each round."""
    found = {}
    for name, title in TITLES.items():
        rows = [record for record in records if record["workload"] == name]
        if rows:
            found[title] = _row(title, rows, BARS[name])
    return found


def markdown(rows: Rows) -> str:
    return "\n".join([*HEAD, *(rows[title] for title in TITLES.values() if title in rows)])


def merged(old: Rows, new: Rows, *, replaces: bool) -> Rows:
    """The table after a run: rows of workloads that it left out stay, and those of more rounds than its own
    unless it `replaces` them."""
    kept = {
        title: row
        for title, row in old.items()
        if title not in new or (not replaces and _n_rounds(row) > _n_rounds(new[title]))
    }
    return new | kept


def _n_rounds(row: str) -> int:
    return int(shown[2]) if (shown := SHOWN_RATIO.search(row)) else 0


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


def read_section(path: Path) -> Rows:
    """The rows between the two marks of a file. Ends the program where they are not there."""
    _, table, _ = _section(path)
    lines = (line for line in table.splitlines() if line.startswith("| "))
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line != HEAD[0]}


def write_section(path: Path, rows: Rows) -> None:
    """Put the table between the two marks of a file. Ends the program where they are not there."""
    before, _, after = _section(path)
    path.write_text(f"{before}{BEGIN}\n\n{markdown(rows)}\n\n{END}{after}")


def _section(path: Path) -> tuple[str, str, str]:
    before, begin, rest = path.read_text().partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(
            f"{path} has no lines {BEGIN} and {END}: add them where the table belongs."
        )
    return before, table, after


def chart(rows: Rows, path: Path) -> None:
    """Bars of the ratios of rates, with the bar that each should reach."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("The chart needs matplotlib: pip install 'edgeagent[plot]'.") from None
    rates = {
        name: float(shown[1])
        for name, title in TITLES.items()
        if title in rows and (shown := SHOWN_RATIO.search(rows[title]))
    }
    figure = Figure(figsize=(7, 0.45 * len(rates) + 1.2), layout="constrained")
    axes = figure.subplots()
    colors = ["#2b8a3e" if rate >= 1 else "#3b7dd8" for rate in rates.values()]
    axes.barh([TITLES[name] for name in rates], list(rates.values()), color=colors)
    for i, (name, rate) in enumerate(rates.items()):
        right = max(rate, BARS[name][0] if 0 <= BARS[name][0] - rate < 0.25 else 0)
        axes.text(right + 0.03, i, f"{rate:.2f}", va="center", fontsize=8)
        axes.plot([BARS[name][0]] * 2, [i - 0.4, i + 0.4], color="#888888", linewidth=2)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlim(0, max([*rates.values(), *(BARS[name][0] for name in rates)], default=1) + 0.3)
    axes.invert_yaxis()
    axes.set_xlabel("tokens/s, edgeagent over llama-server\n(grey: aim)")
    figure.savefig(path, dpi=150)

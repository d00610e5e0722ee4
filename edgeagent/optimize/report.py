"""The report of a search, as Markdown and as one HTML file that needs nothing else, and a catalog entry."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.toml_text import to_toml
from edgeagent.durable import replace_text
from edgeagent.optimize.search import SearchResult
from edgeagent.optimize.targets import Measured, Targets, blame, bounds, misses, nearest, pareto

_WIDTH, _HEIGHT, _MARGIN = 640, 400, 60
COLUMNS = (
    "candidate", "size MB", "mean KLD", "same top", "perplexity", "decode tok/s", "predicted", "",
)  # fmt: skip


def verdict(result: SearchResult, targets: Targets) -> str:
    """The result in one sentence."""
    if result.chosen is not None:
        one = result.chosen
        return (
            f"{one.name} meets the targets: {one.n_bytes / 1e6:.1f} MB, a mean KL divergence of "
            f"{one.kld:.4g}, {one.decode_tok_s:.1f} tok/s."
        )
    near = ", ".join(one.name for one in nearest(targets, result.measured))
    return f"No candidate meets the targets. {blame(targets, result.measured)} Nearest: {near}."


def rows_of(result: SearchResult, targets: Targets) -> list[tuple[str, ...]]:
    """A row for each candidate, smallest first; the last column says what it misses."""
    front = {one.name for one in pareto(result.measured)}
    rows: list[tuple[str, ...]] = []
    for one in sorted(result.measured, key=lambda one: (one.n_bytes, one.name)):
        marks = ["chosen"] if result.chosen == one else []
        marks += ["Pareto"] if one.name in front else []
        marks += [f"misses {option}" for option in misses(targets, one)]
        marks += [f"timed beside {one.others_cores:.1f} busy cores"] if one.others_cores else []
        predicted = "" if one.predicted_tok_s is None else f"{one.predicted_tok_s:.1f}"
        rows.append(
            (
                one.name, f"{one.n_bytes / 1e6:.1f}", f"{one.kld:.5f}", f"{one.same_top:.1%}",
                f"{one.perplexity:.4g}", f"{one.decode_tok_s:.1f}", predicted,
                ", ".join(marks),
            )
        )  # fmt: skip
    return rows


def write_report(result: SearchResult, targets: Targets, about: Sequence[str], out: Path) -> None:
    """`report.md` and `report.html` in `out`. `about`: how it was measured, one line each."""
    rows, title = rows_of(result, targets), f"Optimizing {result.source.name}"
    wanted = ", ".join(f"{bound.option} {bound.told}" for bound in bounds(targets)) or "none"
    facts = [verdict(result, targets), f"Targets: {wanted}.", *about, *result.notes]
    lines = [f"# {title}", "", *(f"- {fact}" for fact in facts), ""]
    lines += [_md_row(COLUMNS), _md_row(["---"] * len(COLUMNS)), *map(_md_row, rows), ""]
    replace_text(out / "report.md", "\n".join(lines))
    replace_text(out / "report.html", _page(title, facts, rows, result))


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _page(
    title: str, facts: Sequence[str], rows: Sequence[Sequence[str]], result: SearchResult
) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            f"<title>{html.escape(title)}</title>",
            "<style>body{font:16px/1.5 system-ui;max-width:50em;margin:2em auto;padding:0 1em}",
            "td,th{padding:.2em .8em;text-align:right}td:first-child,th:first-child{text-align:left}",
            "td:last-child{text-align:left}svg{max-width:100%;height:auto}</style>",
            f"<h1>{html.escape(title)}</h1>",
            "<ul>" + "".join(f"<li>{html.escape(fact)}</li>" for fact in facts) + "</ul>",
            plot(result, "size, MB", lambda one: one.n_bytes / 1e6),
            plot(result, "decode, tok/s", lambda one: one.decode_tok_s),
            "<table>"
            + row(COLUMNS, "th")
            + "".join(row(cells, "td") for cells in rows)
            + "</table>",
            "</html>\n",
        ]
    )


def plot(result: SearchResult, label: str, x_of: object) -> str:
    """Divergence by another figure as SVG; the Pareto front is filled, the chosen candidate has a ring."""
    assert callable(x_of)
    points = [(float(x_of(one)), one.kld, one) for one in result.measured]
    if not points:
        return ""
    x_low, x_high = _range([x for x, _, _ in points])
    y_low, y_high = _range([y for _, y, _ in points])
    front = {one.name for one in pareto(result.measured)}

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _MARGIN + (x - x_low) / (x_high - x_low) * (_WIDTH - 2 * _MARGIN),
            _HEIGHT - _MARGIN - (y - y_low) / (y_high - y_low) * (_HEIGHT - 2 * _MARGIN),
        )

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" font-size="12" font-family="system-ui">'
    ]
    left, bottom = place(x_low, y_low)
    right, top = place(x_high, y_high)
    parts.append(
        f'<path d="M{left:.0f} {top:.0f}V{bottom:.0f}H{right:.0f}" fill="none" stroke="currentColor"/>'
    )
    for i in range(5):
        x, y = x_low + i * (x_high - x_low) / 4, y_low + i * (y_high - y_low) / 4
        px, py = place(x, y)
        parts.append(
            f'<text x="{px:.0f}" y="{bottom + 18:.0f}" text-anchor="middle">{x:.4g}</text>'
        )
        parts.append(f'<text x="{left - 6:.0f}" y="{py + 4:.0f}" text-anchor="end">{y:.3g}</text>')
    parts.append(
        f'<text x="{(left + right) / 2:.0f}" y="{_HEIGHT - 14}" text-anchor="middle">{label}</text>'
        f'<text x="{left:.0f}" y="{top - 14:.0f}">mean KL divergence, nats</text>'
    )
    for x, y, one in points:
        px, py = place(x, y)
        fill = "#1668b8" if one.name in front else "none"
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{fill}" stroke="#1668b8"/>')
        if one == result.chosen:
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="8" fill="none" stroke="#c43"/>')
        name = html.escape(one.name)
        parts.append(f'<text x="{px + 9:.1f}" y="{py - 6:.1f}">{name}</text>')
    return "".join([*parts, "</svg>"])


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of an axis with some room around the values."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def write_catalog_entry(
    model_id: str, path: Path, chosen: Measured, licence: str, out: Path
) -> None:
    """`catalog.toml` in `out`, to be copied into the models directory, with the measured figures as notes."""
    facts = inspect_apart(path)
    entry = {
        "name": facts.name or model_id,
        "family": facts.architecture,
        "n_params": facts.n_params,
        "task": "chat",
        "licence": licence,
        "n_ctx_min": min(2048, facts.n_ctx_train),
        "notes": (
            f"Measured: mean KL divergence {chosen.kld:.4g}, {chosen.same_top:.1%} equal best tokens, "
            f"{chosen.decode_tok_s:.1f} tok/s."
        ),
        "variants": [
            {
                "quant": chosen.name,
                "file": path.name,
                "size_bytes": path.stat().st_size,
                "sha256": sha256_of(path),
                "sources": [{"kind": "path", "path": str(path.absolute())}],
            }
        ],
    }
    replace_text(out / "catalog.toml", to_toml({"models": {model_id: entry}}))

"""The report of a search, as Markdown and as one HTML file that needs nothing else, and a catalog entry."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.toml_text import to_toml
from edgeagent.durable import replace_text
from edgeagent.optimize.plot import plot
from edgeagent.optimize.search import SearchResult
from edgeagent.optimize.targets import Measured, Targets, blame, bounds, misses, nearest, pareto

COLUMNS = (
    "candidate", "size MB", "mean KLD", "same top", "perplexity", "decode tok/s", "predicted", "remarks",
)  # fmt: skip
HOW_TO_READ = (
    "Mean KLD: how far the predictions are from those of the F16 file, in nats; 0 is equal. Same top: how "
    "often the most probable next token is the same.",
    "Decode: tokens per second of one answer where nothing delays it (the best run, by the fastest tenth of "
    "its tokens); predicted is what was expected before it was timed.",
    "Pareto: no other candidate is at least as good in size, divergence and decode rate together.",
)


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
    lines += [*(f"- {line}" for line in HOW_TO_READ), ""]
    replace_text(out / "report.md", "\n".join(lines))
    replace_text(out / "report.html", _page(title, facts, rows, result, targets))


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _page(
    title: str,
    facts: Sequence[str],
    rows: Sequence[Sequence[str]],
    result: SearchResult,
    targets: Targets,
) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        mark = " class=chosen" if result.chosen and cells[0] == result.chosen.name else ""
        return f"<tr{mark}>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    def listed(lines: Sequence[str]) -> str:
        return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"

    found, wanted, *others = facts
    return "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            f"<title>{html.escape(title)}</title>",
            "<style>body{font:16px/1.5 system-ui;max-width:56em;margin:2em auto;padding:0 1em}",
            "td,th{padding:.2em .6em;text-align:right;vertical-align:top}",
            "td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}",
            "td:first-child{white-space:nowrap}td:last-child{min-width:14em}",
            "tr.chosen{background:#fbe3df;color:#000}.found{font-size:1.2em}",
            "svg{width:100%;height:auto}</style>",
            f"<h1>{html.escape(title)}</h1>",
            f"<p class=found><strong>{html.escape(found)}</strong></p>",
            f"<p>{html.escape(wanted)}</p>",
            "<table>" + row(COLUMNS, "th") + "".join(row(cells, "td") for cells in rows) + "</table>",
            listed(HOW_TO_READ),
            "<h2>Quality by size</h2>",
            plot(result, "file, MB", lambda one: one.n_bytes / 1e6, _in_mb(targets), targets.max_kld),
            "<h2>Quality by speed</h2>",
            plot(
                result, "decode, tok/s", lambda one: one.decode_tok_s, targets.min_decode_tok_s,
                targets.max_kld,
            ),
            "<p>Lower is better. Filled: Pareto. Ring: chosen. Dashed: targets.</p>",
            "<h2>How it was measured</h2>",
            listed(others),
            "</html>\n",
        ]
    )  # fmt: skip


def _in_mb(targets: Targets) -> float | None:
    return None if targets.max_bytes is None else targets.max_bytes / 1e6


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
                "quant": chosen.file,
                "file": path.name,
                "size_bytes": path.stat().st_size,
                "sha256": sha256_of(path),
                "engine": None if chosen.flags is None else msgspec.to_builtins(chosen.flags),
                "sources": [{"kind": "path", "path": str(path.absolute())}],
            }
        ],
    }
    replace_text(out / "catalog.toml", to_toml({"models": {model_id: entry}}))

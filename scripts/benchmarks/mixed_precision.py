"""Mixed precision against llama.cpp's mixtures of the same size, on text that was used for nothing else.

    scripts/bench mixed model-F16.gguf --dir work --text wiki.txt --text chats.jsonl --tune more.txt \
        --held-out other.txt --presets Q4_K_M,Q4_0

The importance matrix comes from --text, sensitivities from --tune; the preset is made without and with that
matrix, and with --without-matrix mixed precision is, too. Where a mixed file is more than 1% smaller than the
preset, another one ("filled") has matrices that stay F16 in the rest. --png: divergence by size. The work
in --dir goes on where it was ended: with --limit S it ends itself after so many seconds (exit status 3), for
machines that others want to use in between.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from pathlib import Path

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.gguf.header import read_header
from edgeagent.optimize.allocation import Budget
from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.evaluate import EvaluationOptions, compared, model_file, reference_of
from edgeagent.optimize.imatrix import collect, open_config
from edgeagent.optimize.imatrix_file import read_imatrix
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.mixed_precision import MOST_ROUNDS, best_allocation
from edgeagent.optimize.proposals import fixed_bytes
from edgeagent.optimize.quantize import planned, predicted_bytes, quantize
from edgeagent.optimize.recipe import Recipe, read_recipe, write_recipe
from edgeagent.optimize.sensitivity import PROBE, groups_of, measure_costs
from edgeagent.optimize.spare_bytes import with_spare_bytes
from edgeagent.optimize.texts import chunks_of
from scripts.benchmarks import machine, precision_options


class TimeIsUp(Exception):
    """The limit was reached; what was measured is in the journal."""


def parsed() -> argparse.Namespace:
    found = precision_options.parser("mixed", __doc__, ctx=512, chunks=(24, 2, 8), together=3)
    found.add_argument("--presets", default="Q4_K_M")
    found.add_argument("--rounds", type=int, default=MOST_ROUNDS, help="of refinement, at most")
    found.add_argument("--without-matrix", action="store_true")
    found.add_argument("--png", type=Path)
    found.add_argument("--limit", type=float, default=float("inf"), metavar="S")
    return found.parse_args()


class Bench:
    """The steps, each of which goes on where it was."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._dir: Path = given.dir
        self._dir.mkdir(parents=True, exist_ok=True)
        self._importance = self._dir / "imatrix.gguf"
        self._started = time.monotonic()
        self._about = (
            f"{self._dir.name} {given.tune_chunks} {given.layers_together} {given.ctx} {PROBE}"
        )
        self._journal = Journal(self._dir / "journal.jsonl", self._about)

    def tell(self, what: str, n: int, total: int) -> None:
        print(f"{what} +{n} of {total}, {time.monotonic() - self._started:.0f} s", file=sys.stderr)
        if time.monotonic() - self._started > self._given.limit:
            raise TimeIsUp

    async def run(self) -> None:
        given = self._given
        await collect(
            given.model, given.text, self._importance, n_ctx=given.ctx, max_chunks=given.text_chunks,
            n_threads=given.threads, special=given.special, tell=self.tell,
        )  # fmt: skip
        files = await self.files()
        for text in given.held_out:
            await self.compare(text, files)

    async def files(self) -> list[Path]:
        """The presets without and with importance, and mixed precision of their sizes."""
        given, found = self._given, []
        for preset in given.presets.split(","):
            for name, matrix in ((preset, None), (f"{preset}-imatrix", self._importance)):
                found.append(self._made(name, Recipe(preset), matrix))
        found += await self._mixed("mixed", self._importance, self._journal)
        if given.without_matrix:
            journal = Journal(self._dir / "journal-plain.jsonl", self._about)
            found += await self._mixed("mixed-plain", None, journal)
        return found

    def _made(self, name: str, recipe: Recipe, matrix: Path | None) -> Path:
        path = self._dir / f"{name}.gguf"
        if path.exists() and path.with_suffix(".recipe.toml").exists():
            there = read_recipe(path.with_suffix(".recipe.toml"))
            if (there.tensors, there.plain) == (recipe.tensors, recipe.plain):
                return path
        made = quantize(
            self._given.model, path, recipe, importance=matrix, n_threads=self._given.threads
        )
        write_recipe(made, path.with_suffix(".recipe.toml"))
        return path

    async def _mixed(self, name: str, matrix: Path | None, journal: Journal) -> list[Path]:
        given, header = self._given, read_header(self._given.model)
        fixed = fixed_bytes(given.model, header)
        columns = read_imatrix(matrix).columns() if matrix is not None else {}
        elements = {tensor.name: tensor.n_elements for tensor in header.tensors}
        wanted = []
        async with scoring_worker(open_config(given.model, given.ctx, given.threads)) as client:
            await client.set_importance({n: c.tobytes() for n, c in columns.items()})
            chunks = await chunks_of(
                client, given.tune, given.ctx, given.tune_chunks, special=given.special
            )
            reference = await reference_of(client, chunks)
            groups = groups_of(header, given.layers_together)
            costs = await measure_costs(client, header, reference, groups, journal, self.tell)
            grids = Counter(one.grid for one in costs if one.grid is not None)
            print(f"on the grid of a type already: {dict(grids) or 'none'}")
            for preset in given.presets.split(","):
                mixtures = planned(given.model, [Recipe(preset)], matrix)
                size = predicted_bytes(header, mixtures[0])
                best = await best_allocation(
                    client, reference, groups, costs, Budget(size - fixed), journal, mixtures=mixtures,
                    n_rounds=given.rounds, tell=self.tell,
                )  # fmt: skip
                assert best is not None
                kinds = Counter(best.allocation.kinds.values())
                counts = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
                print(
                    f"{preset}: {size} bytes; {name}: {counts}; {len(best.allocation.plain)} without the "
                    f"matrix; tuning KLD {best.kld:.5f}"
                )
                filled = with_spare_bytes(best.allocation, costs, elements, size - fixed)
                for stem, one in ((name, best.allocation), (f"{name}-filled", filled)):
                    if one is not None:
                        recipe = Recipe("Q8_0", one.kinds, plain=one.plain)
                        wanted.append((f"{stem}-{preset}", recipe))
        return [self._made(stem, recipe, matrix) for stem, recipe in wanted]

    async def compare(self, text: Path, files: list[Path]) -> None:
        given = self._given
        options = EvaluationOptions(
            texts=(text,), n_ctx=given.ctx, max_chunks=given.held_out_chunks, n_threads=given.threads,
            special=given.special,
        )  # fmt: skip
        async with scoring_worker(options.config(given.model, is_scoring=True)) as client:
            reference = await reference_of(client, await options.chunks_of(client))
        print(f"\n{text.name}: {len(reference.nll)} tokens scored")
        print(
            "| file | bytes | mean KLD | 99% | same top | perplexity |\n|---|---|---|---|---|---|"
        )
        points: dict[str, list[tuple[float, float, float]]] = {}
        for path in files:
            key = f"held-out {text.name} {sha256_of(path)} {given.held_out_chunks}"
            values = self._journal.get(key)
            if values is None:
                async with scoring_worker(options.config(path, is_scoring=True)) as client:
                    found = await compared(client, model_file(path), reference)
                d, p = found.divergence, found.perplexity
                assert d is not None and p is not None
                values = {
                    "kld": d.mean, "error": d.error, "p99": d.p99, "top": d.same_top, "ppl": p.value,
                }  # fmt: skip
                self._journal.add(key, values)
            print(
                f"| {path.stem} | {path.stat().st_size} | {values['kld']:.5f} ± {values['error']:.5f} | "
                f"{values['p99']:.4f} | {values['top']:.1%} | {values['ppl']:.4g} |",
                flush=True,
            )
            series = path.stem.rpartition("-")[0] or "preset"
            name = "preset with matrix" if path.stem.endswith("-imatrix") else series
            size = path.stat().st_size / 1e6
            points.setdefault(name, []).append((size, values["kld"], values["error"]))
            self.tell(text.name, 1, len(files))
        if given.png is not None:
            draw(points, f"{given.model.stem}, {text.name}", given.png)


def draw(points: dict[str, list[tuple[float, float, float]]], title: str, path: Path) -> None:
    """Divergence by size, a line for each way of choosing types."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, found in points.items():
        x, y, error = zip(*sorted(found), strict=True)
        axes.errorbar(x, y, yerr=error, marker="o", capsize=3, label=name)
    axes.set(xlabel="file, MB", ylabel="mean KL divergence to F16, nats", title=title, yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    given = parsed()
    print(machine.describe())
    try:
        asyncio.run(Bench(given).run())
    except TimeIsUp:
        print("The time is up; the same command goes on.", file=sys.stderr)
        sys.exit(3)

"""What a search is given."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.sizing.speed import Rates
from edgeagent.optimize.evaluate import PREFILL_TOKENS
from edgeagent.optimize.targets import Targets

# Finest first. Several of them are the same file where rows are no multiples of 256.
UNIFORM = (
    "Q8_0", "Q6_K", "Q5_1", "Q5_K_M", "Q5_0", "Q4_1", "Q4_K_M", "Q4_K_S", "IQ4_NL", "Q4_0", "Q3_K_M", "Q2_K",
)  # fmt: skip


@dataclass(frozen=True)
class SearchOptions:
    """What is searched with. `rates`: of another device, whose decode rate is predicted; None: this one's,
    which is measured, and predicted by the speed of each type. `depth`: how many tokens are in the context
    when it is timed. `mixtures`: those of llama.cpp that are measured."""

    calibration: tuple[Path, ...]
    held_out: tuple[Path, ...]
    targets: Targets
    rates: Rates | None = None
    n_ctx: int = 512
    n_threads: int = 1
    calibration_chunks: int = 32
    tuning_chunks: int = 4
    held_out_chunks: int = 16
    layers_together: int = 3
    special: bool = False
    limit_s: float | None = None
    time_again: bool = False
    depth: int = PREFILL_TOKENS
    mixtures: tuple[str, ...] = UNIFORM


def about(source: Path, options: SearchOptions) -> str:
    """What the measurements of a journal depend on, as a digest. Targets and time are not among it."""
    parts = [sha256_of(source), *(sha256_of(p) for p in (*options.calibration, *options.held_out))]
    parts += [
        str(x) for x in (
            options.n_ctx, options.n_threads, options.calibration_chunks, options.tuning_chunks,
            options.held_out_chunks, options.layers_together, options.special, options.rates,
        )
    ]  # fmt: skip
    if options.depth != PREFILL_TOKENS:
        parts.append(f"depth {options.depth}")
    return f"search {hashlib.sha256(' '.join(parts).encode()).hexdigest()}"

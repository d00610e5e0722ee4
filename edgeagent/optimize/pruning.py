"""Makes pruned files: without the tokens that texts do not use, and without layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.gguf.header import read_header
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.evaluate import Tell, reference_of
from edgeagent.optimize.imatrix import open_config
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.layers import DroppedLayer, least_missed
from edgeagent.optimize.protocol import ScoringConfig
from edgeagent.optimize.quantize import quantize
from edgeagent.optimize.recipe import Recipe, write_recipe
from edgeagent.optimize.texts import chunks_of, whole_text
from edgeagent.optimize.vocabulary import PrunedVocabulary, write_pruned


async def prune_vocabulary(
    source: Path, target: Path, texts: Sequence[Path], *, special: bool = False
) -> tuple[PrunedVocabulary, int]:
    """Write `target` with the tokens of the texts; also returns how many there were.

    Raises: InvalidParameter.
    """
    config = ScoringConfig(model_id=source.name, path=str(source), n_ctx=16, is_scoring=False)
    used: set[int] = set()
    async with scoring_worker(config) as client:
        for path in texts:
            text, is_marked = await whole_text(client, path)
            tokens = await client.tokens(text, special=special or is_marked)
            used |= set(np.unique(np.frombuffer(tokens, np.int32)).tolist())
        n_before = client.facts.n_vocab
    return write_pruned(source, target, used), n_before


async def prune_layers(
    source: Path,
    target: Path,
    texts: Sequence[Path],
    n_dropped: int,
    *,
    max_kld: float | None = None,
    n_ctx: int = 512,
    max_chunks: int = 4,
    special: bool = False,
    n_threads: int = 1,
    tell: Tell = lambda what, n, total: None,
) -> list[DroppedLayer]:
    """Write `target` without the layers that are missed least. Raises: InvalidParameter."""
    header = read_header(source)
    journal_path = target.with_name(f".{target.name}.journal")
    target.parent.mkdir(parents=True, exist_ok=True)
    async with scoring_worker(open_config(source, n_ctx, n_threads)) as client:
        chunks = await chunks_of(client, texts, n_ctx, max_chunks, special=special)
        parts = [
            sha256_of(source),
            *(sha256_of(path) for path in texts),
            str((n_ctx, max_chunks, special)),
        ]
        journal = Journal(journal_path, " ".join(parts))
        reference = await reference_of(client, chunks)
        dropped = await least_missed(
            client, header, reference, n_dropped, journal, max_kld=max_kld, tell=tell
        )
    if not dropped:
        raise InvalidParameter(
            f"No layer can be left out within a mean KL divergence of {max_kld}: raise --max-kld."
        )
    layers = tuple(sorted(one.layer for one in dropped))
    made = quantize(source, target, Recipe("F16", dropped_layers=layers), n_threads=n_threads)
    write_recipe(made, target.with_name(f"{target.name}.recipe.toml"))
    journal_path.unlink()
    return dropped

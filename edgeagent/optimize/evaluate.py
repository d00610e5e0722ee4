"""Measures models: size, speed, memory, perplexity, and KL divergence to a reference.

Every run loads its model in a worker process of its own, so that load time and memory are those of a fresh
process. The runs of all models alternate, which spreads what else the machine does over all of them.
Quality does not depend on the run and is computed once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeagent.catalog.gguf.header import read_header
from edgeagent.device.energy import EnergyMeter
from edgeagent.device.system_files import SystemFiles
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.client import ScoringClient, scoring_worker
from edgeagent.optimize.divergence import (
    ReferenceChunk,
    chunk_divergence,
    divergence,
    is_surely_above,
    nll_of,
    perplexity,
    reference_chunk,
)
from edgeagent.optimize.figures import ModelFigures, RunFigures
from edgeagent.optimize.protocol import ScoringConfig
from edgeagent.optimize.quietness import LoadWatch
from edgeagent.optimize.tensor_bits import tensor_bits
from edgeagent.optimize.texts import Chunk, check_same_vocabulary, chunks_of, read_text

# Tokens kept of each position of a reference: 4.6 KB. 512 leave 1 to 7% of the mass in the tail.
N_TOP, N_TAIL = 512, 64
MAX_REFERENCE_BYTES = 2 << 30
SEED = 1
# Of the first text: what shows whether two models have one vocabulary.
SAMPLE_CHARS = 4000
# The prompt of the time to first token, those of prefill, and the tokens decoded after it.
TTFT_TOKENS, PREFILL_TOKENS, DECODE_TOKENS = 64, 384, 48

# Called with what is done, how much of it now, and how much it is in all.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EvaluationOptions:
    """How to measure. `n_runs` 0: no speeds. No `texts`: no perplexity and no divergence.

    `special`: recognise the names of special tokens in the texts, as in chats that are written out.
    `n_prompt`: tokens of the timed prompt, behind which the decoded ones are.
    """

    texts: tuple[Path, ...] = ()
    n_ctx: int = 512
    max_chunks: int | None = 40
    n_runs: int = 3
    n_threads: int = 1
    special: bool = False
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    repack: bool = True
    n_batch: int = 512
    n_prompt: int = PREFILL_TOKENS

    def config(self, path: Path, *, is_scoring: bool) -> ScoringConfig:
        return ScoringConfig(
            model_id=path.name,
            path=str(path),
            n_threads=self.n_threads,
            n_batch=self.n_batch,
            n_ctx=self.n_ctx if is_scoring else self.n_prompt + DECODE_TOKENS,
            kv_type=self.kv_type,
            flash_attention=self.flash_attention,
            repack=self.repack,
            is_scoring=is_scoring,
        )

    async def chunks_of(self, client: ScoringClient) -> list[Chunk]:
        """The texts in the tokens of a loaded model. Raises: InvalidParameter."""
        return await chunks_of(
            client, self.texts, self.n_ctx, self.max_chunks, special=self.special
        )


@dataclass(frozen=True, eq=False)
class Reference:
    """The predictions that others are compared with, chunk by chunk, and the reference's own figures."""

    chunks: tuple[ReferenceChunk, ...]
    nll: np.ndarray[Any, Any]


async def evaluate(
    models: Sequence[Path],
    reference: Path | None,
    options: EvaluationOptions,
    tell: Tell = lambda what, n, total: None,
) -> list[ModelFigures]:
    """The figures of each model in order; those of the reference come first, if there is one.

    Raises: InvalidParameter for a text that cannot be read, and for a model of another vocabulary.
    """
    for path in options.texts:
        read_text(path)
    paths = list(dict.fromkeys([*([reference] if reference else []), *models]))
    found = {path: model_file(path) for path in paths}
    for _ in range(options.n_runs):
        for path in paths:
            run = await time_model(path, options)
            found[path] = replace(found[path], runs=(*found[path].runs, run))
            tell("speed", 1, options.n_runs * len(paths))
    if options.texts and reference is not None:
        await _add_divergence(found, reference, options, tell)
    elif options.texts:
        await _add_perplexity(found, options, tell)
    return [found[path] for path in paths]


def model_file(path: Path) -> ModelFigures:
    """Size and bits of a file, before anything is measured."""
    header = read_header(path)
    bits = tensor_bits(header)
    n_params = sum(bits.n_params.values())
    return ModelFigures(path.stem, path, header.file_bytes, n_params, bits, ())


async def time_model(path: Path, options: EvaluationOptions) -> RunFigures:
    """Load a model in a fresh process and time it once."""
    watch, meter = LoadWatch(), EnergyMeter(SystemFiles(Path("/")))
    async with scoring_worker(options.config(path, is_scoring=False)) as client:
        started = time.perf_counter()
        await client.time_run(TTFT_TOKENS, 0)
        ttft_s = time.perf_counter() - started
        meter.start()
        times = await client.time_run(options.n_prompt, DECODE_TOKENS)
        used = meter.stop()
        others_cores = watch.others_cores()
    fastest_first = sorted(times.decode_s)
    decode_s = fastest_first[len(fastest_first) // 2]
    undisturbed = fastest_first[: max(1, len(fastest_first) // 10)]
    return RunFigures(
        load_ms=client.facts.load_ms,
        rss_bytes=times.rss_bytes,
        prefill_tok_s=options.n_prompt / times.prefill_s,
        decode_tok_s=1 / decode_s,
        ttft_ms=1e3 * ttft_s,
        others_cores=others_cores,
        request_s=times.prefill_s + sum(times.decode_s),
        energy_j=used.joules if used is not None else None,
        undisturbed_tok_s=len(undisturbed) / sum(undisturbed),
    )


async def _add_perplexity(
    found: dict[Path, ModelFigures], options: EvaluationOptions, tell: Tell
) -> None:
    """Each model splits the texts into its own tokens."""
    for path in found:
        async with scoring_worker(options.config(path, is_scoring=True)) as client:
            chunks = await options.chunks_of(client)
            nll = []
            for chunk in chunks:
                nll.append(nll_of(await client.score(chunk.tokens)))
                tell("quality", 1, len(chunks) * len(found))
        found[path] = replace(found[path], perplexity=perplexity(np.concatenate(nll)))


async def _add_divergence(
    found: dict[Path, ModelFigures], reference: Path, options: EvaluationOptions, tell: Tell
) -> None:
    """All models get the tokens of the reference."""
    async with scoring_worker(options.config(reference, is_scoring=True)) as client:
        chunks = await options.chunks_of(client)
        tick = partial(tell, "quality", 1, len(chunks) * len(found))
        sample = read_text(options.texts[0])[:SAMPLE_CHARS]
        sample_tokens = await client.tokens(sample)
        known = await reference_of(client, chunks, tick)
    found[reference] = replace(found[reference], perplexity=perplexity(known.nll))
    for path in found:
        if path != reference:
            async with scoring_worker(options.config(path, is_scoring=True)) as client:
                await check_same_vocabulary(client, sample, sample_tokens, path.name)
                found[path] = await compared(client, found[path], known, tick)


async def reference_of(
    client: ScoringClient, chunks: Sequence[Chunk], tick: Callable[[], None] = lambda: None
) -> Reference:
    """Score the chunks with a loaded reference. Raises: InvalidParameter where they would not fit."""
    kept, n_bytes = [], 0
    for number, chunk in enumerate(chunks):
        scores = await client.score(chunk.tokens, n_top=N_TOP, n_tail=N_TAIL, seed=SEED + number)
        kept.append(reference_chunk(chunk.tokens, scores, N_TOP))
        n_bytes += kept[-1].n_bytes
        if n_bytes > MAX_REFERENCE_BYTES:
            raise InvalidParameter(
                f"The reference of {len(chunks)} chunks takes more than {MAX_REFERENCE_BYTES >> 20} MiB "
                f"of memory: use --chunks {number} or less."
            )
        tick()
    nll = np.concatenate([chunk.nll for chunk in kept]).astype(np.float64)
    return Reference(tuple(kept), nll)


async def compared(
    client: ScoringClient,
    figures: ModelFigures,
    reference: Reference,
    tick: Callable[[], None] = lambda: None,
    most_divergence: float = math.inf,
) -> ModelFigures:
    """`figures` with perplexity and divergence of a loaded model that has the reference's vocabulary.

    A model whose divergence is surely more than `most_divergence` is not scored to the end.
    """
    parts = []
    for chunk in reference.chunks:
        scores = await client.score(chunk.tokens, ids=chunk.ids.tobytes())
        parts.append(chunk_divergence(chunk, scores))
        tick()
        if is_surely_above(np.concatenate([part.kld for part in parts]), most_divergence):
            break
    nll, kld, same = (
        np.concatenate([getattr(p, n) for p in parts]) for n in ("nll", "kld", "is_same_top")
    )
    return replace(figures, perplexity=perplexity(nll), divergence=divergence(kld, same))

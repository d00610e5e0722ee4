"""Collects an importance matrix: which columns of each matrix matter, by activations over a text.

Squared activations are summed over chunks of text and saved every few chunks, so that an interrupted command
goes on where it was, and its result is the same to the byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeagent.catalog.digest import sha256_of
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.client import ScoringClient, scoring_worker
from edgeagent.optimize.evaluate import Tell
from edgeagent.optimize.imatrix_file import ImportanceMatrix, read_imatrix, write_imatrix
from edgeagent.optimize.protocol import ScoringConfig
from edgeagent.optimize.texts import Chunk, chunks_of, read_text

SAVE_EVERY = 8
# A text in a language that a vocabulary was not made for falls to pieces of a character or less.
LEAST_CHARS_PER_TOKEN, LEAST_VOCABULARY = 1.5, 8192


def open_config(path: Path, n_ctx: int, n_threads: int) -> ScoringConfig:
    """A model whose weights and activations may be read."""
    return ScoringConfig(
        model_id=path.name, path=str(path), n_ctx=n_ctx, n_threads=n_threads, repack=False,
        use_mmap=False, is_open=True,
    )  # fmt: skip


async def collect(
    model: Path,
    texts: Sequence[Path],
    target: Path,
    *,
    n_ctx: int = 512,
    max_chunks: int | None = None,
    n_threads: int = 1,
    special: bool = False,
    also_checked: Sequence[Path] = (),
    tell: Tell = lambda what, n, total: None,
) -> ImportanceMatrix:
    """Collect the matrix of `model` over the texts, or go on with the one at `target`.

    `also_checked`: texts that are needed later, so that one that is no use is found now. Raises:
    InvalidParameter for texts that are no use, and for a `target` that was made of others.
    """
    for path in texts:
        read_text(path)
    about = [sha256_of(path) for path in texts] + [str((n_ctx, max_chunks, special))]
    data_sha256 = hashlib.sha256(" ".join(about).encode()).hexdigest()
    matrix = _begun(target, sha256_of(model), data_sha256, n_ctx)
    if matrix.is_complete:
        return matrix
    names = [path.name for path in texts]
    target.parent.mkdir(parents=True, exist_ok=True)
    async with scoring_worker(open_config(model, n_ctx, n_threads)) as client:
        chunks = await chunks_of(client, texts, n_ctx, max_chunks, special=special)
        later = await chunks_of(client, also_checked, n_ctx, None, special=special)
        _check_language([*chunks, *later], client)
        matrix.n_chunks_in_all = len(chunks)
        tell("importance", matrix.n_chunks, len(chunks))
        for chunk in chunks[matrix.n_chunks :]:
            await add_chunk(matrix, client, chunk)
            tell("importance", 1, len(chunks))
            if matrix.n_chunks % SAVE_EVERY == 0 or matrix.is_complete:
                # Rounded as in the file, so that a run that goes on from it has the same sums.
                for name, values in matrix.sums.items():
                    matrix.sums[name] = values.astype(np.float32).astype(np.float64)
                write_imatrix(matrix, names, target)
    return matrix


async def add_chunk(matrix: ImportanceMatrix, client: ScoringClient, chunk: Chunk) -> None:
    """Add the activations of a chunk to the sums. `client`: a worker with open weights."""
    found = await client.importance(chunk.tokens)
    for name, data in found.columns.items():
        values = np.frombuffer(data, np.float32).astype(np.float64)
        matrix.sums[name] = matrix.sums[name] + values if name in matrix.sums else values
        matrix.n_rows[name] = matrix.n_rows.get(name, 0) + found.n_rows[name]
    matrix.n_chunks += 1


def _begun(target: Path, model_sha256: str, data_sha256: str, n_ctx: int) -> ImportanceMatrix:
    if not target.exists():
        return ImportanceMatrix({}, {}, 0, n_ctx, data_sha256, model_sha256)
    known = read_imatrix(target)
    if (known.model_sha256, known.data_sha256) != (model_sha256, data_sha256):
        raise InvalidParameter(
            f"{target} was made of another model or of other texts: remove it, or choose another file."
        )
    return known


def _check_language(chunks: Sequence[Chunk], client: ScoringClient) -> None:
    """Raises: InvalidParameter for a text in a language that the model does not know."""
    for chunk in {chunk.file: chunk for chunk in chunks}.values():
        if (
            client.facts.n_vocab >= LEAST_VOCABULARY
            and chunk.chars_per_token < LEAST_CHARS_PER_TOKEN
        ):
            raise InvalidParameter(
                f"The text {chunk.file} has {chunk.chars_per_token:.1f} characters a token, at least "
                f"{LEAST_CHARS_PER_TOKEN} are expected: it is in a language that this model does not "
                "know. Take a text like those that it will be used for."
            )

"""Makes a model narrower, step by step: fewer attention heads and feed-forward channels in each layer.

    1. statistics   the activations behind heads and channels, with all that is gone already silent, over text
                    of their own: channels that are rare in a few hundred tokens are needed elsewhere
    2. ways on      channels, a head of each group, a whole group (`width.steps`)
    3. measurement  each way is silenced in memory and its divergence measured
    4. gate         the one of least divergence per parameter goes, unless the divergence passes the bound

until so many parameters are gone. Then the file is cut, loaded, and measured again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeagent.catalog.gguf.header import read_header
from edgeagent.durable import replace_bytes
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.client import ScoringClient, scoring_worker
from edgeagent.optimize.evaluate import Reference, Tell, compared, model_file, reference_of
from edgeagent.optimize.imatrix import open_config
from edgeagent.optimize.protocol import ScoringConfig
from edgeagent.optimize.sensitivity import mean_divergence
from edgeagent.optimize.surgery import open_file, rewrite
from edgeagent.optimize.texts import Chunk, chunks_of
from edgeagent.optimize.width import (
    ATTENTION_OUTPUT,
    FEED_FORWARD_OUTPUT,
    LayerShape,
    Scores,
    Width,
    layer_shape,
    steps,
    whole,
)

Array = np.ndarray[Any, Any]
_CUTTABLE = ("F16", "F32")


@dataclass(frozen=True)
class NarrowingStep:
    """One step: what went, which share of the layers' parameters is gone now, and the divergence then."""

    what: str
    share: float
    kld: float


@dataclass(frozen=True)
class Narrowed:
    """What was made. `kld`: of the file itself. `is_whole`: the share that was asked for is gone."""

    steps: tuple[NarrowingStep, ...]
    width: Width
    shape: LayerShape
    kld: float
    is_whole: bool


async def narrow(
    source: Path,
    target: Path,
    texts: Sequence[Path],
    share: float,
    *,
    n_steps: int = 4,
    max_kld: float | None = None,
    n_ctx: int = 512,
    max_chunks: int = 4,
    statistics_chunks: int = 32,
    special: bool = False,
    n_threads: int = 1,
    tell: Tell = lambda what, n, total: None,
) -> Narrowed:
    """Write `target` without `share` of the parameters of the layers, and `target`.width.json beside it.

    Raises: InvalidParameter for a model that cannot be cut, or where the first step passes `max_kld`.
    """
    header = read_header(source)
    shape = layer_shape(header)
    _check_types(source)
    reader = open_file(source)
    async with scoring_worker(open_config(source, n_ctx, n_threads)) as client:
        total = max_chunks + statistics_chunks
        chunks = await chunks_of(client, texts, n_ctx, total, special=special)
        if len(chunks) < 2:
            raise InvalidParameter(
                f"The texts have one chunk of {n_ctx} tokens: activations and divergence need one each, so "
                "take longer texts, or lower --ctx."
            )
        n_measured = min(max_chunks, len(chunks) // 2)
        reference = await reference_of(client, chunks[:n_measured])
        work = _Narrowing(client, reader, shape, chunks[n_measured:], reference, tell)
        found, width = await work.run(share, n_steps, max_kld)
    if not found:
        bound = "" if max_kld is None else f" within a mean KL divergence of {max_kld:g}"
        raise InvalidParameter(
            f"Nothing can be left out{bound}: raise --max-kld or --share, or change --steps."
        )
    kld = 0.0

    def check(path: Path) -> None:
        nonlocal kld
        kld = _measured(path, source, reference, n_ctx, n_threads)

    # The file is measured by a worker, which needs an event loop of its own.
    await asyncio.to_thread(cut, reader, target, shape, width, check)
    is_whole = found[-1].share >= share - share / n_steps / 2  # grains are coarse
    narrowed = Narrowed(tuple(found), width, width.shape(shape), kld, is_whole)
    _write_report(narrowed, shape, target)
    return narrowed


def cut(reader: Any, target: Path, source: LayerShape, width: Width, check: Any) -> None:
    """Write the file with what stays of each layer."""
    architecture = reader.fields["general.architecture"].contents()
    shape = width.shape(source)
    numbers = {
        f"{architecture}.attention.head_count": shape.n_heads,
        f"{architecture}.attention.head_count_kv": shape.n_kv_heads,
        f"{architecture}.feed_forward_length": shape.n_ff,
    }
    # Without these the length of a head would be the width of the model by the number of heads.
    lengths = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    added = {f"{architecture}.{name}": shape.head_dim for name in lengths}

    def data_of(tensor: Any) -> Array:
        data: Array = tensor.data
        if (rows := width.rows(tensor.name, source)) is not None:
            data = data[rows]
        if (columns := width.columns(tensor.name, source)) is not None:
            data = data[:, columns]
        return np.ascontiguousarray(data)

    rewrite(
        reader, target, value_of=lambda name, value: numbers.get(name, value), data_of=data_of,
        added=added, check=check,
    )  # fmt: skip


class _Narrowing:
    """The steps on one loaded model."""

    def __init__(
        self, client: ScoringClient, reader: Any, shape: LayerShape, chunks: Sequence[Chunk],
        reference: Reference, tell: Tell,
    ) -> None:  # fmt: skip
        self._client = client
        self._shape = shape
        self._chunks = chunks
        self._reference = reference
        self._tell = tell
        self._powers = _column_powers(reader, shape)

    async def run(
        self, share: float, n_steps: int, max_kld: float | None
    ) -> tuple[list[NarrowingStep], Width]:
        total = self._shape.n_params
        now, kld, found = whole(self._shape), 0.0, list[NarrowingStep]()
        for number in range(1, n_steps + 1):
            n_now = now.shape(self._shape).n_params
            wanted = round(total * (1 - share * number / n_steps))
            self._tell("steps", 1, n_steps)
            if n_now - wanted < total * share / n_steps / 2:
                continue  # the step before took more than its part
            scores = await self._scores(now)
            tried = []
            for step in steps(self._shape, now, scores, n_now - wanted):
                n_gone = n_now - step.width.shape(self._shape).n_params
                loss = await self._loss(step.width)
                tried.append(((loss - kld) / n_gone, step.what, loss, step))
            if not tried:
                break
            _, what, loss, step = min(tried, key=lambda one: one[:3])
            if max_kld is not None and loss > max_kld:
                break
            now, kld = step.width, loss
            gone = 1 - now.shape(self._shape).n_params / total
            found.append(NarrowingStep(what, gone, kld))
        return found, now

    async def _silence(self, width: Width) -> None:
        dropped = width.dropped_columns(self._shape)
        await self._client.alter({}, {name: rows.tobytes() for name, rows in dropped.items()})

    async def _loss(self, width: Width) -> float:
        await self._silence(width)
        return await mean_divergence(self._client, self._reference)

    async def _scores(self, now: Width) -> Scores:
        """The importance of heads and channels in the model as it is now."""
        await self._silence(now)
        sums: dict[str, Array] = {name: np.zeros_like(p) for name, p in self._powers.items()}
        for chunk in self._chunks:
            found = await self._client.importance(
                chunk.tokens, (ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT)
            )
            for name in sums:
                values = np.frombuffer(found.columns[name], np.float32)
                sums[name] += values / max(1, found.n_rows[name])
        scores = {name: values * self._powers[name] for name, values in sums.items()}
        layers = range(self._shape.n_layers)
        heads = [
            scores[f"blk.{i}.{ATTENTION_OUTPUT}"].reshape(-1, self._shape.head_dim).sum(axis=1)
            for i in layers
        ]
        channels = [scores[f"blk.{i}.{FEED_FORWARD_OUTPUT}"] for i in layers]
        return Scores(np.stack(heads), np.stack(channels))


def _column_powers(reader: Any, shape: LayerShape) -> dict[str, Array]:
    """The sums of squares of the columns behind heads and channels, float64."""
    wanted = {
        f"blk.{i}.{name}" for i in range(shape.n_layers)
        for name in (ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT)
    }  # fmt: skip
    return {
        tensor.name: np.square(tensor.data.astype(np.float64)).sum(axis=0)
        for tensor in reader.tensors
        if tensor.name in wanted
    }


def _measured(path: Path, source: Path, reference: Reference, n_ctx: int, n_threads: int) -> float:
    """The divergence of a file. Raises: ModelUnusable where llama.cpp does not load it."""

    async def measured() -> float:
        config = ScoringConfig(
            model_id=source.name, path=str(path), n_ctx=n_ctx, n_threads=n_threads
        )
        async with scoring_worker(config) as client:
            found = await compared(client, model_file(path), reference)
        assert found.divergence is not None
        return found.divergence.mean

    return asyncio.run(measured())


def _check_types(source: Path) -> None:
    for tensor in read_header(source).tensors:
        is_cut = tensor.name.endswith((ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT))
        if is_cut and tensor.type.name not in _CUTTABLE:
            raise InvalidParameter(
                f"Tensor {tensor.name!r} of {source} is {tensor.type.name}, and columns can be cut of F16 "
                f"and F32 only: make an F16 file by `edgeagent quantize {source.name} F16.gguf --type F16`."
            )


def _write_report(narrowed: Narrowed, source: LayerShape, target: Path) -> None:
    told = {
        "kl_divergence": narrowed.kld,
        "steps": [asdict(step) for step in narrowed.steps],
        "before": asdict(source),
        "after": asdict(narrowed.shape),
        "kept": asdict(narrowed.width),
    }
    path = target.with_name(f"{target.name}.width.json")
    replace_bytes(path, msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")

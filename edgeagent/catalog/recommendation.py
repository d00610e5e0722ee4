"""Which model to run on a device: accepts or refuses every variant of the catalog, with reasons.

A variant is refused if it does another task, does not speak the language, has too short a context, does
not fit on the disk, or does not fit into memory with any of these setups, tried in this order:

    1. as requested: the profile's context, KV type and sequences (context limited to the model's own);
       idle prefixes are limited to four times the sequences
    2. the next smaller KV type
    3. half the context, starting again with the first KV type, down to the smallest useful context;
       sequences are reduced with it so that each keeps that context. The smallest useful context is
       the one required, else the model's own, else the profile's if that is smaller
    4. a single sequence

Accepted variants are ranked: fast enough for the target before too slow, made for the requested domain
before general, then by capability (parameters x the share that the quantization keeps), then by less
memory. Pure: the same arguments give the same ranking, and more memory never gives a worse best.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgeagent.catalog.catalog_file import Entry, Variant
from edgeagent.catalog.sizing.memory import (
    KV_BLOCK,
    KvType,
    WorkerMemory,
    WorkerSetup,
    repacked_bytes,
    worker_memory,
)
from edgeagent.catalog.sizing.model_shape import ModelShape, from_entry
from edgeagent.catalog.sizing.quantization import bytes_per_weight, mixture, quality
from edgeagent.catalog.sizing.speed import Rates, decode_tokens_per_s, prefill_tokens_per_s

GENERATING = ("chat", "assistant")
# People read four to six tokens a second; with slower answers they have to wait.
READING_TOKENS_PER_S = 5.0
# Decode rates are computed for a conversation of several turns.
DEPTH = 512
# Each idle prefix costs two rows of logits: 0.4 to 2 MB by vocabulary.
PREFIXES_PER_SEQUENCE = 4
_MB = 1e6


@dataclass(frozen=True, slots=True)
class TargetDevice:
    """The device, as plain data. Sizes in bytes; `rates` are with `n_threads`.

    `n_ctx`, `n_seq`, `n_batch` and the first of `kv_types` are the preferred values; further `kv_types`
    are fallbacks, in order. `repacked`: see `sizing.repack`. `storage_free_bytes` None: unknown, not
    checked.
    """

    budget_bytes: int
    n_threads: int
    rates: Rates
    n_ctx: int = 4096
    n_seq: int = 4
    n_prefixes: int = 24
    n_batch: int = 512
    kv_types: tuple[KvType, ...] = ("f16", "q8_0")
    latency_target_ms: float = 300.0
    repacked: frozenset[str] = frozenset()
    storage_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the model is for. None means any; `n_ctx_min` in tokens.

    "chat" and "assistant" are one task here, since an assistant is a larger chat model. Only a model that
    knows no tools but its own is not a chat model.
    """

    task: str = "chat"
    domain: str | None = None
    language: str | None = None
    n_ctx_min: int | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An accepted variant and its setup. Rates in tokens per second, one sequence."""

    model_id: str
    quant: str
    n_ctx: int
    kv_type: KvType
    n_seq: int
    n_prefixes: int
    n_batch: int
    n_threads: int
    use_mmap: bool
    memory: WorkerMemory
    decode_tokens_per_s: float
    decode_all_tokens_per_s: float
    prefill_tokens_per_s: float
    is_fast_enough: bool
    is_for_domain: bool
    capability: float
    download_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused variant and the reason, with the numbers. `n_missing_bytes` if memory is the reason."""

    model_id: str
    quant: str
    reason: str
    n_missing_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """All variants: `choices` best first, `refusals` those that nearly fit first."""

    choices: tuple[Recommendation, ...]
    refusals: tuple[Refusal, ...]

    @property
    def best(self) -> Recommendation | None:
        return self.choices[0] if self.choices else None

    def one_per_model(self) -> tuple[Recommendation, ...]:
        """The choices with only the best variant of each model."""
        first: dict[str, Recommendation] = {}
        for choice in self.choices:
            first.setdefault(choice.model_id, choice)
        return tuple(first.values())


def select(entries: Iterable[Entry], target: TargetDevice, needs: Requirements) -> Ranking:
    """Judge every variant of `entries` for `target` and rank the accepted ones."""
    choices: list[Recommendation] = []
    refusals: list[Refusal] = []
    for entry in entries:
        for variant in entry.variants:
            verdict = judge(entry, variant, target, needs)
            if isinstance(verdict, Recommendation):
                choices.append(verdict)
            else:
                refusals.append(verdict)
    return Ranking(tuple(sorted(choices, key=_rank)), tuple(sorted(refusals, key=_nearness)))


def judge(
    entry: Entry, variant: Variant, target: TargetDevice, needs: Requirements
) -> Recommendation | Refusal:
    """Accept or refuse one variant."""
    reason = _unsuitable(entry, needs)
    if reason is not None:
        return Refusal(entry.id, variant.quant, reason)
    model = from_entry(entry, variant)
    if model is None:
        reason = "its memory cannot be predicted: the catalog states no shape, or an unknown quantization"
        return Refusal(entry.id, variant.quant, reason)
    least = _least_context(entry, target, needs)
    if model.n_ctx_train < least:
        reason = f"it was trained for {model.n_ctx_train} tokens of context, but {least} are needed"
        return Refusal(entry.id, variant.quant, reason)
    download = variant.size_bytes or model.weights_bytes
    free = target.storage_free_bytes
    if free is not None and download > free:
        reason = (
            f"its file takes {download / _MB:.0f} MB, but {free / _MB:.0f} MB are free on the disk"
        )
        return Refusal(entry.id, variant.quant, reason)
    return _fitted(entry, variant, model, target, needs)


def setups(model: ModelShape, target: TargetDevice, least: int) -> Iterator[WorkerSetup]:
    """The setups to try, in the order given in the module's docstring."""
    usable = tuple(k for k in target.kv_types if model.head_dim % KV_BLOCK[k] == 0)
    kv_types: tuple[KvType, ...] = usable or ("f16",)
    mapped = repacked_bytes(model, target.repacked)[0] == 0
    n_ctx = max(least, min(target.n_ctx, model.n_ctx_train))
    n_seq = target.n_seq
    while True:
        for kv_type in kv_types:
            yield _setup(target, n_ctx, kv_type, n_seq, mapped)
        if n_ctx == least:
            break
        n_ctx = max(least, n_ctx // 2)
        n_seq = max(1, min(n_seq, n_ctx // least))
    if n_seq > 1:
        yield _setup(target, n_ctx, kv_types[-1], 1, mapped)


def _setup(
    target: TargetDevice, n_ctx: int, kv_type: KvType, n_seq: int, mapped: bool
) -> WorkerSetup:
    return WorkerSetup(
        n_ctx=n_ctx,
        n_seq=n_seq,
        n_prefixes=min(target.n_prefixes, PREFIXES_PER_SEQUENCE * n_seq),
        n_batch=target.n_batch,
        kv_type=kv_type,
        use_mmap=mapped,
        repacked=target.repacked,
        is_drafting=True,
    )


def _fitted(
    entry: Entry, variant: Variant, model: ModelShape, target: TargetDevice, needs: Requirements
) -> Recommendation | Refusal:
    wished: WorkerMemory | None = None
    for setup in setups(model, target, _least_context(entry, target, needs)):
        memory = worker_memory(model, setup)
        if memory.total_bytes <= target.budget_bytes:
            return _choice(entry, variant, model, target, needs, setup, memory, wished)
        wished = wished or memory
    missing = memory.total_bytes - target.budget_bytes
    reason = (
        f"needs {memory.explain()} even with {setup.kv_type} KV, n_ctx {setup.n_ctx} and"
        f" {setup.n_seq} sequence(s); the budget is {target.budget_bytes / _MB:.0f} MB:"
        f" {missing / _MB:.0f} MB are missing"
    )
    return Refusal(entry.id, variant.quant, reason, missing)


def _choice(
    entry: Entry,
    variant: Variant,
    model: ModelShape,
    target: TargetDevice,
    needs: Requirements,
    setup: WorkerSetup,
    memory: WorkerMemory,
    wished: WorkerMemory | None,
) -> Recommendation:
    # Judge speed with the preferred KV type, whichever is used: otherwise more memory could make a model
    # "too slow".
    judged = decode_tokens_per_s(model, target.rates, kv_type=target.kv_types[0], depth=DEPTH)
    wanted = max(READING_TOKENS_PER_S, 1e3 / target.latency_target_ms)
    depth = min(DEPTH, setup.n_ctx)
    rates, kv_type = target.rates, setup.kv_type
    is_fast = judged >= wanted
    return Recommendation(
        model_id=entry.id,
        quant=variant.quant,
        n_ctx=setup.n_ctx,
        kv_type=kv_type,
        n_seq=setup.n_seq,
        n_prefixes=setup.n_prefixes,
        n_batch=setup.n_batch,
        n_threads=target.n_threads,
        use_mmap=setup.use_mmap,
        memory=memory,
        decode_tokens_per_s=decode_tokens_per_s(model, rates, kv_type=kv_type, depth=depth),
        decode_all_tokens_per_s=decode_tokens_per_s(
            model, rates, kv_type=kv_type, depth=depth, n_seq=setup.n_seq
        ),
        prefill_tokens_per_s=prefill_tokens_per_s(model, rates, kv_type=kv_type),
        is_fast_enough=is_fast,
        is_for_domain=needs.domain is not None and needs.domain in entry.domains,
        capability=capability(entry, variant),
        download_bytes=variant.size_bytes or model.weights_bytes,
        reason=_accepted(setup, memory, target, wished, judged, wanted),
    )


def capability(entry: Entry, variant: Variant) -> float:
    """Parameters times the share that the quantization keeps: an order, not a benchmark."""
    shares = mixture(variant.quant, entry.shape.n_embd if entry.shape else 256)
    return entry.n_params * quality(8 * bytes_per_weight(shares)) if shares else 0.0


def _accepted(
    setup: WorkerSetup,
    memory: WorkerMemory,
    target: TargetDevice,
    wished: WorkerMemory | None,
    judged: float,
    wanted: float,
) -> str:
    said = [f"fits: {memory.explain()} of {target.budget_bytes / _MB:.0f} MB"]
    if wished is not None:
        said.append(
            f"{target.kv_types[0]} KV, n_ctx {target.n_ctx} and {target.n_seq} sequence(s) would"
            f" need {wished.total_bytes / _MB:.0f} MB"
        )
    if judged < wanted:
        said.append(f"too slow: {judged:.1f} tokens/s, at least {wanted:.1f} are required")
    if not setup.use_mmap:
        said.append("loaded without memory mapping, since its weights are repacked")
    return "; ".join(said)


def _unsuitable(entry: Entry, needs: Requirements) -> str | None:
    tasks = GENERATING if needs.task in GENERATING else (needs.task,)
    if entry.tools is not None and needs.task == "chat":
        return "it only answers with calls of its own tools"
    if entry.task not in tasks:
        return f"its task is {entry.task}, but {needs.task} is required"
    known = entry.languages
    if needs.language is not None and not {needs.language, "multilingual"} & set(known):
        return f"it speaks {', '.join(known)}, but {needs.language} is required"
    if needs.domain is not None and not {needs.domain, "general"} & set(entry.domains):
        return f"it is for {', '.join(entry.domains)}, but {needs.domain} is required"
    return None


def _least_context(entry: Entry, target: TargetDevice, needs: Requirements) -> int:
    return needs.n_ctx_min or min(entry.n_ctx_min, target.n_ctx)


def _rank(choice: Recommendation) -> tuple[object, ...]:
    return (
        not choice.is_fast_enough,
        not choice.is_for_domain,
        -choice.capability,
        choice.memory.total_bytes,
        choice.model_id,
        choice.quant,
    )


def _nearness(refusal: Refusal) -> tuple[object, ...]:
    missing = refusal.n_missing_bytes
    return (missing is None, missing or 0, refusal.model_id, refusal.quant)

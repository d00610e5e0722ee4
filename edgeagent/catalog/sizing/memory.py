"""Predicts the memory of one worker, to the byte where arithmetic allows it.

    weights    every tensor once; repacked ones (`sizing.repack`) twice if the file is mapped
    KV         layers x KV heads x head width x (keys + values) x cells x bytes of the type. The
               worker keeps sliding-window layers at full size (swa_full), so that prefixes can be
               shared at any length; a window saves no memory here
    state      recurrent layers: float32, for each sequence
    compute    the scratch buffer of llama.cpp's graph and the logits of all outputs
    overhead   interpreter, numpy, bindings, libraries; the vocabulary as llama.cpp holds it
    template   the process that renders chat templates

The formulas of `compute_bytes` follow llama.cpp's graph: the arrays that exist at the same time at its
peak. They were found by comparing the buffers that llama.cpp reports for 60 combinations of shape, batch
and context (version 0.3.36 of the bindings; EPYC with AVX-512, November 2026; deviation 0 to 5%). The
fixed parts were measured there. `scripts/benchmarks/memory.py` prints estimate and measurement side by
side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edgeagent.catalog.sizing.model_shape import ModelShape
from edgeagent.types.engine_config import DRAFT_OUTPUTS, EngineConfig, Task
from edgeagent.types.step_costs import MOST_BESIDE

KvType = Literal["f16", "q8_0", "q4_0"]

# A block of 32 numbers with its scale.
KV_BYTES_PER_VALUE: dict[str, float] = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
KV_BLOCK: dict[str, int] = {"f16": 1, "q8_0": 32, "q4_0": 32}

# A worker with a model of 1 MB, minus its terms below.
BASE_BYTES = 46_000_000
# A token's text in two tables, its merge rule in a third, and 16 bytes in the sampler's arrays.
VOCABULARY_BYTES_PER_TOKEN = 300
TEMPLATE_BYTES = 24_300_000
# CTranslate2: its library, its copy of the vocabulary and its heap.
INT8_BASE_BYTES = 54_000_000
_MB = 1e6


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """How a model is loaded: the values of `EngineConfig` that affect memory.

    `repacked`: the tensor types that the device's llama.cpp repacks. `flash_attention`: the value that
    "auto" has on every CPU.
    """

    n_ctx: int = 4096
    n_seq: int = 8
    n_prefixes: int = 24
    n_batch: int = 512
    kv_type: KvType = "f16"
    flash_attention: bool = True
    use_mmap: bool = True
    repacked: frozenset[str] = frozenset()
    task: Task = "generate"
    is_drafting: bool = False
    prompt_cells: int = 0
    n_prompt_contexts: int = 1  # each with as many cells
    answer_cells: int = 0  # of each of `n_seq` answers
    n_int8_threads: int = 0  # that compute an encoder with CTranslate2

    @classmethod
    def of(cls, config: EngineConfig, repacked: frozenset[str]) -> WorkerSetup:
        """The setup of a worker with this configuration."""
        return cls(
            n_ctx=config.n_ctx,
            n_seq=config.n_seq,
            n_prefixes=config.n_prefixes,
            n_batch=config.n_batch,
            kv_type=config.kv_type,
            flash_attention=config.flash_attention != "off",
            use_mmap=config.use_mmap,
            repacked=repacked,
            task=config.task,
            is_drafting=config.is_drafting,
            prompt_cells=config.n_prompt_cells,
            n_prompt_contexts=max(1, config.n_prompt_threads),
            answer_cells=config.n_answer_cells,
            n_int8_threads=config.n_threads if config.int8_kernels is not None else 0,
        )

    @property
    def n_step(self) -> int:
        """Tokens of the largest step: a text to embed or rank is computed in one piece."""
        return self.n_batch if self.task == "generate" else max(self.n_batch, self.n_ctx)

    @property
    def n_cells(self) -> int:
        """KV cells that a step may attend to; for embeddings, only those of the step itself."""
        return self.n_ctx if self.task == "generate" else self.n_step

    @property
    def n_outputs(self) -> int:
        """Rows of logits that llama.cpp allocates: for embeddings one per token, although an encoder never
        fills them."""
        if self.task != "generate":
            return self.n_step
        n_ids = self.n_seq + self.n_prefixes + 1  # one spare id for moving cells
        n_drafting = self.n_seq + DRAFT_OUTPUTS if self.is_drafting else 0
        return min(self.n_batch, max(n_ids, n_drafting))


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Resident bytes of one worker and its template process, by purpose.

    `weights_bytes` counts weights twice that are stored twice; `repacked_bytes` is the second copy. When
    memory is short, the kernel can drop the mapped originals at no cost, since they are not read again.
    """

    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    overhead_bytes: int
    template_bytes: int
    repacked_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return (
            self.weights_bytes
            + self.kv_bytes
            + self.compute_bytes
            + self.overhead_bytes
            + self.template_bytes
        )

    def explain(self) -> str:
        """The arithmetic on one line, in MB (10^6 bytes)."""
        twice = f" ({self.repacked_bytes / _MB:.0f} of it twice)" if self.repacked_bytes else ""
        return (
            f"{self.total_bytes / _MB:.0f} MB = weights {self.weights_bytes / _MB:.0f}{twice}"
            f" + KV {self.kv_bytes / _MB:.0f} + compute {self.compute_bytes / _MB:.0f}"
            f" + overhead {self.overhead_bytes / _MB:.0f}"
            f" + template {self.template_bytes / _MB:.0f}"
        )


def worker_memory(model: ModelShape, setup: WorkerSetup) -> WorkerMemory:
    """The memory of a worker that has loaded `model` with `setup` and has run one full step."""
    if setup.n_int8_threads:
        return _int8_memory(model, setup)
    twice, once = repacked_bytes(model, setup.repacked)
    # Not where a state cannot be cut: recurrent models, and those with a sliding window.
    can_cut = not model.state_width and model.n_caches == 1
    n_own = setup.prompt_cells if setup.task == "generate" and can_cut else 0
    apart = replace(setup, n_ctx=n_own, n_prefixes=0, is_drafting=False)
    beside = replace(apart, n_batch=min(setup.n_batch, MOST_BESIDE))
    n_more = setup.n_prompt_contexts - 1 if n_own else 0
    n_streamed = setup.answer_cells * setup.n_seq if setup.task == "generate" and can_cut else 0
    streams = replace(setup, n_ctx=n_streamed, n_batch=setup.n_outputs)
    copies = twice if setup.use_mmap else 0
    return WorkerMemory(
        weights_bytes=model.weights_bytes + copies + once,
        kv_bytes=kv_bytes(model, setup)
        + (1 + n_more) * (kv_bytes(model, apart) if n_own else 0)
        + kv_bytes(model, streams),
        compute_bytes=compute_bytes(model, setup)
        + (compute_bytes(model, apart) if n_own else 0)
        + (n_more * compute_bytes(model, beside) if n_more else 0)
        + (compute_bytes(model, streams) if n_streamed else 0),
        overhead_bytes=BASE_BYTES + VOCABULARY_BYTES_PER_TOKEN * model.n_vocab,
        template_bytes=TEMPLATE_BYTES if model.has_template and setup.task == "generate" else 0,
        repacked_bytes=copies + once,
    )


def _int8_memory(model: ModelShape, setup: WorkerSetup) -> WorkerMemory:
    """An encoder with matrices of 8-bit integers. Each thread computes a text of its own, with the scores of
    its attention, twice; the file's own weights leave memory when the integers are made."""
    per_token = 4 * (4 * model.n_embd + 3 * model.n_ff) + 8 * model.n_head * setup.n_ctx
    return WorkerMemory(
        weights_bytes=model.n_params,
        kv_bytes=0,
        compute_bytes=setup.n_int8_threads * setup.n_ctx * per_token,
        overhead_bytes=BASE_BYTES + INT8_BASE_BYTES + VOCABULARY_BYTES_PER_TOKEN * model.n_vocab,
        template_bytes=0,
    )


def repacked_bytes(model: ModelShape, repacked: frozenset[str]) -> tuple[int, int]:
    """Bytes that are copied when repacking: (matrices, a tied output).

    The matrices replace their originals unless those stay mapped. The tied output is always a second copy,
    because the token table itself is still used for lookups.
    """
    if not repacked:
        return 0, 0
    of_types = sum(size for kind, size in model.bytes_by_type.items() if kind in repacked)
    if model.embedding_type not in repacked:
        return of_types, 0
    matrices = max(0, of_types - model.embedding_bytes)
    return matrices, model.embedding_bytes if model.is_tied else 0


def kv_bytes_per_cell(model: ModelShape, kv_type: str) -> float:
    """Bytes of keys and values of one token position, over all layers."""
    return model.kv_width * KV_BYTES_PER_VALUE[kv_type]


def kv_bytes(model: ModelShape, setup: WorkerSetup) -> int:
    """All cells, and the recurrent state of the sequences, if any (such models keep no idle prefixes)."""
    if setup.task != "generate":  # llama.cpp's default type, for the cells of one step
        return int(setup.n_cells * kv_bytes_per_cell(model, "f16")) if model.has_cache else 0
    cells = setup.n_ctx * kv_bytes_per_cell(model, setup.kv_type)
    return int(cells) + 4 * model.state_width * setup.n_seq


def compute_bytes(model: ModelShape, setup: WorkerSetup) -> int:
    """Scratch memory of one full step, and the buffer for returning logits.

    At its peak the graph holds, for each token of the step, four arrays of the embedding's width and three
    of the feed-forward's, all float32, and a float16 mask over the cells for each cache. Without flash
    attention, the scores of every head over all cells are the largest instead. For small steps the logits
    of all outputs exceed both.
    """
    per_token = 4 * (4 * model.n_embd + 3 * model.n_ff)
    masks = 2 * model.n_caches * setup.n_cells
    widest = setup.n_step * (per_token + masks)
    if not setup.flash_attention:
        scores = 4 * setup.n_cells * (model.n_head + model.n_caches)
        widest = max(widest, setup.n_step * (scores + 4 * 6 * model.n_embd))
    logits = 4 * setup.n_outputs * model.n_vocab
    inputs = 4 * setup.n_step * model.n_embd
    if not model.has_cache:  # encoders have no output matrix
        return widest + logits
    return max(widest, logits + inputs) + logits

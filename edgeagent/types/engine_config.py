"""How a worker loads a model, and what it reports about itself."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeagent.types.histogram import Histogram
from edgeagent.types.step_costs import StepCosts
from edgeagent.types.worker_config import WorkerConfig, WorkerFacts, WorkerHealth

# What a worker does with its model: continue texts, turn each into one vector, or say of each how well it
# answers a question.
Task = Literal["generate", "embed", "rerank", "transcribe"]


# Functions of CTranslate2 beside the products of integers.
Int8Kernels = Literal["avx512", "default"]

# Logits that a step can have at least beside one for each sequence, where tokens are drafted.
DRAFT_OUTPUTS = 12


class EngineFacts(WorkerFacts, frozen=True, kw_only=True):
    """What an engine worker reports once its model is loaded. Sizes in bytes.

    `bos_token`, `eos_token` and `chat_template` are texts of the vocabulary and of the file.
    `adapters` are those that were loaded. `state_kind`: what the state of cached tokens depends on beside
    the model; None: it cannot be had.
    """

    description: str
    n_params: int
    n_vocab: int
    n_ctx: int
    n_ctx_slot: int
    n_ctx_train: int
    n_seq: int
    n_threads: int
    weights_bytes: int
    kv_bytes: int
    has_chat_template: bool
    can_share_prefix: bool
    task: Task = "generate"
    state_kind: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    chat_template: str | None = None
    adapters: tuple[str, ...] = ()


class EngineHealth(WorkerHealth, frozen=True, kw_only=True):
    """The last heartbeat of an engine worker: cells of the KV cache in use, cached prefixes, preemptions,
    and the seconds between two tokens of an answer since its start. `n_drafted` tokens were computed before
    they were drawn; `n_accepted` of them were drawn then."""

    n_cells_used: int = 0
    n_cells: int = 0
    n_idle_prefixes: int = 0
    n_preempted: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    token_gaps: Histogram = Histogram()


# A state of a file: device, inode, size in bytes, mtime and ctime in nanoseconds.
FileIdentity = tuple[int, int, int, int, int]


class AdapterFile(msgspec.Struct, frozen=True):
    """A LoRA adapter of a model: its id, its file, and the state of the file that was found good. One with a
    `problem` is not loaded."""

    id: str
    path: str
    identity: FileIdentity | None = None
    problem: str = ""


class EngineConfig(WorkerConfig, frozen=True, kw_only=True):
    """How to load one model into an engine worker.

    `n_ctx` cells are shared by `n_seq` running sequences; `n_prefixes` more sequences may stay cached
    while idle. `step_budget_ms` bounds how long one prompt chunk may hold up running answers;
    `step_costs` are those measured for this model on this device, `prefill_tok_s` a rate where they were
    not; with `measures_steps` the worker measures them while it is idle. `reproducible` stores values in
    bf16: see `engine.llama.BF16`. `adapts_threads`: use fewer threads than allowed where that is measured
    to be faster. `speculation` "auto": compute likely tokens ahead where that is measured to pay; not where
    texts are `reproducible`. `cells_on_demand`: take memory for KV cells once they are used, make the
    contexts of the next settings when the first request has ended or a second one runs, and give back what
    these took when nothing has run for a moment. `prompt_cells`:
    KV cells of a context in which prompts are computed apart from running answers; 0: none. `prompts_beside`:
    on threads of their own, where there are few. `answer_cells`: KV cells of each running answer apart from
    the others; 0: none. With `smooth_streams` the daemon passes tokens of one step on one after another.
    `identity` is the state of the file that was found good, None for any; with `is_inspected` its header was,
    too. `adapters` are loaded with the model, and each request may name one. For the tasks "embed" and
    "rerank" `n_ctx` is the longest text and `n_seq` the most texts of a step. `int8_kernels`: it is computed
    with 8-bit integers by CTranslate2, with its functions for AVX-512 or with those that it chooses; None: as
    its file says, by llama.cpp.
    """

    identity: FileIdentity | None = None
    is_inspected: bool = False
    adapters: tuple[AdapterFile, ...] = ()
    task: Task = "generate"
    n_ctx: int = 4096
    n_seq: int = 8
    n_prefixes: int = 24
    n_batch: int = 512
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    step_budget_ms: float = 150.0
    stream_interval_ms: float = 5.0
    smooth_streams: bool = True
    queue_limit: int = 64
    queue_timeout_s: float = 60.0
    default_max_tokens: int = 1024
    template_timeout_s: float = 2.0
    grammar_timeout_s: float = 2.0
    chat_template: str | None = None
    use_mmap: bool = True
    repack: bool = True
    reproducible: bool = False
    adapts_threads: bool = True
    prefill_tok_s: float | None = None
    step_costs: StepCosts | None = None
    measures_steps: bool = False
    speculation: Literal["auto", "off"] = "off"
    cells_on_demand: bool = False
    prompt_cells: int = 0
    prompts_beside: bool = True
    answer_cells: int = 0
    int8_kernels: Int8Kernels | None = None

    @property
    def n_prompt_cells(self) -> int:
        """As many of `prompt_cells` as there are: a quarter of all cells at most, and none where no other
        sequence runs."""
        is_able = self.task == "generate" and not self.reproducible and self.n_seq > 1
        return min(self.prompt_cells, self.n_ctx // 4) // 256 * 256 if is_able else 0

    @property
    def n_answer_cells(self) -> int:
        """As many of `answer_cells` as there are for each of `n_seq` answers: all of `n_ctx` at most."""
        is_able = self.task == "generate" and not self.reproducible and self.n_seq > 1
        return min(self.answer_cells, self.n_ctx // self.n_seq) // 256 * 256 if is_able else 0

    @property
    def n_prompt_threads(self) -> int:
        """Threads that compute prompts beside answers, each with `n_prompt_cells` cells: none where more than
        a few compute, of which one alone would let a prompt wait too long."""
        return 2 if self.n_prompt_cells and self.prompts_beside and self.n_threads in (2, 3) else 0

    @property
    def is_drafting(self) -> bool:
        """Whether tokens may be computed before they are drawn."""
        return self.speculation == "auto" and not self.reproducible

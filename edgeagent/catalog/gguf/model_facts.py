"""The facts of a model file that edgeagent needs before loading it: plain data.

`model_facts_reader.inspect` reads them from the file; the daemon uses a child process for that
(`inspection`).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.types.engine_config import Task


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model as described by its file. Lengths are counts of numbers, sizes are bytes.

    `n_head` and `n_head_kv` have one value per layer, 0 for a layer without attention. `key_length` and
    `value_length` are the width of one head. `output_type` None: the token table (`embedding_*`) is also
    the output matrix. `expert_*` count the experts of all layers. `state_width` is the number of float32
    values that recurrent layers keep for each sequence.
    """

    architecture: str
    name: str | None
    n_layers: int
    n_embd: int
    n_head: tuple[int, ...]
    n_head_kv: tuple[int, ...]
    key_length: int | None
    value_length: int | None
    n_ff: tuple[int, ...]
    n_ctx_train: int
    n_vocab: int | None
    n_expert: int
    n_expert_used: int
    sliding_window: int | None
    rope: dict[str, bool | int | float | str]
    quant: str | None
    n_params: int
    weights_bytes: int
    bytes_by_type: dict[str, int]
    embedding_type: str | None
    embedding_bytes: int
    output_type: str | None
    output_bytes: int
    expert_params: int
    expert_bytes: int
    state_width: int
    file_bytes: int
    tokenizer: str | None
    pre_tokenizer: str | None
    bos_id: int | None
    eos_id: int | None
    pooling: str | None
    has_chat_template: bool
    template_sha256: str | None

    @property
    def task(self) -> Task:
        """The kind of output that the file declares: one vector per text, one score, or the next token."""
        if self.pooling is None or self.pooling == "none":
            return "generate"
        return "rerank" if self.pooling == "rank" else "embed"

    def header(self) -> dict[str, str | int | float | None]:
        """Fields of the file's header, under the names that they have there."""
        name = self.architecture
        return {
            "general.architecture": name,
            "general.parameter_count": self.n_params,
            "general.name": self.name,
            f"{name}.block_count": self.n_layers,
            f"{name}.context_length": self.n_ctx_train,
            f"{name}.embedding_length": self.n_embd,
            f"{name}.attention.head_count": max(self.n_head, default=0),
            f"{name}.attention.head_count_kv": max(self.n_head_kv, default=0),
            f"{name}.vocab_size": self.n_vocab,
            "tokenizer.ggml.model": self.tokenizer,
        }

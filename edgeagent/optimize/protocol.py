"""The messages between a command and the worker that scores texts with one model.

A request is answered by one `Result`, whose value is one of the structs below. Arrays travel as their bytes,
little-endian: `int32` for tokens, `float32` for numbers.
"""

from __future__ import annotations

import msgspec

from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.worker_config import WorkerFacts, WorkerHealth
from edgeagent.worker.protocol import (
    Cancel,
    Heartbeat,
    Load,
    LoadFailure,
    Ready,
    Refusal,
    Result,
    SetLimits,
    Shutdown,
)


class ScoringConfig(EngineConfig, frozen=True, kw_only=True):
    """How to load one model for scoring: one sequence of `n_ctx` tokens.

    Without `is_scoring` the worker only times, and its memory is that of serving: logits of half a chunk
    would take 50 MB more with 49,152 tokens. With `is_open` its weights lie in memory of their own and may be
    altered, and the activations of its matrices may be read.
    """

    n_ctx: int = 512
    n_seq: int = 1
    n_prefixes: int = 0
    is_scoring: bool = True
    is_open: bool = False


class ScoringFacts(WorkerFacts, frozen=True, kw_only=True):
    """What the worker reports once its model is loaded. `bos` is set where texts begin with it."""

    n_vocab: int
    n_params: int
    n_ctx_train: int
    weights_bytes: int
    rss_bytes: int
    bos: int | None


# --- from the command


class TokenizeText(msgspec.Struct, frozen=True, tag="tokenize_text"):
    """Split a text into tokens. With `special`, names of special tokens in it are recognised."""

    request_id: int
    text: str
    special: bool


class ScoreChunk(msgspec.Struct, frozen=True, tag="score_chunk"):
    """Score the second half of a chunk of tokens.

    `n_top`: also return that many of the most probable tokens of each position, and `n_tail` tokens drawn
    from the others by their probability, from `seed`; a vocabulary of up to `n_top` is returned whole.
    `ids`, int32 [n_scored, n_ids]: return the log-probabilities of these tokens instead.
    """

    request_id: int
    tokens: bytes
    n_top: int = 0
    n_tail: int = 0
    seed: int = 0
    ids: bytes = b""


class TimeRun(msgspec.Struct, frozen=True, tag="time_run"):
    """Time a prompt of `n_prompt` tokens, and `n_decode` tokens one by one after it."""

    request_id: int
    n_prompt: int
    n_decode: int


class CollectImportance(msgspec.Struct, frozen=True, tag="collect_importance"):
    """Decode a chunk of tokens and return how large the activations of each matrix were. Needs `is_open`.

    `endings`: only of matrices whose names end like this; empty: of all.
    """

    request_id: int
    tokens: bytes
    endings: tuple[str, ...] = ()


class SetImportance(msgspec.Struct, frozen=True, tag="set_importance"):
    """The weights of the columns of each matrix, float32, for `AlterWeights` and `RoundingErrors`."""

    request_id: int
    columns: dict[str, bytes]


class AlterWeights(msgspec.Struct, frozen=True, tag="alter_weights"):
    """Round these matrices to tensor types ("ZERO": to zeros), and give all others what the file has.

    `zero_columns`: columns of matrices, int32, that are set to zeros. `plain`: matrices that are rounded
    without the importance of their columns. Needs `is_open`.
    """

    request_id: int
    types: dict[str, str]
    zero_columns: dict[str, bytes] = {}
    plain: tuple[str, ...] = ()


class RoundingErrors(msgspec.Struct, frozen=True, tag="rounding_errors"):
    """How far a matrix is from its rounding to each of some types, by every `stride`-th row."""

    request_id: int
    name: str
    types: tuple[str, ...]
    stride: int = 1


class RenderChat(msgspec.Struct, frozen=True, tag="render_chat"):
    """Write messages (role, content) out by the chat template of the model."""

    request_id: int
    messages: tuple[tuple[str, str], ...]


# --- from the worker


class Tokens(msgspec.Struct, frozen=True, tag="tokens"):
    """The tokens of a text, int32 [n]."""

    ids: bytes


class ChunkScores(msgspec.Struct, frozen=True, tag="chunk_scores"):
    """Scores of one chunk, one row for each of n_scored positions.

    `nll` float32 [n_scored]: negative log-likelihood of the token that follows. `best` int32 [n_scored]: the
    most probable token. `ids` int32 [n_scored, n_top + n_tail]: the tokens that were asked for by number.
    `logp` float32 [n_scored, n_ids]: log-probabilities of those, or of the ids that were sent.
    """

    nll: bytes
    best: bytes
    ids: bytes
    logp: bytes


class RunTimes(msgspec.Struct, frozen=True, tag="run_times"):
    """Seconds of one timed run: the whole prompt, then each token after the first."""

    prefill_s: float
    decode_s: tuple[float, ...]
    rss_bytes: int


class ActivationSums(msgspec.Struct, frozen=True, tag="activation_sums"):
    """For each matrix: the sums of its squared activations by column, float32, and over how many rows."""

    columns: dict[str, bytes]
    n_rows: dict[str, int]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The request was carried out."""


class Errors(msgspec.Struct, frozen=True, tag="errors"):
    """For each type: the sum of squared errors, weighted by the columns' importance, when the matrix is
    rounded with that importance (`errors`) and without it (`plain`); the unweighted squared error relative to
    the squared weights, of the better of the two; and the same of the type on normal random numbers
    (`grids`)."""

    errors: tuple[float, ...]
    plain: tuple[float, ...]
    relative: tuple[float, ...]
    grids: tuple[float, ...]


class ChatText(msgspec.Struct, frozen=True, tag="chat_text"):
    """Messages as the model's template writes them."""

    text: str


ToWorker = (
    Load[ScoringConfig]
    | TokenizeText
    | ScoreChunk
    | TimeRun
    | CollectImportance
    | SetImportance
    | AlterWeights
    | RoundingErrors
    | RenderChat
    | Cancel
    | SetLimits
    | Shutdown
)
Reply = Tokens | ChunkScores | RunTimes | ActivationSums | Done | Errors | ChatText
ToCommand = Ready[ScoringFacts] | LoadFailure | Result[Reply] | Refusal | Heartbeat[WorkerHealth]

decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_command = msgspec.msgpack.Decoder(ToCommand).decode

"""Plain data that more than one floor speaks of: what to generate, and what came out."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

from edgeagent.types.intents import Confidence, IntentQuestion
from edgeagent.types.worker import WorkerConfig, WorkerFacts, WorkerHealth

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]
# What a worker does with its model: continue texts, turn each into one vector, or say of each how well it
# answers a question.
Task = Literal["generate", "embed", "rerank"]

KeyScope = Literal["chat", "transcribe", "embeddings", "models", "data", "admin"]
ALL_SCOPES: frozenset[KeyScope] = frozenset(get_args(KeyScope))


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one API key may use; None is no bound. `tokens_per_minute` counts prompt and answer."""

    requests_per_minute: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    tokens_per_minute: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a request. `key_id` names the key, `owner` whose rows it sees; `tools` None is any."""

    key_id: str
    owner: str
    scopes: frozenset[KeyScope]
    limits: KeyLimits = KeyLimits()
    tools: frozenset[str] | None = None
    is_break_glass: bool = False


# Whoever is on this machine, as long as no key has been made.
LOCAL = Caller(key_id="local", owner="local", scopes=ALL_SCOPES)


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is drawn.

    Filters apply in this order: logit_bias, penalties, top_k, typical_p, top_p, min_p, temperature,
    draw. `temperature` 0 takes the most probable token. `top_k` 0 means no cut by rank. `seed` None
    draws a fresh one. Repetition is counted over the last `repeat_last_n` tokens, prompt included;
    presence and frequency over the generated tokens, as OpenAI documents them.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = msgspec.field(default_factory=dict)
    seed: int | None = None


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What to continue: exactly one of `messages` (rendered by the model's template), `text`, `tokens`.

    With a `suffix` the answer is what stands between `text` and it, where the vocabulary can say so.
    A `text` beside `messages` is for a model without a template. `prefill` is how the answer to
    `messages` begins: it is continued, and not said again.
    `variables` are what else the template is told, beside messages and tools. Of one that `may_drop`, the
    oldest turns are left out where all do not fit.
    `before` are token ids that stand in front of `messages` or `text`: what was said and answered before.
    `opens_answer`: the template is to end the prompt with the opening of an answer.
    Names of special tokens in what a client sent are text; with `parse_special` those in a `text` without
    `messages` are the tokens.
    """

    messages: list[dict[str, Any]] | None = None
    text: str | None = None
    tokens: list[int] | None = None
    suffix: str | None = None
    before: list[int] = msgspec.field(default_factory=list)
    prefill: str = ""
    variables: dict[str, Any] = msgspec.field(default_factory=dict)
    parse_special: bool = False
    may_drop: bool = False
    opens_answer: bool = True


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must look like. `text` is a JSON schema as JSON, a regular expression or a Lark
    grammar. A schema that is not `is_strict` is enforced as far as it can be."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str
    is_strict: bool = False


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that a model may ask to be called; `parameters` is the JSON schema of its arguments, an
    empty one that of a function without any. One that is not `is_strict` is enforced as far as it can be."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    is_strict: bool = False


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of one request. `choice` "required" makes the answer a call, `name` one call of that
    tool; without `is_parallel` there is one call at most. Where none may be called, there is no `ToolUse`.
    One without tools means those of the model itself."""

    tools: list[Tool]
    choice: Literal["auto", "required"] = "auto"
    name: str | None = None
    is_parallel: bool = True


class GenerateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One request to one engine: `n` answers to each prompt, numbered prompt by prompt.

    Answer i draws with `seed + i`. `max_tokens` None means the engine's default; `scope` names whose
    cached prefixes may be shared. With a `form` an answer ends when it is whole, `ignore_eos` or not.
    `logprobs` asks for the log-probability of each token and that many of the most probable beside it;
    with `scores_prompt` those of the prompts' own tokens come too, and `max_tokens` may be 0.
    Of waiting requests a higher `priority` is served first; it rises while a request waits.
    With `intent_question` an answer is one of the calls on offer, and nothing else counts.
    With `clamps`, a `max_tokens` for which the context has no room becomes what there is room for.
    With `tells_tokens` each answer ends with the ids of its prompt's tokens and its own.
    """

    prompts: list[Prompt]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    clamps: bool = False
    stop: list[str] = msgspec.field(default_factory=list)
    n: int = 1
    scope: str = ""
    ignore_eos: bool = False
    form: Form | None = None
    tools: ToolUse | None = None
    logprobs: int | None = None
    scores_prompt: bool = False
    priority: int = 0
    intent_question: IntentQuestion | None = None
    tells_tokens: bool = False

    @property
    def n_answers(self) -> int:
        return self.n * len(self.prompts)


class EmbedSpec(msgspec.Struct, frozen=True, kw_only=True, tag="embed"):
    """Texts to turn into vectors; token ids are taken as they are. `dimensions` keeps the first numbers
    of each vector; `truncate` cuts a text that is too long instead of refusing it."""

    inputs: list[str | list[int]]
    dimensions: int | None = None
    truncate: bool = False


class RerankSpec(msgspec.Struct, frozen=True, kw_only=True, tag="rerank"):
    """Documents to compare with a query. Of each, `max_tokens` at most are read; `truncate` cuts one that
    does not fit beside the query instead of refusing it."""

    query: str
    documents: list[str]
    max_tokens: int | None = None
    truncate: bool = False


class TokenizeSpec(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    """A text to cut into tokens. `add_special` adds those that the model puts around every text,
    `parse_special` takes the names of special tokens in the text for those tokens."""

    text: str
    add_special: bool = False
    parse_special: bool = True


class DetokenizeSpec(msgspec.Struct, frozen=True, kw_only=True, tag="detokenize"):
    """Token ids to turn back into text."""

    tokens: list[int]


class CountSpec(msgspec.Struct, frozen=True, kw_only=True, tag="count"):
    """A request whose prompts are made as they would be for an answer, and counted in tokens."""

    request: GenerateSpec


class TemplateSpec(msgspec.Struct, frozen=True, tag="template"):
    """What the model's chat template can show of a dialogue."""


class HeldSpec(msgspec.Struct, frozen=True, tag="held"):
    """Which tokens of an ended request are cached."""

    request_id: int


class LiftSpec(msgspec.Struct, frozen=True, tag="lift"):
    """The state of its positions [first, last)."""

    request_id: int
    first: int
    last: int


class CachedSpec(msgspec.Struct, frozen=True, tag="cached"):
    """How many of these tokens, from the first on, are cached for a scope: int32 [n]."""

    scope: str
    tokens: bytes


class PlaceSpec(msgspec.Struct, frozen=True, kw_only=True, tag="place"):
    """A state to cache for a scope: `data` is that of the positions of `tokens` (int32 [n]) from
    `first` on; those before must be cached."""

    scope: str
    tokens: bytes
    first: int
    data: bytes


# What is asked of a worker and answered at once, in one piece.
StateQuestion = HeldSpec | LiftSpec | CachedSpec | PlaceSpec
Question = (
    EmbedSpec
    | RerankSpec
    | TokenizeSpec
    | DetokenizeSpec
    | CountSpec
    | TemplateSpec
    | StateQuestion
)

# Whose chat template it is: the model's own, one that was installed with it, or ours for its family, in
# place of one that is missing or broken.
TemplateSource = Literal["model", "installed", "built-in"]


class TemplateFacts(msgspec.Struct, frozen=True, kw_only=True, tag="template_facts"):
    """What a chat template can show of a dialogue. Requests are adapted to what it cannot.

    `source` None: there is none, and `problem` says what is wrong with the model's own. `late_system`: a
    system message behind others; `neighbours`: two messages of one role in a row; `prefill`: an answer
    can be continued; `thinking`: the model can be told not to reason; `reasoning`: it has markers for it.
    `insert` tells of the vocabulary: it marks a gap to be filled in.
    """

    source: TemplateSource | None = None
    call_syntax: str = "plain"
    system: bool = False
    late_system: bool = False
    neighbours: bool = False
    assistant_first: bool = False
    tools: bool = False
    tool_results: bool = False
    thinking: bool = False
    prefill: bool = False
    reasoning: bool = False
    insert: bool = False
    problem: str | None = None

    @property
    def can_chat(self) -> bool:
        """Whether chats are answered at all: by the model's own template or by one in its place."""
        return self.source is not None and (self.problem is None or self.source == "built-in")


class Cells(msgspec.Struct, frozen=True, kw_only=True, tag="cells"):
    """An answer about cached tokens, by the question: `n` of them are cached, or `n` bytes hold one."""

    n: int
    tokens: bytes = b""
    data: bytes = b""


class Vectors(msgspec.Struct, frozen=True, kw_only=True, tag="vectors"):
    """One vector of length 1 for each input: float32 little-endian [n_inputs, n_dimensions] in `data`.

    `n_prompt` counts the tokens that were computed, those that the model adds included.
    """

    n_dimensions: int
    data: bytes
    n_prompt: int
    queue_ms: float
    total_ms: float


class Scores(msgspec.Struct, frozen=True, kw_only=True, tag="scores"):
    """How relevant each document is, 0..1, in the order of the documents. `n_prompt` counts the tokens that
    were computed: the query's once for each document."""

    values: list[float]
    n_prompt: int
    queue_ms: float
    total_ms: float


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts and times of one answer. `n_cached` of the `n_prompt` tokens came from the KV cache,
    `n_reasoning` of the `n_generated` were a reasoning section."""

    n_prompt: int
    n_cached: int
    n_generated: int
    queue_ms: float
    ttft_ms: float
    total_ms: float
    n_reasoning: int = 0


class PromptFacts(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a request before its first token: the tokens of its prompts, how many of them were
    found in the KV cache, and what had to give way so that they fit: `max_tokens` is the length of an
    answer where that is less than was asked for, `n_dropped` messages were left out."""

    n_prompt: int
    n_cached: int = 0
    max_tokens: int | None = None
    n_dropped: int = 0


class CallDelta(msgspec.Struct, frozen=True, array_like=True):
    """A piece of tool call number `call` of an answer. The first piece of each has its `name`; all
    `arguments` of one call together are a JSON object."""

    call: int
    arguments: str = ""
    name: str | None = None


class CallText(msgspec.Struct, frozen=True):
    """A whole call, for a client that is told of it in words."""

    name: str
    arguments: dict[str, Any]


class TopLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token, as the bytes it stands for, and its natural log-probability."""

    piece: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token, and the most probable ones in its place, falling. `logprob` None: it is the first of all."""

    piece: bytes
    logprob: float | None
    top: list[TopLogprob] = []


class SchemaNote(msgspec.Struct, frozen=True, array_like=True):
    """What of a schema an answer was not held to: the `keyword` at `path`, and why. `tool` is None for the
    schema of the answer itself."""

    tool: str | None
    path: str
    keyword: str
    note: str


class TokenChunk(msgspec.Struct, frozen=True, array_like=True):
    """New text of answer `index`. The last chunk of an answer has `finish` and `usage`.

    `finish` "error" comes with `error`, a (code, message) pair. `reasoning` is text of a reasoning
    section, which comes before `text`; `calls` are pieces of tool calls, which come after it. `stop` is
    the stop string that ended the answer. The last chunk of a choice among intents has its `confidence`.
    The first one of an answer whose prompt is scored has the prompt's tokens, `scored`. `told` is the call
    that `text` tells in words. The last one has `notes` of what its schemas ask for and it was not held to,
    and `tokens`, those of prompt and answer, where the request wants them.
    """

    index: int
    text: str
    finish: FinishReason | None = None
    usage: Usage | None = None
    error: tuple[str, str] | None = None
    reasoning: str = ""
    calls: list[CallDelta] = []
    logprobs: list[TokenLogprob] = []
    stop: str | None = None
    confidence: Confidence | None = None
    scored: list[TokenLogprob] = []
    told: CallText | None = None
    notes: list[SchemaNote] = []
    tokens: list[int] = []


class EngineFacts(WorkerFacts, frozen=True, kw_only=True):
    """What an engine worker reports once its model is loaded. Sizes in bytes.

    `bos_token`, `eos_token` and `chat_template` are texts of the vocabulary and of the file.
    `state_kind`: what the state of cached tokens depends on beside the model; None: it cannot be had.
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


class EngineHealth(WorkerHealth, frozen=True, kw_only=True):
    """The last heartbeat of an engine worker: cells of the KV cache in use, cached prefixes, preemptions."""

    n_cells_used: int = 0
    n_cells: int = 0
    n_idle_prefixes: int = 0
    n_preempted: int = 0


# A state of a file: device, inode, size in bytes, mtime and ctime in nanoseconds.
FileIdentity = tuple[int, int, int, int, int]


class EngineConfig(WorkerConfig, frozen=True, kw_only=True):
    """How to load one model into an engine worker.

    `n_ctx` cells are shared by `n_seq` running sequences; `n_prefixes` more sequences may stay cached
    while idle. `step_budget_ms` bounds how long one prompt chunk may hold up running answers;
    `prefill_tok_s` is what this device was measured to do, where it was. `reproducible` stores values
    in bf16: see `engine.llama.BF16`. `identity` is the state of the file that was found good, None for
    any. For the tasks "embed" and "rerank" `n_ctx` is the longest text and `n_seq` the most texts of one
    step.
    """

    identity: FileIdentity | None = None
    task: Task = "generate"
    n_ctx: int = 4096
    n_seq: int = 8
    n_prefixes: int = 24
    n_batch: int = 512
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    step_budget_ms: float = 150.0
    stream_interval_ms: float = 20.0
    queue_limit: int = 64
    queue_timeout_s: float = 60.0
    default_max_tokens: int = 1024
    template_timeout_s: float = 2.0
    grammar_timeout_s: float = 2.0
    chat_template: str | None = None
    use_mmap: bool = True
    repack: bool = True
    reproducible: bool = False
    prefill_tok_s: float | None = None


class PrefillDecode(msgspec.Struct, frozen=True, array_like=True):
    """Prompt tokens per second, and generated tokens per second, under one choice."""

    prefill_tok_s: float
    decode_tok_s: float


MEASURED_STEPS = 16
MEASURED_DEPTH = 256


class ModelMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one model ran on this device. Rates in tokens per second.

    `decode_tok_s` by thread count over the first `MEASURED_STEPS`, `n_threads` the best of them;
    `batch_curve` has T(k)/T(1) of a step with k sequences; `prefill_tok_s` by chunk size; `options` by the
    name of a choice ("kv q8_0"): a prompt of `MEASURED_DEPTH` tokens and decoding after it.
    """

    model: str
    weights_bytes: int
    n_params: int
    n_threads: int
    decode_tok_s: dict[int, float]
    batch_curve: dict[int, float]
    prefill_tok_s: dict[int, float]
    options: dict[str, PrefillDecode]

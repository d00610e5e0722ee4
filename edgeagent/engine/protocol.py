"""The messages between the daemon and an engine worker, beside those of every worker (`worker/protocol.py`).

The daemon sends `Generate` and `Ask`. The worker answers a `Generate` with `Prepared` and with chunks in
`Step`, one frame for all sequences of a step; it answers an `Ask` with one `Result`.
"""

from __future__ import annotations

import msgspec

from edgeagent.types.answer import PromptFacts, TokenChunk
from edgeagent.types.engine_config import EngineConfig, EngineFacts, EngineHealth
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.kv_state import Cells
from edgeagent.types.step_costs import StepCosts
from edgeagent.types.template import TemplateFacts
from edgeagent.types.unary_requests import Question, Scores, Vectors
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

__all__ = [
    "Ask", "Cancel", "ForgetPrefixes", "Generate", "Heartbeat", "Load", "LoadFailure", "Prepared", "Ready",
    "Refusal", "Result", "SetLimits", "Shutdown", "Step", "StepsMeasured", "ToDaemon", "ToWorker",
    "decode_to_daemon", "decode_to_worker",
]  # fmt: skip


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    request_id: int
    spec: GenerateSpec


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """A question that one `Result` answers, or one `Refusal`."""

    request_id: int
    question: Question


class ForgetPrefixes(msgspec.Struct, frozen=True, tag="forget_prefixes"):
    """Drop what is cached of ended requests of one scope, or of all (None)."""

    scope: str | None = None


class Prepared(msgspec.Struct, frozen=True, tag="prepared"):
    """Facts of a request, sent when its prompts are tokenized and again when the first of them starts."""

    request_id: int
    facts: PromptFacts


class Step(msgspec.Struct, frozen=True, tag="step", omit_defaults=True):
    """The new chunks of every sequence after one step: (request id, chunk) pairs. `core`: of the thread that
    leads steps, -1 if unknown."""

    chunks: list[tuple[int, TokenChunk]]
    core: int = -1


class StepsMeasured(msgspec.Struct, frozen=True, tag="steps_measured"):
    """What steps cost, measured once while the worker was idle."""

    costs: StepCosts


# By the question: vectors, scores, cells, facts of the template, the tokens of a text, the text of tokens,
# or a number of tokens.
Answer = Vectors | Scores | Cells | TemplateFacts | list[int] | str | int

ToWorker = Load[EngineConfig] | Generate | Ask | Cancel | SetLimits | ForgetPrefixes | Shutdown
ToDaemon = (
    Ready[EngineFacts]
    | LoadFailure
    | Prepared
    | Step
    | StepsMeasured
    | Result[Answer]
    | Refusal
    | Heartbeat[EngineHealth]
)

decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_daemon = msgspec.msgpack.Decoder(ToDaemon).decode

from __future__ import annotations

import pytest

from edgeagent.engine import protocol
from edgeagent.types.answer import TokenChunk, Usage
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.worker import frames

USAGE = Usage(3, 1, 2, 0.1, 0.2, 0.3)
SPEC = GenerateSpec(prompts=[Prompt(text="x")], sampling=Sampling(logit_bias={5: -1.5}, seed=-1))


@pytest.mark.parametrize(
    "message",
    [
        protocol.Generate(1, SPEC),
        protocol.Cancel(7),
        protocol.Shutdown(),
    ],
)
def test_what_the_daemon_says_arrives_as_it_was(message):
    assert protocol.decode_to_worker(frames.encode(message)[4:]) == message


@pytest.mark.parametrize(
    "message",
    [
        protocol.LoadFailure("gguf_refused", "no"),
        protocol.Step([(1, TokenChunk(0, "é")), (2, TokenChunk(1, "", "stop", USAGE))]),
        protocol.Step([(1, TokenChunk(0, "", "error", USAGE, ("engine_failed", "x")))]),
        protocol.Refusal(3, "queue_full", "full", None, 2.5),
    ],
)
def test_what_the_worker_says_arrives_as_it_was(message):
    assert protocol.decode_to_daemon(frames.encode(message)[4:]) == message

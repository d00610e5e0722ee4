"""A model that says what it is told to, with a real vocabulary: everything but the weights is real."""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from edgeagent.engine.batching.engine import Engine
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.batching.speculation import Speculation
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.llama.sampler_chain import Candidates
from edgeagent.engine.prompt.request_preparation import Intake
from edgeagent.errors import QueueFull
from edgeagent.types.answer import CallDelta, TokenChunk, TokenLogprob, Usage
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.tools import ToolUse
from tests.engine.fakes import FakeRunner

N_CELLS = 4096
# What every template of these tests ends its prompts with, before what it may open itself.
ASSISTANT = "assistant\n"
_IDS: WeakKeyDictionary[Llama, dict[str, int]] = WeakKeyDictionary()


class ScriptRunner(FakeRunner):
    """Continues a script after the prompt; where it was led off, it goes on from there as well as it can."""

    def __init__(self, llama: Llama) -> None:
        super().__init__(N_CELLS)
        self._llama = llama
        self.n_vocab = llama.n_vocab
        self.end_tokens = llama.end_tokens
        self.candidates = Candidates(llama.n_vocab)
        self.script = ""
        self._names: dict[int, str] = {}
        self._ids = ids_of(llama)
        self._longest = 16

    def piece(self, token: int) -> bytes:
        return self._llama.piece(token)

    def name(self, token: int) -> str:
        return self._llama.text_of(token)

    def run(self, rows: list[Any], n_used: int = 0) -> np.ndarray[Any, Any]:
        n_outputs = len(super().run(rows))
        logits = np.full((n_outputs, self.n_vocab), -10.0, np.float32)
        i = 0
        for row in rows:
            tokens = [token for _, token in self.held[row.seq_id]]
            for n_behind in reversed(range(row.n_outputs)):
                said = "".join(map(self._name, tokens[: len(tokens) - n_behind]))
                for token, score in self._wanted(said.split(ASSISTANT)[-1]).items():
                    logits[i, token] = score
                i += 1
        return logits

    def _name(self, token: int) -> str:
        if token not in self._names:
            self._names[token] = self._llama.text_of(token)
        return self._names[token]

    def _wanted(self, said: str) -> dict[int, float]:
        """Tokens that go on with the script, the longest first; the end behind all of them."""
        rest = after(self.script, said)
        wanted = dict.fromkeys(self.end_tokens, 1.0)
        for begun, least in ((rest.lstrip(), 2.0), (rest, 50.0)):
            for size in range(1, min(len(begun), self._longest) + 1):
                if (token := self._ids.get(begun[:size])) is not None:
                    wanted[token] = least + size
        return wanted


def ids_of(llama: Llama) -> dict[str, int]:
    """The tokens that add text, by that text. Read once for each model, for 80 ms of a core."""
    if llama not in _IDS:
        _IDS[llama] = {
            piece.decode("utf-8", "replace"): token
            for token in reversed(range(llama.n_vocab))
            if token not in llama.end_tokens and (piece := llama.piece(token))
        }
    return _IDS[llama]


def after(script: str, said: str) -> str:
    """What of a script is left when something was said, white space aside; all of what is common."""
    if script.startswith(said):
        return script[len(said) :]
    i = 0
    for character in said:
        if character.isspace():
            continue
        j = i
        while j < len(script) and script[j].isspace():
            j += 1
        if j < len(script) and script[j] == character:
            i = j + 1
    return script[i:]


@dataclass
class Told:
    """What came of one answer."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    finish: str | None = None
    error: tuple[str, str] | None = None
    usage: Usage | None = None
    deltas: list[CallDelta] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def add(self, chunk: TokenChunk) -> None:
        assert self.finish is None, "nothing comes after the end"
        self.text += chunk.text
        self.reasoning += chunk.reasoning
        self.deltas += chunk.calls
        self.logprobs += chunk.logprobs
        for delta in chunk.calls:
            if delta.name is not None:
                assert delta.call == len(self.calls), "calls come in their order"
                self.calls.append((delta.name, ""))
            name, arguments = self.calls[delta.call]
            self.calls[delta.call] = (name, arguments + delta.arguments)
        self.finish, self.error, self.usage = chunk.finish, chunk.error, chunk.usage


class Stage:
    """Intake and engine over a scripted model, with one chat template. `close()` ends its processes."""

    def __init__(
        self,
        llama: Llama,
        template: str,
        speculation: Speculation | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = EngineConfig(model_id="scripted", path="", n_seq=4, n_ctx=N_CELLS)
        self.runner = ScriptRunner(llama)
        self.refused: dict[int, Exception] = {}
        self.told: dict[tuple[int, int], Told] = defaultdict(Told)
        self.prompts: dict[int, str] = {}
        self.tokens = array("i")  # of the last request, prompt and first answer
        self._llama = llama
        self._ready: list[list[Sequence]] = []
        self._n_requests = 0
        self.engine = Engine(
            self.config,
            self.runner,
            N_CELLS,
            emit=self._emit,
            refuse=self.refused.__setitem__,
            forget=lambda request_id: None,
            clock=clock,
            speculation=speculation,
        )
        self.intake = Intake(
            self.config,
            llama,
            template,
            submit=self._ready.append,
            refuse=self.refused.__setitem__,
            tell=lambda request_id, value: None,
            too_many=lambda scope: QueueFull("full"),
        )

    def _emit(self, chunks: list[tuple[int, TokenChunk]]) -> None:
        for request_id, chunk in chunks:
            self.told[request_id, chunk.index].add(chunk)

    def ask(
        self,
        script: str,
        tools: ToolUse | None = None,
        messages: list[dict[str, Any]] | None = None,
        *,
        max_new: int = 300,
        **spec: Any,
    ) -> Told:
        """The answer to one request. Raises what it was refused with."""
        self._n_requests += 1
        self.runner.script = script
        prompt = Prompt(messages=messages or [{"role": "user", "content": "Go."}])
        defaults = {"sampling": Sampling(temperature=0), "prompts": [prompt]}
        asked = GenerateSpec(tools=tools, max_tokens=max_new, **(defaults | spec))
        request = Request(self._n_requests, asked, time.monotonic())
        assert self.intake.put(request)
        deadline = time.monotonic() + 60
        while not self._ready and request.request_id not in self.refused:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        if request.request_id in self.refused:
            raise self.refused[request.request_id]
        sequences = self._ready.pop()
        self.tokens = sequences[0].tokens
        prompt = sequences[0].tokens[: sequences[0].n_prompt]
        self.prompts[request.request_id] = "".join(map(self._llama.text_of, prompt))
        self.engine.submit(sequences)
        for _ in range(2000):
            self.engine.step()
            if self.engine.is_idle:
                return self.told[request.request_id, 0]
        raise AssertionError("the answer has no end")

    @property
    def prompt(self) -> str:
        """What the last request's prompt was."""
        return self.prompts[self._n_requests]

    def close(self) -> None:
        self.intake.close()

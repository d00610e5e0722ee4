"""From what a client sent to the tokens a model continues: template, tokenizer, BOS once."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import time
from array import array
from typing import Any, NamedTuple

import msgspec

from edgeagent.engine.dialogue import Dialogue
from edgeagent.engine.infill import with_gap
from edgeagent.engine.llama import Llama
from edgeagent.engine.rendering import LENGTH, RenderAnswer, RenderRequest, write_frame
from edgeagent.engine.syntax import PLAIN
from edgeagent.engine.syntax.family import Family
from edgeagent.engine.syntax.reasoning import Reasoning, reasoning_of
from edgeagent.errors import InvalidParameter, TemplateFailed
from edgeagent.sandbox import rss_bytes
from edgeagent.types import Prompt, ToolUse

logger = logging.getLogger(__name__)

MAX_PROMPT_BYTES = 16 << 20
START_TIMEOUT_S = 20.0
# Stands for any text of a user.
QUESTION = "edgeagent-question"


class TemplateHost:
    """The parent's side of the template process. One thread; `close()` may be called twice."""

    def __init__(self, template: str, timeout_s: float) -> None:
        self._template = template
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, so that its import time overlaps with something else."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeagent.engine.template"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._is_warm = False
        self._is_greeted = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None else None

    def render(self, variables: dict[str, Any]) -> str:
        """The prompt. Raises: TemplateFailed when the template refuses, fails or takes too long."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            if not self._is_greeted:
                # The start of an interpreter is not the template's fault: it has a clock of its own.
                self._read(START_TIMEOUT_S)
                self._is_greeted = True
            write_frame(
                self._process.stdin,  # type: ignore[arg-type]
                RenderRequest(None if self._is_warm else self._template, variables),
            )
            answer = self._read(self._timeout_s)
        except (OSError, EOFError) as exc:
            self.close()
            raise TemplateFailed(
                "The model's chat template ended its process: it asked for too much memory. "
                "Send a plain prompt to /v1/completions, or install the model with another template."
            ) from exc
        if answer.error is not None:
            raise TemplateFailed(
                f"The model's chat template refused these messages: {answer.error}. "
                "Change the messages, or send a plain prompt to /v1/completions."
            )
        self._is_warm = True
        return answer.text or ""

    def _read(self, timeout_s: float) -> RenderAnswer:
        deadline = time.monotonic() + timeout_s
        head = self._read_exactly(LENGTH.size, deadline)
        (length,) = LENGTH.unpack(head)
        if length > MAX_PROMPT_BYTES:
            self.close()
            raise TemplateFailed(
                f"The chat template made a prompt of {length} bytes, the bound is {MAX_PROMPT_BYTES}. "
                "Send shorter messages."
            )
        return msgspec.msgpack.decode(self._read_exactly(length, deadline), type=RenderAnswer)

    def _read_exactly(self, n: int, deadline: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        data = bytearray()
        while len(data) < n:
            if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.close()
                raise TemplateFailed(
                    f"The model's chat template ran longer than {self._timeout_s:g} s and was ended. "
                    "Send a plain prompt to /v1/completions, or install the model with another template."
                )
            piece = os.read(fd, n - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    logger.debug("template_pipe_broken")


def token_of(llama: Llama, name: str) -> int | None:
    """The one token that a name stands for; None where it is spelled by several."""
    tokens = llama.tokens_of(name, add_special=False, parse_special=True)
    return tokens[0] if len(tokens) == 1 and llama.text_of(tokens[0]) == name else None


class Built(NamedTuple):
    """A prompt's tokens, and whether it ends with the opening of a reasoning section."""

    tokens: array[int]
    is_reasoning: bool = False


class PromptBuilder:
    """Makes prompts for one model. Used by the intake thread only.

    `reasoning` are the markers of the section that the model thinks in, if it does.
    """

    def __init__(self, llama: Llama, template: str | None, timeout_s: float, model_id: str) -> None:
        self._llama = llama
        self._model_id = model_id
        self._host = TemplateHost(template, timeout_s) if template is not None else None
        if self._host is not None:
            self._host.start()
        self._dialogue = Dialogue(self._run, template) if template is not None else None
        self.reasoning: Reasoning | None = None
        if template is not None:
            self.reasoning = reasoning_of(template, lambda name: token_of(llama, name) is not None)
        self._special = {
            "bos_token": llama.text_of(llama.bos) if llama.bos is not None else "",
            "eos_token": llama.text_of(llama.eos) if llama.eos is not None else "",
        }

    @property
    def family(self) -> Family:
        """How the model writes calls. Raises nothing: a model without a template fails elsewhere."""
        return self._dialogue.abilities.family if self._dialogue is not None else PLAIN

    @property
    def is_taught(self) -> bool:
        """Whether the model knows tools from its training, as far as its template tells."""
        return self._dialogue is not None and self._dialogue.abilities.has_tools

    def build(self, prompt: Prompt, tools: ToolUse | None) -> Built:
        """A prompt, told of tools. Raises: as `tokens` and `with_gap`."""
        if prompt.suffix:
            before = prompt.text or ""
            return Built(with_gap(self._llama, before, prompt.suffix, self._model_id))
        if prompt.messages is None or (self._host is None and prompt.text is not None):
            return Built(self.tokens(prompt))
        text = self._render(prompt, tools) + prompt.prefill
        is_reasoning = self.reasoning is not None and self.reasoning.is_opened_by(text)
        return Built(self._begun(self._llama.tokenize(text, add_special=True)), is_reasoning)

    def frame(self) -> tuple[array[int], array[int]]:
        """The tokens before and behind a lone message of the user. Raises: TemplateFailed."""
        text = self._render(Prompt(messages=[{"role": "user", "content": QUESTION}]), None)
        before, found, behind = text.partition(QUESTION)
        if not found or QUESTION in behind:
            raise TemplateFailed(
                f"The chat template of {self._model_id} does not say a question as it is: install the model "
                "with another template."
            )
        tokenize = self._llama.tokenize
        return tokenize(before, add_special=True), tokenize(behind, add_special=False)

    def tokens(self, prompt: Prompt) -> array[int]:
        """Token ids of a prompt that is text or tokens, at least one.

        Raises: InvalidParameter for ids outside the vocabulary or an empty prompt that the vocabulary
        gives no beginning to.
        """
        if prompt.tokens is not None:
            tokens = self._checked(prompt.tokens)
        else:
            tokens = self._llama.tokenize(prompt.text or "", add_special=True)
        return self._begun(tokens)

    def _begun(self, tokens: array[int]) -> array[int]:
        """At least one token."""
        if not tokens:
            first = self._llama.bos if self._llama.bos is not None else self._llama.eos
            if first is None:
                raise InvalidParameter(
                    "The prompt has 0 tokens, at least 1 is needed: send some text.", param="prompt"
                )
            tokens.append(first)
        return tokens

    def _checked(self, ids: list[int]) -> array[int]:
        for token in ids:
            if not 0 <= token < self._llama.n_vocab:
                raise InvalidParameter(
                    f"Token id {token} is outside the model's vocabulary of {self._llama.n_vocab}: "
                    "send ids that /tokenize gave.",
                    param="prompt",
                )
        return array("i", ids)

    def _render(self, prompt: Prompt, tools: ToolUse | None) -> str:
        if self._dialogue is None:
            raise TemplateFailed(
                f"Model {self._model_id} has no chat template: send a plain prompt to /v1/completions, "
                "or give the model a `chat_template` in the catalog."
            )
        return self._run(prompt.variables | self._dialogue.variables(prompt.messages or [], tools))

    def _run(self, variables: dict[str, Any]) -> str:
        assert self._host is not None
        return self._host.render(variables | {"add_generation_prompt": True, **self._special})

    def rss_bytes(self) -> int:
        """Resident memory of the template process, 0 without one. Any thread may ask."""
        pid = self._host.pid if self._host is not None else None
        return rss_bytes(pid) if pid is not None else 0

    def close(self) -> None:
        if self._host is not None:
            self._host.close()

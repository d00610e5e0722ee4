"""From what a client sent to the tokens a model continues: template, tokenizer, BOS once."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import time
from array import array
from typing import Any

import msgspec

from edgeagent.engine.llama import Llama
from edgeagent.engine.template import LENGTH, RenderAnswer, RenderRequest, write_frame
from edgeagent.errors import InvalidParameter, TemplateFailed
from edgeagent.sandbox import rss_bytes
from edgeagent.types import Prompt

logger = logging.getLogger(__name__)

MAX_PROMPT_BYTES = 16 << 20
START_TIMEOUT_S = 20.0


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


class PromptBuilder:
    """Makes prompts for one model. Used by the intake thread only."""

    def __init__(self, llama: Llama, template: str | None, timeout_s: float, model_id: str) -> None:
        self._llama = llama
        self._model_id = model_id
        self._host = TemplateHost(template, timeout_s) if template is not None else None
        if self._host is not None:
            self._host.start()
        self._special = {
            "bos_token": llama.text_of(llama.bos) if llama.bos is not None else "",
            "eos_token": llama.text_of(llama.eos) if llama.eos is not None else "",
        }

    def tokens(self, prompt: Prompt) -> array[int]:
        """Token ids of the prompt, at least one.

        Raises: TemplateFailed; InvalidParameter for ids outside the vocabulary or an empty prompt
        that the vocabulary gives no beginning to.
        """
        if prompt.tokens is not None:
            tokens = self._checked(prompt.tokens)
        elif prompt.messages is not None and (self._host is not None or prompt.text is None):
            text = self._render(prompt.messages) + prompt.prefill
            tokens = self._llama.tokenize(text, add_special=True)
        else:
            tokens = self._llama.tokenize(prompt.text or "", add_special=True)
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

    def _render(self, messages: list[dict[str, Any]]) -> str:
        if self._host is None:
            raise TemplateFailed(
                f"Model {self._model_id} has no chat template: send a plain prompt to /v1/completions, "
                "or give the model a `chat_template` in the catalog."
            )
        return self._host.render(
            {"messages": messages, "add_generation_prompt": True, **self._special}
        )

    def rss_bytes(self) -> int:
        """Resident memory of the template process, 0 without one. Any thread may ask."""
        pid = self._host.pid if self._host is not None else None
        return rss_bytes(pid) if pid is not None else 0

    def close(self) -> None:
        if self._host is not None:
            self._host.close()

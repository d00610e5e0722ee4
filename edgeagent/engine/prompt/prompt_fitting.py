"""Fits prompts and answers into the tokens of a slot."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgeagent.engine.llama.model import Llama
from edgeagent.engine.prompt.rendered_prompt import PromptBuilder, RenderedPrompt
from edgeagent.engine.prompt.truncation import fewest_dropped, turns_of, without_oldest
from edgeagent.errors import ContextLengthExceeded
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt


class PromptFitter:
    """Makes the prompts of a request, and says how long their answers may be. Intake's thread only."""

    def __init__(
        self, config: EngineConfig, llama: Llama, prompts: PromptBuilder, beat: Callable[[], None]
    ) -> None:
        self._config = config
        self._n_slot = slot_tokens(config, llama)
        self._prompts = prompts
        self._beat = beat

    def fit_all(self, spec: GenerateSpec) -> list[tuple[RenderedPrompt, int]]:
        """Each prompt, and how many of its messages were left out so that it fits with the answer.

        Raises: TemplateFailed, InvalidParameter.
        """
        fitted = []
        for prompt in spec.prompts:
            self._beat()
            fitted.append(self._fit(prompt, spec))
        return fitted

    def _fit(self, prompt: Prompt, spec: GenerateSpec) -> tuple[RenderedPrompt, int]:
        built = self._prompts.build(prompt, spec.tools)
        messages = prompt.messages
        if not prompt.may_drop or messages is None:
            return built, 0
        # Without a length asked for, an answer should have room to say something.
        n_answer = spec.max_tokens or min(self._config.default_max_tokens, self._n_slot // 4)
        most = self._n_slot - min(n_answer, self._n_slot // 2 if spec.clamps else n_answer)
        tried: dict[int, RenderedPrompt] = {0: built}

        def fits(n_turns: int) -> bool:
            if n_turns not in tried:
                self._beat()
                shorter = msgspec.structs.replace(
                    prompt, messages=without_oldest(messages, n_turns)
                )
                tried[n_turns] = self._prompts.build(shorter, spec.tools)
            return len(tried[n_turns].tokens) <= most

        n_turns = fewest_dropped(len(turns_of(messages)), fits)
        fits(n_turns)
        return tried[n_turns], len(messages) - len(without_oldest(messages, n_turns))

    def max_new(self, n_prompt: int, spec: GenerateSpec) -> int:
        """The tokens that an answer to a prompt of this length may have.

        Raises: ContextLengthExceeded when prompt and answer can never fit.
        """
        room, asked = self._n_slot - n_prompt, spec.max_tokens
        is_bound = f"this model's maximum context length is {self._n_slot} tokens"
        if room < (1 if asked is None else min(1, asked)):
            raise ContextLengthExceeded(
                f"The prompt is too long for {self._config.model_id}: it has {n_prompt} tokens, and "
                f"{is_bound} with the answer. Shorten the history or raise engine.n_ctx.",
                param="messages",
            )
        if asked is None:
            return min(self._config.default_max_tokens, room)
        if asked > room and not spec.clamps:
            raise ContextLengthExceeded(
                f"The prompt is too long for so long an answer of {self._config.model_id}: the prompt has "
                f"{n_prompt} tokens and the answer may have {asked}, together {n_prompt + asked}, and "
                f"{is_bound}. Ask for at most {room} tokens, shorten the history or raise engine.n_ctx.",
                param="max_tokens",
            )
        return min(asked, room)


def slot_tokens(config: EngineConfig, llama: Llama) -> int:
    """The most tokens that one sequence may have. Never more than the trained context: llama.cpp aborts
    there when positions are learned."""
    return min(llama.n_ctx, llama.n_ctx_train) if llama.n_ctx_train > 0 else llama.n_ctx

"""Makes the tokens of a prompt from a request: chat template, tokenizer, one BOS token."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from edgeagent.engine.batching.kv_cache import common_prefix
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.process.tokenizer_thread import check_ids
from edgeagent.engine.prompt import built_in_templates
from edgeagent.engine.prompt.fim import can_fill_in, with_gap
from edgeagent.engine.prompt.hidden_prompt import all_told, hidden_prompt, hidden_tools
from edgeagent.engine.prompt.special_token_guard import LiteralTextGuard, TextTokenizer
from edgeagent.engine.prompt.special_token_search import SpecialTokens
from edgeagent.engine.prompt.template_abilities import TemplateAbilities, complaint, probed
from edgeagent.engine.prompt.template_client import TemplateHost, TemplateRefused
from edgeagent.engine.prompt.tool_prompt import plainest, variables
from edgeagent.engine.tool_syntax import PLAIN
from edgeagent.engine.tool_syntax.reasoning import Reasoning, reasoning_of
from edgeagent.engine.tool_syntax.tool_syntax import Family
from edgeagent.errors import InvalidParameter, TemplateFailed
from edgeagent.types.prompt import Prompt
from edgeagent.types.template import TemplateFacts, TemplateSource
from edgeagent.types.tools import ToolUse

logger = logging.getLogger(__name__)

# Stands for any text of a user.
QUESTION = "edgeagent-question"
# Two turns that begin with different tokens.
FIRST_TURNS = ({"role": "user", "content": "Hello"}, {"role": "user", "content": "7"})


def token_of(llama: Llama, name: str) -> int | None:
    """The token with this name; None if the name is tokenized to several tokens."""
    tokens = llama.tokens_of(name, add_special=False, parse_special=True)
    return tokens[0] if len(tokens) == 1 and llama.text_of(tokens[0]) == name else None


class RenderedPrompt(NamedTuple):
    """A prompt's tokens, and whether it ends with the opening of a reasoning section."""

    tokens: array[int]
    is_reasoning: bool = False


class PromptBuilder:
    """Makes prompts for one model. Used by the intake thread only.

    `reasoning` are the markers of the model's reasoning section, if it has one. `beat` is called while the
    template runs.
    """

    def __init__(
        self,
        llama: Llama,
        template: str | None,
        timeout_s: float,
        model_id: str,
        beat: Callable[[], None] = lambda: None,
        source: TemplateSource = "model",
    ) -> None:
        self._llama = llama
        self._model_id = model_id
        self._source: TemplateSource | None = source
        self._problem: str | None = None
        if template is None:
            template, self._source = self._built_in(), "built-in"
            self._problem = "the file has none"
        self._template = template or ""
        self._host = TemplateHost(template, timeout_s, beat) if template is not None else None
        if self._host is not None:
            self._host.start()
        self._abilities: TemplateAbilities | None = None
        self.reasoning = self._reasoning() if template is not None else None
        self._special = {
            "bos_token": llama.text_of(llama.bos) if llama.bos is not None else "",
            "eos_token": llama.text_of(llama.eos) if llama.eos is not None else "",
        }

    def _built_in(self) -> str | None:
        return built_in_templates.fitting(lambda name: token_of(self._llama, name) is not None)

    def _reasoning(self) -> Reasoning | None:
        return reasoning_of(self._template, lambda name: token_of(self._llama, name) is not None)

    @property
    def has_template(self) -> bool:
        return self._host is not None

    @property
    def abilities(self) -> TemplateAbilities:
        """The abilities of the template. There must be a template."""
        self.learn()
        assert self._abilities is not None
        return self._abilities

    def learn(self) -> None:
        """Find out what the template can render, once. A template that cannot render a question is
        replaced by the built-in one for the model's family, if there is one. Raises: Unavailable."""
        if self._abilities is not None or self._host is None:
            return
        problem = complaint(self._run) if self._source != "built-in" else None
        if problem is not None:
            self._problem = problem
            if (template := self._built_in()) is not None:
                self._template, self._source = template, "built-in"
                self._host.replace_template(template)
                self.reasoning = self._reasoning()
                self.__dict__.pop("_texts", None)
            logger.warning("template_broken model=%s used=%s", self._model_id, self._source)
        self._abilities = found = probed(self._run, self._template)
        logger.info(
            "template_probed model=%s source=%s calls=%s system=%s neighbours=%s tools=%s",
            self._model_id, self._source, found.family.name, found.has_system,
            found.has_neighbours, found.has_tools,
        )  # fmt: skip

    def facts(self) -> TemplateFacts:
        """The abilities of the template, as they are sent to the daemon."""
        insert = can_fill_in(self._llama)
        if self._host is None:
            return TemplateFacts(problem=self._problem, insert=insert)
        found, source = self.abilities, self._source
        assert source is not None
        return msgspec.structs.replace(
            found.facts(source),
            reasoning=self.reasoning is not None,
            insert=insert,
            problem=self._problem,
        )

    @property
    def family(self) -> Family:
        """The call syntax of the model. Does not raise: a model without a template fails elsewhere."""
        return self.abilities.family if self._host is not None else PLAIN

    @property
    def is_taught(self) -> bool:
        """Whether the model was trained to call tools, according to its template."""
        return self._host is not None and self.abilities.has_tools

    def build(self, prompt: Prompt, tools: ToolUse | None) -> RenderedPrompt:
        """A prompt that offers these tools. Raises what `tokens` and `with_gap` raise."""
        if prompt.before:
            return self._continued(prompt, tools)
        if prompt.suffix:
            before = prompt.text or ""
            return RenderedPrompt(with_gap(self._llama, before, prompt.suffix, self._model_id))
        if prompt.messages is None or (self._host is None and prompt.text is not None):
            return RenderedPrompt(self.tokens(prompt))
        self.learn()
        guard = LiteralTextGuard(self._texts.specials, all_told(prompt, tools), self._template)
        # Templates look for the reasoning markers in an assistant's message, to remove that section.
        hidden = hidden_prompt(prompt, guard, self.reasoning or ())
        text = self._render(hidden, hidden_tools(tools, guard)) + hidden.prefill
        is_reasoning = self.reasoning is not None and self.reasoning.is_opened_by(text)
        return RenderedPrompt(self._finished(self._texts.rendered(text, guard)), is_reasoning)

    def head(self, prompt: Prompt, tools: ToolUse | None) -> array[int]:
        """The tokens before the first turn: what prompts with two different first turns share. Raises as
        `build`."""
        before = msgspec.structs.replace(prompt, prefill="", before=[])
        one, other = (
            self.build(
                msgspec.structs.replace(before, messages=[*prompt.system_messages, turn]), tools
            )
            for turn in FIRST_TURNS
        )
        return one.tokens[: common_prefix(one.tokens, other.tokens)]

    def _continued(self, prompt: Prompt, tools: ToolUse | None) -> RenderedPrompt:
        """A prompt after the tokens of earlier turns. An earlier answer that was cut off is ended."""
        check_ids(prompt.before, self._llama.n_vocab, "context")
        built = self.build(msgspec.structs.replace(prompt, before=[]), tools)
        tokens, llama = array("i", prompt.before), self._llama
        has_turns = prompt.messages is not None and self._host is not None
        if has_turns and llama.eos is not None and tokens[-1] not in llama.end_tokens:
            tokens.append(llama.eos)
        new = built.tokens[1:] if built.tokens[0] == llama.bos else built.tokens
        return RenderedPrompt(llama.with_bos(tokens + new), built.is_reasoning)

    def frame(self) -> tuple[array[int], array[int]]:
        """The tokens before and after a single message of the user. Raises: TemplateFailed."""
        text = self._render(Prompt(messages=[{"role": "user", "content": QUESTION}]), None)
        before, found, behind = text.partition(QUESTION)
        if not found or QUESTION in behind:
            raise TemplateFailed(
                f"The chat template of {self._model_id} does not say a question as it is: install the model "
                "with another template."
            )
        rendered = self._texts.rendered
        return self._llama.with_bos(rendered(before)), rendered(behind)

    def tokens(self, prompt: Prompt) -> array[int]:
        """Token ids of a prompt that is text or tokens, at least one.

        Raises: InvalidParameter for ids outside the vocabulary or an empty prompt that the vocabulary
        gives no beginning to.
        """
        if prompt.tokens is not None:
            return self._begun(self._checked(prompt.tokens))
        text = prompt.text or ""
        if prompt.parse_special:
            return self._begun(self._llama.tokenize(text, add_special=True))
        return self._finished(self._texts.plain(text))

    def _finished(self, tokens: array[int]) -> array[int]:
        return self._begun(self._llama.with_bos(tokens))

    @cached_property
    def _texts(self) -> TextTokenizer:
        return TextTokenizer(self._llama, SpecialTokens.of(self._llama, self._template))

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
        if self._host is None:
            raise TemplateFailed(
                f"Model {self._model_id} has no chat template: send a plain prompt to /v1/completions, "
                "or name a model in the request that has one."
            )
        messages = prompt.messages or []
        told = prompt.variables | {"add_generation_prompt": prompt.opens_answer}
        shown = variables(messages, tools, self.abilities)
        try:
            return self._run(told | shown)
        except TemplateRefused:
            plainer = variables(messages, tools, plainest(self.abilities))
            if plainer == shown:
                raise
            return self._run(told | plainer)

    def _run(self, told: dict[str, Any]) -> str:
        assert self._host is not None
        return self._host.render({"add_generation_prompt": True} | told | self._special)

    def rss_bytes(self) -> int:
        """Resident memory of the template process, 0 without one. Any thread may call it."""
        return self._host.rss_bytes() if self._host is not None else 0

    def close(self) -> None:
        if self._host is not None:
            self._host.close()

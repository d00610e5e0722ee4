"""Makes the sequences of a request: its prompts in tokens, and a decoder for each answer."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable

import msgspec

from edgeagent.engine.batching.prompt_lookup import SHORTEST_MATCH
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.intents.intent_decoder import IntentDecoder
from edgeagent.engine.intents.intent_scoring import CallTokens, IntentChoice, IntentOffer
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.decoder import Decoder
from edgeagent.engine.output.logprobs import Logprobs
from edgeagent.engine.output.output_parser import CallSyntax, OutputParser, Takeover
from edgeagent.engine.output.plain_decoder import PlainDecoder
from edgeagent.engine.output.prompt_scores import PromptScores
from edgeagent.engine.prompt.prompt_fitting import PromptFitter
from edgeagent.engine.prompt.rendered_prompt import PromptBuilder, RenderedPrompt, token_of
from edgeagent.engine.structured.constraint import Constraint
from edgeagent.engine.structured.json_completion import JsonCompletion
from edgeagent.engine.structured.output_spec import OutputSpec
from edgeagent.engine.structured.structured_decoder import StructuredDecoder
from edgeagent.errors import InvalidParameter, ModelUnusable
from edgeagent.types.answer import PromptFacts
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import IntentQuestion
from edgeagent.types.sampling import Sampling

# More characters of a prediction are not tokenized.
CHARS_PER_TOKEN = 8
# As OpenAI bans a token.
NEVER = -100.0


class SequenceBuilder:
    """Makes what the engine queues. Intake's thread only."""

    def __init__(
        self, config: EngineConfig, llama: Llama, prompts: PromptBuilder, fitter: PromptFitter
    ) -> None:
        self._llama = llama
        self._model_id = config.model_id
        self._prompts = prompts
        self._fitter = fitter
        self._calls = CallTokens(llama, prompts, config.model_id)

    def output_spec(self, spec: GenerateSpec) -> OutputSpec | None:
        """What the answers must look like; None where they are free."""
        if spec.tools is None:
            return OutputSpec(spec.form) if spec.form is not None else None
        family = self._prompts.family
        return OutputSpec(spec.form, spec.tools, family, self._marker_tokens(family.markers))

    def build(self, request: Request) -> list[Sequence]:
        """One sequence for each answer of a request whose grammar is compiled. Sets `request.facts`.

        Raises: ContextLengthExceeded, TemplateFailed, InvalidParameter, ModelUnusable.
        """
        spec = request.spec
        adapters = self._llama.adapters
        if spec.adapter is not None and spec.adapter not in adapters.ids:
            why = adapters.problems.get(spec.adapter, "its file is not the approved one")
            raise ModelUnusable(
                f"Adapter {spec.adapter!r} is not loaded with {self._model_id}: {why}"
            )
        if spec.intent_question is not None:
            return self._intent_sequences(request, spec.intent_question)
        for token in spec.sampling.logit_bias:
            if not 0 <= token < self._llama.n_vocab:
                raise InvalidParameter(
                    f"logit_bias names token {token}, the vocabulary has ids 0 to "
                    f"{self._llama.n_vocab - 1}: use ids of this model.",
                    param="logit_bias",
                )
        fitted = self._fitter.fit_all(spec)
        prompts = [prompt for prompt, _ in fitted]
        limits = [self._fitter.max_new(len(prompt.tokens), spec) for prompt in prompts]
        request.facts = prompt_facts(
            spec,
            limits,
            n_prompt=sum(len(prompt.tokens) for prompt in prompts),
            n_dropped=sum(n_dropped for _, n_dropped in fitted),
        )
        n_top = spec.logprobs if spec.scores_prompt else None
        scores = [PromptScores(p.tokens, n_top) if n_top is not None else None for p in prompts]
        sequences = []
        for index in range(spec.n_answers):
            number = index // spec.n
            decoder = self._decoder(request, prompts[number], limits[number], index, scores[number])
            sequence = Sequence(request, index, decoder, scores[number])
            sequence.prediction = self._prediction(spec, prompts[number])
            sequences.append(sequence)
        return sequences

    def _prediction(self, spec: GenerateSpec, prompt: RenderedPrompt) -> array[int]:
        """What the client expects, behind the last tokens of the prompt, where an answer begins with it. No
        more than a context holds is of use."""
        if not spec.prediction:
            return array("i")
        text = spec.prediction[: CHARS_PER_TOKEN * self._llama.n_ctx]
        tokens = self._llama.tokens_of(text, add_special=False, parse_special=False)
        return prompt.tokens[-SHORTEST_MATCH:] + tokens[: self._llama.n_ctx]

    def _intent_sequences(self, request: Request, question: IntentQuestion) -> list[Sequence]:
        """Answers that choose among intents. They end by themselves: a bound only shortens them."""
        spec, n_vocab = request.spec, self._llama.n_vocab
        tokens = self._calls.prompt(question.text)
        offer = IntentOffer.of(question, self._calls)
        room = self._fitter.max_new(len(tokens), msgspec.structs.replace(spec, max_tokens=None))
        request.facts = PromptFacts(len(tokens))
        max_new = min(room, spec.max_tokens or room)
        return [
            Sequence(
                request,
                index,
                IntentDecoder(tokens[:], len(tokens), max_new, IntentChoice(offer), n_vocab),
            )
            for index in range(spec.n_answers)
        ]

    def _decoder(
        self,
        request: Request,
        built: RenderedPrompt,
        max_new: int,
        index: int,
        scores: PromptScores | None,
    ) -> Decoder:
        spec, tokens, n_prompt = request.spec, built.tokens, len(built.tokens)
        last_n = spec.sampling.repeat_last_n
        tail = list(tokens[-last_n:]) if last_n else []
        sampling = spec.sampling
        if spec.ignore_eos and request.grammar is None:  # what has a form ends with it
            sampling = endless(sampling, self._llama.end_tokens)
        sampler = Sampler(sampling, self._llama.n_vocab, tail, index)
        takeover = _takeover(spec, built.is_reasoning)
        parser = self._parser(request, built.is_reasoning, takeover)
        if request.grammar is None and parser is None and spec.logprobs is None:
            return PlainDecoder(
                tokens[:], n_prompt, max_new, sampler, spec.stop, ignore_eos=spec.ignore_eos
            )
        constraint = None
        if request.grammar is not None:
            constraint = Constraint(request.grammar, is_later=takeover != "at once")
        return StructuredDecoder(
            tokens,
            n_prompt,
            max_new,
            sampler,
            spec.stop,
            index=index,
            ignore_eos=spec.ignore_eos,
            constraint=constraint,
            takeover=takeover,
            ending=_ending(request, max_new),
            parser=parser,
            logprobs=Logprobs(spec.logprobs) if spec.logprobs is not None else None,
            scores=scores,
        )

    def _parser(
        self, request: Request, is_reasoning: bool, takeover: Takeover
    ) -> OutputParser | None:
        """What parses the answer, where it can have more parts than text."""
        spec, reasoning = request.spec, self._prompts.reasoning
        is_chat = spec.prompts[0].messages is not None
        if not is_chat or (spec.tools is None and reasoning is None):
            return None
        family = request.output.family if request.output is not None else None
        calling = None
        names: list[str] = [*(reasoning or ())]
        if spec.tools is not None and family is not None:
            tools = frozenset(tool.name for tool in spec.tools.tools)
            calling = CallSyntax(family, tools, may_repeat=self._prompts.is_taught)
            names += family.markers
        return OutputParser(
            spec.stop,
            markers={token: name for name, token in self._marker_tokens(names).items()},
            reasoning=reasoning,
            is_reasoning=is_reasoning,
            calling=calling,
            is_call=spec.tools is not None and spec.tools.choice == "required",
            takeover=takeover,
        )

    def _marker_tokens(self, names: Iterable[str]) -> dict[str, int]:
        """Those of the markers that are tokens which add no text of their own."""
        found = {name: token_of(self._llama, name) for name in names}
        return {
            name: token
            for name, token in found.items()
            if token is not None and not self._llama.piece(token)
        }


def prompt_facts(
    spec: GenerateSpec, limits: list[int], *, n_prompt: int, n_dropped: int
) -> PromptFacts:
    """What is known of a request once its prompts are made. `limits` are the longest answers to each."""
    longest = max(limits)
    is_clamped = spec.max_tokens is not None and longest < spec.max_tokens
    return PromptFacts(n_prompt, max_tokens=longest if is_clamped else None, n_dropped=n_dropped)


def endless(sampling: Sampling, end_tokens: Collection[int]) -> Sampling:
    """The same without the tokens that end an answer. Behind one of them a model goes on with turns of its
    own, whose markers are tokens without text: a reader sees nothing come for twice as long."""
    return msgspec.structs.replace(
        sampling, logit_bias=sampling.logit_bias | dict.fromkeys(end_tokens, NEVER)
    )


def _takeover(spec: GenerateSpec, is_reasoning: bool) -> Takeover:
    """When the grammar of an answer takes over."""
    if spec.form is None and spec.tools is None:
        return "never"
    if spec.form is None and spec.tools is not None and spec.tools.choice == "auto":
        return "with a call"
    return "after reasoning" if is_reasoning else "at once"


def _ending(request: Request, max_new: int) -> JsonCompletion | None:
    """JSON is closed for the model, calls included: clients read half an argument each in its own way."""
    grammar = request.grammar
    if grammar is None or grammar.closing is None:
        return None
    return JsonCompletion(max_new, grammar.growth)

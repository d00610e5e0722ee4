"""Pairs as the tokens that the model sees when it is served: by its own chat template and tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgeagent.catalog.gguf.header import read_header
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.prompt.rendered_prompt import PromptBuilder
from edgeagent.errors import ForgeFailed
from edgeagent.forge.adapters.pairs import Pair
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.prompt import Prompt

TEMPLATE_TIMEOUT_S = 20.0
TEMPLATE_KEY = "tokenizer.chat_template"


class TokenPair(NamedTuple):
    """`tokens` of prompt and answer, the first `n_prompt` of which are the prompt's. The answer ends."""

    tokens: list[int]
    n_prompt: int


def token_pairs(
    path: Path,
    template: str | None,
    pairs: Sequence[Pair],
    *,
    system: str | None,
    n_ctx: int,
    tell: Callable[[], object],
) -> tuple[list[TokenPair], int]:
    """The pairs that fit into `n_ctx` tokens, and how many are too long. `template` replaces the model's own.
    Raises: ForgeFailed; ModelUnusable."""
    config = EngineConfig(
        model_id=path.stem, path=str(path), n_ctx=64, n_seq=1, n_prefixes=0, n_batch=32, n_threads=1
    )
    llama = Llama(config)
    builder = None
    try:
        own = read_header(path).metadata.get(TEMPLATE_KEY)
        text = template if template is not None else own if isinstance(own, str) else None
        builder = PromptBuilder(llama, text, TEMPLATE_TIMEOUT_S, path.stem)
        if not builder.has_template or llama.eos is None:
            raise ForgeFailed(
                "The model has no chat template, so that it has no answers: choose another."
            )
        found, n_long = [], 0
        for pair in pairs:
            one = _tokens(builder, pair, system, llama.eos)
            tell()
            if len(one.tokens) > n_ctx:
                n_long += 1
            else:
                found.append(one)
        return found, n_long
    finally:
        if builder is not None:
            builder.close()
        llama.close()


def _tokens(builder: PromptBuilder, pair: Pair, system: str | None, end: int) -> TokenPair:
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": pair.prompt})
    prompt = list(builder.build(Prompt(messages=messages), None).tokens)
    whole = list(builder.build(Prompt(messages=messages, prefill=pair.answer), None).tokens)
    # The last token of the prompt and the first of the answer may be one.
    n_prompt = next(
        (n for n, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
        min(len(prompt), len(whole)),
    )
    return TokenPair([*whole, end], n_prompt)

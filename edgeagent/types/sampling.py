"""How the next token is drawn."""

from __future__ import annotations

import msgspec


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

"""A grammar over single bytes, beside the one over a model's tokens: what ways out are looked for in.

It follows the text of its answer when it is asked, and knows special tokens by their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from edgeagent.engine.completion import Place, Search, suffixes
from edgeagent.engine.examples import examples, most_to_close


class Effort(NamedTuple):
    """How much is done for one way out. A state takes 50 us (EPYC Zen 5); few ways out need more than 50."""

    n_states: int
    timeout_s: float


# Of a drawn token, which may be tried again behind the next one.
TRY = Effort(400, 0.1)
# Behind the last token, where the answer would be cut.
LAST_TRY = Effort(4000, 0.5)
MAX_BYTES = 16_384


class Twin:
    """One answer's. One thread at a time."""

    def __init__(self, matcher: Any, examples: list[bytes]) -> None:
        self._matcher = matcher
        self._examples = examples
        self._place = Place()

    def follow(self, said: bytes) -> bool:
        """Go on with more of the answer. False where the grammar does not allow it."""
        if said:
            self._place = self._place.after(said)
            return bool(self._matcher.consume_tokens(list(said)))
        return not self._matcher.is_error()

    def way_out(self, more: bytes, effort: Effort) -> bytes | None:
        """The shortest found that ends the answer after `more` of it."""
        matcher = self._matcher
        if more:
            matcher = matcher.deep_copy()
            if not matcher.consume_tokens(list(more)):
                return None
        search = Search(matcher, self._place.after(more), self._examples)
        return search.run(effort.n_states, MAX_BYTES, effort.timeout_s)


@dataclass(eq=False)
class Closing:
    """How the answers of one grammar are closed; shared by them."""

    matcher: Any
    examples: list[bytes]
    growth: int

    def twin(self) -> Twin:
        return Twin(self.matcher.deep_copy(), self.examples)


def closing_of(matcher: Any, schemas: list[dict[str, Any]]) -> Closing:
    """How answers by some schemas are closed. `matcher` is their grammar's over bytes, at its beginning."""
    texts = [text for schema in schemas for text in examples(schema)]
    return Closing(matcher, suffixes(texts), max(map(most_to_close, schemas)))

"""What the model reads before a window: keywords, prompt and the text before. Pure but for the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeagent.errors import InvalidParameter
from edgeagent.speech.options import SpeechOptions

# Half of Whisper's context of 448 tokens is for what precedes the text, less the mark before it.
PROMPT_TOKENS = 448 // 2 - 1
# The most of that for keywords: the rest is for the text before, without which sentences fall apart.
KEYWORD_TOKENS = 160
# A text that came at a higher temperature is no good example.
MAX_TEMPERATURE = 0.5


class Prompt:
    """The tokens before each window of one recording. One thread.

    Keywords precede every window, whole or not at all; the caller's prompt precedes the first one (every one,
    where windows do not see the text before), and of it and of the text before the last tokens count.
    """

    def __init__(self, encode: Callable[[str], list[int]], options: SpeechOptions) -> None:
        """Raises: InvalidParameter where the keywords do not fit."""
        self._is_conditioned = options.is_conditioned
        self._keywords = encode(f" {', '.join(options.keywords)}.") if options.keywords else []
        if len(self._keywords) > KEYWORD_TOKENS:
            raise InvalidParameter(
                f"The {len(options.keywords)} keywords have {len(self._keywords)} tokens, at most "
                f"{KEYWORD_TOKENS} are heard: leave out those that do not matter to this recording.",
                param="keywords",
            )
        prompt = options.prompt.strip()
        self._prompt = encode(f" {prompt}") if prompt else []
        self._before: list[int] = []

    @property
    def before(self) -> tuple[int, ...]:
        """The tokens of the text before the next window."""
        return tuple(self._before)

    def restore(self, before: Sequence[int]) -> None:
        """Go on behind a text whose last tokens are these."""
        self._before = list(before)

    def tokens(self) -> list[int]:
        """What precedes the next window, at most `PROMPT_TOKENS`."""
        room = PROMPT_TOKENS - len(self._keywords)
        before = self._before if self._before and self._is_conditioned else self._prompt
        return [*self._keywords, *before[-room:]]

    def add(self, tokens: Sequence[int], temperature: float) -> None:
        """A segment of the text that is before the next window."""
        if not self._is_conditioned:
            return
        if temperature > MAX_TEMPERATURE:
            self._before = []
        else:
            self._before = [*self._before, *tokens][-PROMPT_TOKENS:]

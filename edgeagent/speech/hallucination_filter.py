"""Which of the model's words are kept: pure decisions over segments.

Whisper makes text of noise, mostly at low probability, and repeats itself when it is lost. Its own guards
(no-speech probability, compression ratio, temperature fallback) act on whole windows; these on what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from edgeagent.speech.segments import Segment, Word

# A segment whose words are less likely than this on average was not said.
MIN_CONFIDENCE = 0.25
# Where there is hardly any speech in a window, or the model itself doubts it, more is asked.
DOUBTFUL_SPEECH_S, DOUBTFUL_NO_SPEECH = 0.8, 0.6
DOUBTFUL_LOGPROB = -1.0
DOUBTFUL_CONFIDENCE = 0.5
# The same words so many times in a row are a loop.
MAX_REPEATS = 5
LOOP_WORDS = 8


def believed(segment: Segment, speech_s: float) -> bool:
    """Whether a segment's words are likely enough, given how many seconds of speech its window has."""
    confidence = segment.confidence
    return confidence is None or is_believable(
        confidence,
        speech_s=speech_s,
        no_speech_prob=segment.no_speech_prob,
        avg_logprob=segment.avg_logprob,
    )


def is_believable(
    confidence: float, *, speech_s: float, no_speech_prob: float, avg_logprob: float
) -> bool:
    """Whether words of this mean confidence were said."""
    is_doubtful = (
        speech_s < DOUBTFUL_SPEECH_S
        or no_speech_prob > DOUBTFUL_NO_SPEECH
        or avg_logprob < DOUBTFUL_LOGPROB
    )
    return confidence >= (DOUBTFUL_CONFIDENCE if is_doubtful else MIN_CONFIDENCE)


def without_loops(segments: Sequence[Segment]) -> Iterator[Segment]:
    """The segments of one window without endless repetitions, within each and from one to the next."""
    n_same, last = 0, ""
    for segment in segments:
        text = segment.text.strip().lower()
        n_same = n_same + 1 if text == last else 0
        last = text
        if n_same < MAX_REPEATS:
            yield _unlooped(segment)


def _unlooped(segment: Segment) -> Segment:
    words = _once(segment.words)
    if len(words) == len(segment.words):
        return segment
    text = "".join(word.text for word in words)
    return msgspec.structs.replace(segment, words=words, text=text, end_s=words[-1].end_s)


def _once(words: tuple[Word, ...]) -> tuple[Word, ...]:
    """Each phrase of up to `LOOP_WORDS` words that follows itself `MAX_REPEATS` times or more, once."""
    plain = [word.text.strip().lower() for word in words]
    kept: list[Word] = []
    i = 0
    while i < len(words):
        n, times = _loop_at(plain, i)
        kept.extend(words[i : i + n])
        i += n * times
    return tuple(kept)


def _loop_at(plain: list[str], i: int) -> tuple[int, int]:
    """Length of the phrase that loops at word `i` and how often it comes; one word once where none does."""
    for n in range(1, LOOP_WORDS + 1):
        times = 1
        while plain[i : i + n] == plain[i + times * n : i + (times + 1) * n] and plain[i : i + n]:
            times += 1
        if times >= MAX_REPEATS:
            return n, times
    return 1, 1

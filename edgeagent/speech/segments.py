"""What a transcription is made of: plain data, for the worker and the daemon alike. Times in seconds."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Common to all parts of a transcript."""


class Word(Part, frozen=True, kw_only=True):
    """One word as it was heard, on the recording's clock.

    `text` has its punctuation, and the space before it where the language writes one. `confidence`: the
    mean probability of its tokens, 0 to 1.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float = 0.0
    speaker: str | None = None

    @property
    def middle_s(self) -> float:
        return (self.start_s + self.end_s) / 2


class TokenScore(Part, frozen=True, kw_only=True):
    """One token of the text and its log probability."""

    token: str
    logprob: float
    bytes: list[int]


class Segment(Part, frozen=True, kw_only=True):
    """A sentence or turn. The words, where there are any, lie within its times, in order.

    `seek` is the start of the window it was heard in, in hundredths of a second; `channel` the channel.
    """

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 1.0
    no_speech_prob: float = 0.0
    seek: int = 0
    speaker: str | None = None
    channel: int | None = None
    logprobs: tuple[TokenScore, ...] = ()

    @property
    def confidence(self) -> float | None:
        """The mean confidence of its words; None without words."""
        if not self.words:
            return None
        return sum(word.confidence for word in self.words) / len(self.words)


# Marks at the end of a sentence.
SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")
# A piece of a sentence with at most so many words is no segment of its own, if it follows within so long.
STUB_WORDS, STUB_PAUSE_S = 2, 0.05


def without_stubs(segments: Iterable[Segment]) -> list[Segment]:
    """The segments of one hearing, stubs of a sentence joined with the rest of it.

    Whisper now and then ends a segment before the last word of a sentence.
    """
    found: list[Segment] = []
    for segment in segments:
        if found and _is_one_sentence(found[-1], segment):
            found[-1] = msgspec.structs.replace(
                found[-1],
                end_s=segment.end_s,
                text=found[-1].text + segment.text,
                words=found[-1].words + segment.words,
                tokens=found[-1].tokens + segment.tokens,
            )
        else:
            found.append(segment)
    return found


def _is_one_sentence(before: Segment, after: Segment) -> bool:
    return (
        # of one pass of the model
        (before.avg_logprob, before.temperature) == (after.avg_logprob, after.temperature)
        and before.speaker == after.speaker
        and 0 < min(len(before.words), len(after.words)) <= STUB_WORDS
        and after.start_s - before.end_s <= STUB_PAUSE_S
        and not before.text.rstrip().endswith(SENTENCE_ENDS)
    )


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the transcription of a recording can go on: everything up to `until_s` is transcribed.

    The survey of the recording, the language of the last window, and `context`, the tokens of the text
    before the next window.
    """

    duration_s: float
    n_channels: int
    has_speakers: bool
    until_s: float = 0.0
    language: str = ""
    context: tuple[int, ...] = ()


class Transcript(Part, frozen=True, kw_only=True):
    """Everything heard in one recording."""

    segments: tuple[Segment, ...]
    language: str
    duration_s: float
    task: str = "transcribe"
    id: str | None = None  # of one that is stored

    @property
    def text(self) -> str:
        """The whole text, without the space at its beginning."""
        return text_of(self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)


def text_of(segments: tuple[Segment, ...] | list[Segment]) -> str:
    """Texts one after another. A change of speaker always gets a space."""
    text = ""
    for segment in segments:
        needs_space = segment.speaker is not None and text and not segment.text.startswith(" ")
        text += (" " if needs_space else "") + segment.text
    return text.strip()

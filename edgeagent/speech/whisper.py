"""One window of speech to segments and words: faster-whisper without its traps. Worker side, one thread.

What is done here rather than left to the library:

    windows    are ours (`windows.py`): its own voice detection shifts times and needs the whole recording
    language   is found for each window among those allowed, with the task as it was asked for: its
               `multilingual` switch changes the language token alone, which translates
    prompt     vocabulary, prompt and the text before share half the context: its hotwords and previous text
               have half each and overflow it together
    zeros      behind a window are not encoded, up to a margin (`short_encoder.py`)
    the end    of a window is not heard once more when its speech is over: that takes longer than the speech,
               and gives words that nobody said
    batches    are not used: its batched pipeline drops the text before and the temperature fallback, and made
               half as many errors more; a batch itself saves no time on a CPU (RESULTS.md)
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeagent.errors import InvalidParameter, ModelUnusable
from edgeagent.speech.hallucination_filter import believed, without_loops
from edgeagent.speech.local_agreement import n_covered, units_of
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.prompt import MAX_TEMPERATURE, Prompt
from edgeagent.speech.segments import Segment, TokenScore, Word
from edgeagent.speech.short_encoder import ShortEncoderModel
from edgeagent.speech.vad import RATE_HZ
from edgeagent.speech.windows import Samples, Window
from edgeagent.speech.word_times import Timed, refined, sound_of

# It tells of every recording.
logging.getLogger("faster_whisper").setLevel(logging.WARNING)

# Speech that is left when a segment ends so near to the end of all speech is none.
TAIL_S = 0.5
# What can be said in a second.
MAX_TOKENS_PER_S = 12
# A language other than that of the window before must be this likely to be believed.
LANGUAGE_PROBABILITY = 0.5


@dataclass(frozen=True)
class QuickText:
    """What a quick hearing gave: new text, its tokens and their probabilities."""

    text: str
    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]
    no_speech_prob: float
    language: str

    @property
    def confidence(self) -> float:
        return sum(self.probabilities) / max(1, len(self.probabilities))

    @property
    def avg_logprob(self) -> float:
        logs = [math.log(max(p, 1e-9)) for p in self.probabilities]
        return sum(logs) / max(1, len(logs))

    @property
    def compression_ratio(self) -> float:
        """High where the text repeats itself."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data)) if data else 1.0


class Whisper:
    """A loaded model. One thread; CTranslate2 fixes the number of threads that it computes with."""

    def __init__(self, folder: Path, *, n_threads: int, compute_type: str = "int8") -> None:
        """Raises: ModelUnusable."""
        try:
            self._model = ShortEncoderModel(
                str(folder),
                device="cpu",
                compute_type=compute_type,
                cpu_threads=n_threads,
                num_workers=1,
                local_files_only=True,
            )
        except (
            Exception
        ) as exc:  # CTranslate2 raises RuntimeError and ValueError for files of all kinds
            raise ModelUnusable(
                f"Speech model {folder.name} cannot be loaded ({exc}): install it again."
            ) from exc
        self.languages: tuple[str, ...] = tuple(self._model.supported_languages)

    @property
    def is_multilingual(self) -> bool:
        return len(self.languages) > 1

    def check(self, options: SpeechOptions) -> None:
        """Raises: InvalidParameter for a language that the model does not know, or too many keywords."""
        for name in filter(None, (options.language, *options.languages)):
            if name not in self.languages:
                param = "language" if name == options.language else "languages"
                raise InvalidParameter(
                    f"The model does not know the language {name[:40]!r}, it knows "
                    f"{self._languages_in_words()}: choose another language or a multilingual model.",
                    param=param,
                )
        Prompt(self._encode, options)

    def _languages_in_words(self) -> str:
        return "English only" if not self.is_multilingual else f"{len(self.languages)} others"

    def _encode(self, text: str) -> list[int]:
        return list(self._model.hf_tokenizer.encode(text, add_special_tokens=False).ids)

    def session(self, options: SpeechOptions) -> Session:
        """The hearing of one recording. Raises: InvalidParameter."""
        self.check(options)
        return Session(self._model, options, Prompt(self._encode, options), self.languages)


class Session:
    """One recording, window after window: keeps its language and the text before."""

    def __init__(
        self,
        model: ShortEncoderModel,
        options: SpeechOptions,
        prompt: Prompt,
        languages: Sequence[str],
    ) -> None:
        self._model = model
        self.options = options
        self._prompt = prompt
        self._known = languages
        self.language: str | None = options.language or (
            languages[0] if len(languages) == 1 else None
        )
        self._is_fixed = self.language is not None

    @property
    def context(self) -> tuple[int, ...]:
        """The tokens of the text before the next window."""
        return self._prompt.before

    def resume(self, language: str, context: Sequence[int]) -> None:
        """Go on behind windows that were heard by an earlier session."""
        if not self._is_fixed:
            self.language = language or None
        self._prompt.restore(context)

    def hear(self, window: Window, samples: Samples | None = None) -> Iterator[Segment]:
        """The segments of a window on the recording's clock; of `samples` where these stand for its mix."""
        heard = window.samples if samples is None else samples
        if not self._is_fixed:
            self.language = self._language_of(self._model.detect_language(heard)[2])
        options = self.options
        given, _ = self._model.transcribe(
            heard,
            language=self.language,
            task=options.task,
            beam_size=options.beam_size,
            temperature=list(options.temperatures),
            compression_ratio_threshold=options.compression_ratio_threshold,
            log_prob_threshold=options.logprob_threshold,
            no_speech_threshold=options.no_speech_threshold,
            condition_on_previous_text=options.is_conditioned,
            prompt_reset_on_temperature=MAX_TEMPERATURE,
            initial_prompt=self._prompt.tokens() or None,
            word_timestamps=options.has_words,
            vad_filter=False,
            multilingual=False,
        )
        found = _until(given, window.speech_end_s - TAIL_S)
        for raw in found:  # with its marks of time: the model goes on as it was taught to
            self._prompt.add(raw.tokens, raw.temperature)
        yield from self._refined(found, window, heard)

    def _language_of(self, scores: Iterable[tuple[str, float]]) -> str:
        """The likeliest allowed language; the one before unless another is likely enough."""
        allowed = [
            (p, name) for name, p in scores if name in (self.options.languages or self._known)
        ]
        probability, name = max(allowed)
        if self.language is not None and probability < LANGUAGE_PROBABILITY:
            return self.language
        return str(name)

    def _refined(self, found: list[Any], window: Window, heard: Samples) -> Iterator[Segment]:
        if not self.options.has_words:
            yield from without_loops([self._plain(raw, window) for raw in found])
            return
        sound = sound_of(heard, RATE_HZ)
        words = [
            Timed(word.word, float(word.start), float(word.end), float(word.probability))
            for raw in found
            for word in raw.words or ()
        ]
        timed = iter(refined(words, sound))
        segments = []
        for raw in found:
            own = [self._on_the_clock(next(timed), window) for _ in raw.words or ()]
            if segment := self._with_words(raw, own, window):
                segments.append(segment)
        yield from without_loops(
            [s for s in segments if believed(s, window.speech_s) and window.is_speech(s.words)]
        )

    @staticmethod
    def _on_the_clock(word: Timed, window: Window) -> Word:
        start_s, end_s = window.original_s(word.start_s, word.end_s)
        return Word(
            text=word.text,
            start_s=round(start_s, 3),
            end_s=round(end_s, 3),
            confidence=round(word.confidence, 4),
        )

    def _with_words(self, raw: Any, words: list[Word], window: Window) -> Segment | None:
        if not words:
            return None
        text = "".join(word.text for word in words)
        return self._segment(raw, window, words[0].start_s, words[-1].end_s, text, tuple(words))

    def _plain(self, raw: Any, window: Window) -> Segment:
        start_s, _ = window.original_s(raw.start, raw.start)
        _, end_s = window.original_s(raw.end, raw.end)
        return self._segment(
            raw, window, round(start_s, 3), round(max(start_s, end_s), 3), raw.text, ()
        )

    def _segment(
        self,
        raw: Any,
        window: Window,
        start_s: float,
        end_s: float,
        text: str,
        words: tuple[Word, ...],
    ) -> Segment:
        eot = self._model.hf_tokenizer.token_to_id("<|endoftext|>")
        tokens = tuple(int(token) for token in raw.tokens if token < eot)
        return Segment(
            start_s=start_s,
            end_s=end_s,
            text=text,
            words=words,
            tokens=tokens,
            temperature=float(raw.temperature),
            avg_logprob=float(raw.avg_logprob),
            compression_ratio=float(raw.compression_ratio),
            no_speech_prob=float(raw.no_speech_prob),
            seek=round(100 * window.start_s),
        )

    def scored(self, segments: Sequence[Segment], samples: Samples) -> list[Segment]:
        """The segments of a window with the log probability of each token, given the window's samples."""
        texts = [segment.tokens for segment in segments]
        if not any(texts):
            return list(segments)
        extractor = self._model.feature_extractor
        features = extractor(samples)[..., : extractor.nb_max_frames]
        n_frames = features.shape[-1]
        padded = np.pad(features, ((0, 0), (0, extractor.nb_max_frames - n_frames)))
        start = self._start()
        told = [token for text in texts for token in text]
        (aligned,) = self._model.model.align(self._model.encode(padded), start, [told], n_frames)
        pairs = iter(zip(told, aligned.text_token_probs, strict=True))
        return [
            msgspec.structs.replace(
                segment,
                logprobs=tuple(self._score(*next(pairs)) for _ in segment.tokens),
            )
            for segment in segments
        ]

    def hear_quickly(
        self, samples: Samples, told: str, *, seconds: float, beam_size: int
    ) -> QuickText:
        """The text behind `told`, which is that of the beginning of `samples`, in one go and without times.

        The encoder sees `seconds`, in place of 30. All of it is heard again: the model repeats itself where
        it is made to go on from a text.
        """
        tokenizer, extractor, model = (
            self._model.hf_tokenizer, self._model.feature_extractor, self._model.model
        )  # fmt: skip
        n_frames = min(extractor.nb_max_frames, round(100 * seconds)) // 2 * 2
        features = extractor(samples)[..., :n_frames]
        n_heard = features.shape[-1]
        encoded = self._model.encode_all(np.pad(features, ((0, 0), (0, n_frames - n_heard))))
        if not self._is_fixed and (self.language is None or beam_size > 1):
            (scores,) = model.detect_language(encoded)
            self.language = self._language_of((token[2:-2], p) for token, p in scores)
        before = self._prompt.tokens()
        start = self._start()
        prompt = [tokenizer.token_to_id("<|startofprev|>"), *before] if before else []
        prompt += [*start, tokenizer.token_to_id("<|notimestamps|>")]
        n_most = len(prompt) + round(MAX_TOKENS_PER_S * len(samples) / RATE_HZ) + 8
        (result,) = model.generate(
            encoded,
            [prompt],
            beam_size=beam_size,
            max_length=min(self._model.max_length, n_most),
            return_no_speech_prob=True,
        )
        eot = tokenizer.token_to_id("<|endoftext|>")
        tokens = [token for token in result.sequences_ids[0] if token < eot]
        n_told = self._n_told(tokens, told)
        probabilities: list[float] = []
        if tokens[n_told:]:
            (aligned,) = model.align(encoded, start, [tokens], n_heard)
            probabilities = list(aligned.text_token_probs)[n_told:]
        return QuickText(
            text=tokenizer.decode(tokens[n_told:]),
            tokens=tuple(tokens[n_told:]),
            probabilities=tuple(probabilities),
            no_speech_prob=float(result.no_speech_prob),
            language=self.language or "",
        )

    def _n_told(self, tokens: list[int], told: str) -> int:
        """How many of the tokens say what was told before."""
        if not told:
            return 0
        decode = self._model.hf_tokenizer.decode
        text = decode(tokens)
        n_chars = len("".join(units_of(text)[: n_covered(told, text)]))
        return next(n for n in range(len(tokens) + 1) if len(decode(tokens[:n])) >= n_chars)

    def scores_of(self, found: QuickText) -> tuple[TokenScore, ...]:
        pairs = zip(found.tokens, found.probabilities, strict=True)
        return tuple(self._score(token, probability) for token, probability in pairs)

    def _start(self) -> list[int]:
        """The tokens that say what is to be done."""
        tokenizer = self._model.hf_tokenizer
        start = [tokenizer.token_to_id("<|startoftranscript|>")]
        if len(self._known) > 1:
            start += [tokenizer.token_to_id(f"<|{self.language}|>")]
            start += [tokenizer.token_to_id(f"<|{self.options.task}|>")]
        return start

    def _score(self, token: int, probability: float) -> TokenScore:
        text = self._model.hf_tokenizer.decode([token])
        return TokenScore(
            token=text, logprob=float(np.log(max(probability, 1e-9))), bytes=list(text.encode())
        )


def _until(given: Iterable[Any], end_s: float) -> list[Any]:
    """The segments up to the one that reaches `end_s`; later ones are not computed."""
    found = []
    for raw in given:
        found.append(raw)
        if raw.end >= end_s:
            break
    return found

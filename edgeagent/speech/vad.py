"""Where somebody speaks: Silero's probabilities block by block, and the stretches of speech among them.

The model is the one that comes with faster-whisper; it sees 32 ms at a time and carries its state, so that a
recording of hours needs no more memory than one of seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray

from edgeagent.errors import InvalidParameter

RATE_HZ = 16_000
STEP = 512  # samples that one probability speaks for
_CONTEXT = 64  # samples before them that the model sees again
_STATE = (1, 1, 128)

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class VadOptions:
    """All that can be said about finding speech; the names of faster-whisper's options.

    `threshold`: speech begins at this probability; it ends below `neg_threshold` (default: 0.15 less) for
    `min_silence_duration_ms`. What is shorter than `min_speech_duration_ms` is dropped. `speech_pad_ms` is
    heard on either side. After `max_speech_duration_s` speech is cut where it is least likely.
    """

    threshold: float = 0.5
    neg_threshold: float | None = None
    min_speech_duration_ms: int = 100
    max_speech_duration_s: float = 24.0
    min_silence_duration_ms: int = 160
    speech_pad_ms: int = 300

    def __post_init__(self) -> None:
        bounds = {
            "threshold": (0.01, 0.99),
            "min_speech_duration_ms": (0, 10_000),
            "max_speech_duration_s": (1.0, 28.0),
            "min_silence_duration_ms": (32, 10_000),
            "speech_pad_ms": (0, 2_000),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidParameter(
                    f"`{name}` is {value}, it must be {low} to {high}.", param=f"vad.{name}"
                )
        if self.neg_threshold is not None and not 0 <= self.neg_threshold <= self.threshold:
            raise InvalidParameter(
                f"`neg_threshold` is {self.neg_threshold}, it must be 0 to `threshold` ({self.threshold}).",
                param="vad.neg_threshold",
            )

    @property
    def end_threshold(self) -> float:
        if self.neg_threshold is not None:
            return self.neg_threshold
        return max(self.threshold - 0.15, 0.01)


def load_detector() -> None:
    """Load the model now rather than with the first recording. ONNX Runtime is told to report nothing."""
    onnxruntime.disable_telemetry_events()
    get_vad_model()


class SpeechProbability:
    """Silero on one channel. One thread; keeps its state from block to block."""

    def __init__(self) -> None:
        load_detector()
        self._session = get_vad_model().session
        self._h = np.zeros(_STATE, dtype=np.float32)
        self._c = np.zeros(_STATE, dtype=np.float32)
        self._context = np.zeros(_CONTEXT, dtype=np.float32)
        self._rest = np.zeros(0, dtype=np.float32)

    def feed(self, samples: Samples, *, is_last: bool = False) -> NDArray[np.float32]:
        """The probability of speech in each `STEP` samples that are complete by now, in order.

        `is_last` fills the last one up with silence.
        """
        samples = np.concatenate((self._rest, samples))
        if is_last and len(samples) % STEP:
            samples = np.pad(samples, (0, STEP - len(samples) % STEP))
        n = len(samples) // STEP
        self._rest = samples[n * STEP :]
        if not n:
            return np.zeros(0, dtype=np.float32)
        steps = samples[: n * STEP].reshape(n, STEP)
        before = np.concatenate((self._context[None], steps[:-1, -_CONTEXT:]))
        self._context = steps[-1, -_CONTEXT:].copy()
        given = {"input": np.concatenate((before, steps), axis=1), "h": self._h, "c": self._c}
        found, self._h, self._c = self._session.run(None, given)
        return np.asarray(found, dtype=np.float32).reshape(-1)


@dataclass(frozen=True)
class Stretch:
    """Speech without a longer pause, in samples from the beginning, without padding."""

    start: int
    end: int


class StretchFinder:
    """Probabilities in, stretches of speech out, as soon as each has ended. Pure but for its state."""

    def __init__(self, options: VadOptions, *, n_seen: int = 0) -> None:
        self._options = options
        self._n = n_seen  # probabilities
        self._start: int | None = None
        self._quiet_since: int | None = None
        self._recent: list[float] = []  # probabilities since the start of the open stretch

    def feed(
        self, probabilities: NDArray[np.float32], *, is_last: bool = False
    ) -> Iterator[Stretch]:
        """The stretches that ended within these probabilities."""
        for probability in probabilities:
            yield from self._step(float(probability))
        if is_last and self._start is not None:
            yield from self._close(self._quiet_since if self._quiet_since is not None else self._n)

    @property
    def open_since(self) -> int:
        """The sample from which on audio is still needed."""
        return (self._start if self._start is not None else self._n) * STEP

    @property
    def begun_at(self) -> int | None:
        """The sample at which speech has begun that has not ended; None until it is certain to be kept."""
        if self._start is None:
            return None
        end = self._quiet_since if self._quiet_since is not None else self._n
        is_kept = _ms(end - self._start) >= self._options.min_speech_duration_ms
        return self._start * STEP if is_kept else None

    @property
    def quiet_since(self) -> int | None:
        """The sample from which on the open stretch may be over."""
        return self._quiet_since * STEP if self._quiet_since is not None else None

    def _step(self, probability: float) -> Iterator[Stretch]:
        options, here = self._options, self._n
        self._n += 1
        if self._start is None:
            if probability >= options.threshold:
                self._start, self._quiet_since, self._recent = here, None, [probability]
            return
        self._recent.append(probability)
        if probability >= options.threshold:
            self._quiet_since = None
        elif probability < options.end_threshold and self._quiet_since is None:
            self._quiet_since = here
        if self._quiet_since is not None and _ms(here + 1 - self._quiet_since) >= (
            options.min_silence_duration_ms
        ):
            yield from self._close(self._quiet_since)
        elif _ms(here + 1 - self._start) >= 1000 * options.max_speech_duration_s:
            yield from self._cut(here + 1)

    def _close(self, end: int) -> Iterator[Stretch]:
        assert self._start is not None
        start, self._start, self._quiet_since, self._recent = self._start, None, None, []
        if _ms(end - start) >= self._options.min_speech_duration_ms:
            yield Stretch(start * STEP, end * STEP)

    def _cut(self, end: int) -> Iterator[Stretch]:
        """Cut a stretch that is too long where speech is least likely in its last third."""
        assert self._start is not None
        start, recent = self._start, self._recent
        first = len(recent) * 2 // 3
        at = first + int(np.argmin(recent[first:-1]))
        self._start, self._recent, self._quiet_since = start + at, recent[at:], None
        yield Stretch(start * STEP, (start + at) * STEP)


def _ms(n_steps: int) -> float:
    return n_steps * STEP * 1000 / RATE_HZ

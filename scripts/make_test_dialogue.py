#!/usr/bin/env python3
"""Make tests/data/dialogue.ogg: ten seconds of two voices, one on each channel, spoken by eSpeak NG.

    pip install espeakng-loader==0.2.4 && python -m scripts.make_test_dialogue

The sentences are ours, the voices synthetic. `tests/data/dialogue.json` has each turn's channel, times, text.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import av
import espeakng_loader
import numpy as np

from edgeagent.speech.audio import RATE_HZ, Samples, blocks
from scripts.benchmarks.noises import wav

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
TURNS = (
    (0, "en-us+m3", "Good morning. How are you feeling today?"),
    (1, "en-gb+f2", "I have a headache and a fever."),
    (0, "en-us+m3", "When did the headache start?"),
    (1, "en-gb+f2", "It started on Monday morning."),
)
PAUSE = RATE_HZ // 2
_SYNCHRONOUS, _UTF8, _RATE = 2, 1, 1


class Voice:
    """eSpeak NG in this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = espeakng_loader.get_data_path().encode()
        self.rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, path, 0)
        self._parts: list[Any] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = kind(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: Any, n: int, events: Any) -> int:
        if samples and n:
            self._parts.append(np.ctypeslib.as_array(samples, (n,)).copy())
        return 0

    def say(self, text: str, voice: str) -> Samples:
        """The text as samples of 16 kHz, at half of full scale."""
        self._parts.clear()
        self._library.espeak_SetVoiceByName(voice.encode())
        self._library.espeak_SetParameter(_RATE, 150, 0)
        spoken = text.encode()
        self._library.espeak_Synth(spoken, len(spoken) + 1, 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._parts).astype(np.float32) / 32768
        at_16k = np.concatenate(list(blocks(wav(samples, self.rate_hz))), axis=1)[0]
        return np.asarray(at_16k / np.abs(at_16k).max() / 2, dtype=np.float32)


def main() -> None:
    voice = Voice()
    said = [(channel, text, voice.say(text, name)) for channel, name, text in TURNS]
    n = sum(len(samples) + PAUSE for _, _, samples in said) + PAUSE
    sound = np.random.default_rng(0).standard_normal((2, n)).astype(np.float32) * 2e-4
    turns, at = [], PAUSE
    for channel, text, samples in said:
        sound[channel, at : at + len(samples)] += samples
        end = at + len(samples)
        turns.append(
            {"channel": channel, "start_s": at / RATE_HZ, "end_s": end / RATE_HZ, "text": text}
        )
        at = end + PAUSE
    write_opus(DATA / "dialogue.ogg", sound)
    (DATA / "dialogue.json").write_text(json.dumps(turns, indent=1) + "\n")


def write_opus(path: Path, sound: Samples) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=RATE_HZ, layout="stereo")
        stream.bit_rate = 32_000
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound), format="fltp", layout="stereo"
        )
        frame.rate = RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


if __name__ == "__main__":
    main()

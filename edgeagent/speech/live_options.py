"""How one live session is to be heard: plain data, for the worker and the daemon alike."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeagent.errors import InvalidParameter
from edgeagent.speech.options import SpeechOptions

# Samples as they arrive: signed 16 bits (little-endian), or G.711 at 8 kHz.
LiveFormat = Literal["pcm16", "pcmu", "pcma"]
RATES_HZ = (8_000, 16_000, 24_000, 44_100, 48_000)


class TurnDetection(msgspec.Struct, frozen=True, kw_only=True):
    """When somebody's turn begins and ends. The defaults are those of OpenAI's realtime API.

    A turn begins at this probability of speech, with `prefix_padding_ms` of what came before, and ends
    after `silence_duration_ms` without speech.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500

    def check(self) -> None:
        """Raises: InvalidParameter."""
        bounds = {
            "threshold": (0.01, 0.99),
            "prefix_padding_ms": (0, 2_000),
            "silence_duration_ms": (32, 10_000),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidParameter(
                    f"`{name}` is {value}, it must be {low} to {high}.",
                    param=f"turn_detection.{name}",
                )


class LiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """All that a caller can choose. `turns` None: the caller says where an item ends."""

    speech: SpeechOptions = SpeechOptions()
    format: LiveFormat = "pcm16"
    rate_hz: int = 24_000
    turns: TurnDetection | None = TurnDetection()

    @property
    def bytes_per_s(self) -> int:
        return self.rate_hz * (2 if self.format == "pcm16" else 1)

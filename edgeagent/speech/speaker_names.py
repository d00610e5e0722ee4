"""Names of speakers against the channels of a recording. Pure."""

from __future__ import annotations

from edgeagent.errors import InvalidParameter
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import Surveyed


def check_names(options: SpeechOptions, found: Surveyed) -> None:
    """Raises: InvalidParameter for names that cannot be given to anybody: channel by channel, in order."""
    names, n_channels = options.speaker_names, found.n_channels
    if not names:
        return
    if not found.has_speakers:
        channels = "one channel" if n_channels == 1 else f"{n_channels} channels that do not differ"
        raise InvalidParameter(
            f"Speakers are told apart by channel, and this recording has {channels}: leave out "
            "`known_speaker_names`, or send a channel for each speaker.",
            param="known_speaker_names",
        )
    if len(names) > n_channels:
        raise InvalidParameter(
            f"`known_speaker_names` has {len(names)} names, and the recording has {n_channels} channels: "
            "give one name for each channel, in their order.",
            param="known_speaker_names",
        )

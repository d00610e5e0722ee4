"""Names of speakers against the channels of a recording."""

from __future__ import annotations

import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import Surveyed
from edgeagent.speech.speaker_names import check_names


@pytest.mark.parametrize(
    ("names", "n_channels", "has_speakers"),
    [((), 1, False), ((), 2, True), (("a",), 2, True), (("a", "b"), 2, True)],
)
def test_there_is_a_channel_for_each_name(names, n_channels, has_speakers):
    check_names(SpeechOptions(speaker_names=names), Surveyed(1, 9.0, n_channels, has_speakers))


@pytest.mark.parametrize(
    ("names", "n_channels", "has_speakers", "what"),
    [
        (("a", "b"), 1, False, "has one channel"),
        (("a", "b"), 2, False, "has 2 channels that do not differ"),
        (("a", "b", "c"), 2, True, "has 3 names, and the recording has 2 channels"),
    ],
)
def test_names_without_a_channel_are_refused(names, n_channels, has_speakers, what):
    with pytest.raises(InvalidParameter, match=what) as refused:
        check_names(SpeechOptions(speaker_names=names), Surveyed(1, 9.0, n_channels, has_speakers))
    assert refused.value.param == "known_speaker_names"

"""Until when a client may send no audio."""

from __future__ import annotations

import pytest

from edgeagent.serving.audio_deadline import AudioDeadline


@pytest.mark.parametrize(
    ("told", "deadlines"),
    [
        ([0.0, 0.0, 0.0], [110, 110, 110]),
        ([0.0, 1.0, 1.0, 2.0], [110, 111, 111, 113]),
        ([None, None, 0.0, 0.0], [110, 111, 112, 112]),
        ([0.0, 3.0, 0.0, 0.0, 1.0], [110, 111, 111, 111, 114]),
        ([2.0, None, 2.0], [110, 111, 112]),
    ],
)
def test_only_audio_moves_the_deadline_of_a_session(told, deadlines):
    """A message comes every second, the first at 100."""
    clock = iter(range(100, 200))
    now = [0.0]
    deadline = AudioDeadline(10, lambda: now[0])
    found = []
    for audio_s in told:
        now[0] = next(clock)
        found.append(deadline.at_s(audio_s))
    assert found == deadlines

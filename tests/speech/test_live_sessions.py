"""The live sessions of a worker, and which takes a step."""

from __future__ import annotations

from edgeagent.speech.live import LiveSession
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.live_sessions import LiveSessions
from tests.speech.test_live import BYTES, Script


def test_sessions_with_as_much_to_do_take_turns():
    sessions = LiveSessions()
    for number in (1, 2, 3):
        session = LiveSession(number, LiveOptions(rate_hz=16_000), lambda options: Script())
        session.add(BYTES[:6400])
        sessions.open(session)
    order = []
    for _ in range(3):
        found = sessions.next()
        assert found is not None
        order.append(found[0].request_id)
        sessions.move_back(found[0])
    assert order == [1, 2, 3]
    assert sessions.close(2)
    assert not sessions.close(2)
    assert len(sessions) == 2

"""The live sessions of one speech worker, and which takes a step. One thread."""

from __future__ import annotations

from edgeagent.speech.live import LiveSession


class LiveSessions:
    """All live sessions of one worker, and which takes a step."""

    def __init__(self) -> None:
        self._sessions: dict[int, LiveSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, request_id: int) -> LiveSession | None:
        return self._sessions.get(request_id)

    def open(self, session: LiveSession) -> None:
        self._sessions[session.request_id] = session

    def close(self, request_id: int) -> bool:
        """False where there is none."""
        return self._sessions.pop(request_id, None) is not None

    def next(self) -> tuple[LiveSession, int] | None:
        """The session that is to take a step, with how many talk."""
        n_talking = max(1, sum(session.is_talking for session in self._sessions.values()))
        ranked = [
            (urgency, session)
            for session in self._sessions.values()
            if (urgency := session.urgency(n_talking)) is not None
        ]
        if not ranked:
            return None
        _, chosen = min(ranked, key=lambda found: found[0])
        return chosen, n_talking

    def move_back(self, session: LiveSession) -> None:
        """Let its equals go first."""
        self._sessions[session.request_id] = self._sessions.pop(session.request_id)

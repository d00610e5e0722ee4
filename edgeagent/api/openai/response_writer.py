"""Sends a response of the stateful API: its events as server-sent events, or the whole object."""

from __future__ import annotations

import msgspec

from edgeagent.api.http.background_stream import PING, event_bytes
from edgeagent.api.http.response_sender import EVENT_STREAM
from edgeagent.errors import EdgeAgentError
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.serving.response_builder import ResponseBuilder
from edgeagent.types.answer import PromptFacts, TokenChunk


class ResponseWriter:
    """A `stream.Writer` around the builder of one response."""

    content_type = EVENT_STREAM
    ping: bytes | None = PING

    def __init__(self, builder: ResponseBuilder, *, is_stream: bool) -> None:
        self._builder = builder
        self._is_stream = is_stream

    def decided(self, decision: Decision) -> None:
        self._builder.response["model"] = decision.name

    def opening(self, facts: PromptFacts | None) -> bytes:
        return event_bytes(self._builder.begin() + self._builder.progress())

    def events(self, chunks: list[TokenChunk]) -> bytes:
        return event_bytes(self._builder.add(chunks))

    def collect(self, chunks: list[TokenChunk]) -> None:
        """Add chunks of an answer that is not streamed; `events` adds those of a stream."""
        if not self._is_stream:
            self._builder.add(chunks)

    def last_events(self, answer: Answer) -> bytes:
        return event_bytes(self._builder.finish(answer))

    def whole(self, answer: Answer) -> bytes:
        self._builder.finish(answer)
        return msgspec.json.encode(self._builder.response)

    def error_events(self, error: EdgeAgentError) -> bytes:
        return event_bytes(self._builder.fail(error))

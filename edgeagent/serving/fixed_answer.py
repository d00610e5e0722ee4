"""An answer whose text is known without a model: nothing is generated, and no engine is leased."""

from __future__ import annotations

import time

from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.serving.engines import Engines
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.types.answer import TokenChunk, Usage
from edgeagent.types.generation import GenerateSpec


class FixedAnswer(Answer):
    """As `Answer`. It counts no tokens, since none was read or generated."""

    def __init__(
        self, origin: RequestOrigin, decision: Decision, spec: GenerateSpec, engines: Engines, text: str,
        notes: list[str],
    ) -> None:  # fmt: skip
        super().__init__(origin, decision, spec, engines, notes=notes)
        self._chunks: list[TokenChunk] = []
        self._text = text

    async def begin(self) -> None:
        total_ms = 1e3 * (time.monotonic() - self.record.started_s)
        usage = Usage(0, 0, 0, 0.0, total_ms, total_ms)
        self._chunks = [TokenChunk(0, self._text, finish="stop", usage=usage)]

    async def take(self) -> list[TokenChunk]:
        chunks, self._chunks = self._chunks, []
        for chunk in chunks:
            self._count(chunk)
            self.record.status = 200
        return chunks

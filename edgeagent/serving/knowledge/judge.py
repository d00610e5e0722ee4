"""A rank model that tells whether a question is answered by passages: what it learned is answers, and not
nearness as an embedding model. It is asked where it is installed, and passages are there at all.

Its scores are calibrated: of passages that it gives 0.5, half answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edgeagent.errors import EdgeAgentError
from edgeagent.serving.engines import Engines
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.types.unary_requests import RerankSpec, Scores

logger = logging.getLogger(__name__)

N_JUDGED = 4  # passages of a question
N_TOKENS = 256  # of each; what it was trained with


class Judge:
    """Event loop's thread only."""

    def __init__(
        self, engines: Engines, chooser: ModelChooser, settings: KnowledgeSettings
    ) -> None:
        self._engines = engines
        self._chooser = chooser
        self._settings = settings

    async def scores(self, question: str, texts: Sequence[str]) -> list[float] | None:
        """How likely each of the texts answers, 0..1; None where no judge can be asked."""
        model = self._settings.judge_model
        if not model or not texts or model not in await self._chooser.with_task("rerank"):
            return None
        spec = RerankSpec(query=question, documents=list(texts), truncate=True, max_tokens=N_TOKENS)
        try:
            async with self._engines.lease(model) as client:
                scores: Scores = await client.ask(spec)
        except EdgeAgentError as exc:  # evidence decides alone
            logger.warning("question_not_judged model=%s code=%s", model, exc.code)
            return None
        return list(scores.values)

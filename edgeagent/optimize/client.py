"""The command's side of a scoring worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from edgeagent.errors import EdgeAgentError, EngineDied
from edgeagent.optimize.protocol import (
    ActivationSums,
    AlterWeights,
    ChunkScores,
    CollectImportance,
    Errors,
    RenderChat,
    RoundingErrors,
    RunTimes,
    ScoreChunk,
    ScoringConfig,
    ScoringFacts,
    SetImportance,
    TimeRun,
    TokenizeText,
    decode_to_command,
)
from edgeagent.worker.client import WorkerClient, describe_exit

LOAD_TIMEOUT_S = 600.0


def died_while_measuring(name: str, how: str) -> str:
    """What is said of a process of ours that ended while it worked on a model."""
    return (
        f"The process that worked on {name} ended ({how}), as the kernel does it where memory is short: run "
        "the command again with more memory free; what was measured is kept."
    )


class ScoringClient(WorkerClient):
    """A running scoring worker. Event loop's thread only."""

    module = "edgeagent.optimize.worker"
    decode = staticmethod(decode_to_command)
    config: ScoringConfig
    facts: ScoringFacts

    async def tokens(self, text: str, *, special: bool = False) -> bytes:
        """The tokens of a text, int32 [n], with BOS where the model asks for it."""
        request_id = self._new_id()
        reply = await self._ask(request_id, TokenizeText(request_id, text, special))
        ids: bytes = reply.ids
        return ids

    async def score(
        self, tokens: bytes, *, n_top: int = 0, n_tail: int = 0, seed: int = 0, ids: bytes = b""
    ) -> ChunkScores:
        """Scores of a chunk of tokens; see `ScoreChunk`."""
        request_id = self._new_id()
        message = ScoreChunk(request_id, tokens, n_top, n_tail, seed, ids)
        reply: ChunkScores = await self._ask(request_id, message)
        return reply

    async def time_run(self, n_prompt: int, n_decode: int) -> RunTimes:
        """Seconds of a prompt and of the tokens after it."""
        request_id = self._new_id()
        reply: RunTimes = await self._ask(request_id, TimeRun(request_id, n_prompt, n_decode))
        return reply

    async def importance(self, tokens: bytes, endings: Sequence[str] = ()) -> ActivationSums:
        """How large the activations of each matrix were over a chunk; see `CollectImportance`."""
        request_id = self._new_id()
        message = CollectImportance(request_id, tokens, tuple(endings))
        reply: ActivationSums = await self._ask(request_id, message)
        return reply

    async def set_importance(self, columns: dict[str, bytes]) -> None:
        """The weights of columns that later requests count errors by."""
        request_id = self._new_id()
        await self._ask(request_id, SetImportance(request_id, columns))

    async def alter(
        self,
        types: Mapping[str, str],
        zero_columns: Mapping[str, bytes] | None = None,
        plain: Sequence[str] = (),
    ) -> None:
        """Round these matrices to types (`plain`: without importance), set columns (int32) to zeros, all
        others to what the file has."""
        request_id = self._new_id()
        message = AlterWeights(request_id, dict(types), dict(zero_columns or {}), tuple(plain))
        await self._ask(request_id, message)

    async def rounding_errors(self, name: str, types: Sequence[str], stride: int = 1) -> Errors:
        """How far a matrix is from its roundings; see `RoundingErrors`."""
        request_id = self._new_id()
        message = RoundingErrors(request_id, name, tuple(types), stride)
        reply: Errors = await self._ask(request_id, message)
        return reply

    async def chat_text(self, messages: Sequence[tuple[str, str]]) -> str:
        """Messages (role, content) as the model's chat template writes them."""
        request_id = self._new_id()
        reply = await self._ask(request_id, RenderChat(request_id, tuple(messages)))
        text: str = reply.text
        return text

    def _death(self) -> EngineDied:
        return EngineDied(died_while_measuring(self.config.model_id, describe_exit(self._status())))

    def _receive_own(self, message: Any) -> None:
        raise EdgeAgentError(f"A scoring worker sent {type(message).__name__}.")


@asynccontextmanager
async def scoring_worker(config: ScoringConfig) -> AsyncIterator[ScoringClient]:
    """A worker with a loaded model, which ends with the block. Raises: what `WorkerClient.start` raises."""
    # The error has llama.cpp's reason; the rest of its log would disturb the output.
    process = ScoringClient.launch(config, "error", is_silent=True)
    client = await ScoringClient.start(config, timeout_s=LOAD_TIMEOUT_S, process=process)
    try:
        yield client
    finally:
        await client.close()

"""The places outside the database that hold content of clients, registered with the erasure hub.

They forget in the order of registration: running answers end before their stored parts are deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeagent.pool import Pool
from edgeagent.serving.audio_job_runner import AudioJobRunner
from edgeagent.serving.background_responses import BackgroundResponses
from edgeagent.serving.batch_runner import BatchRunner
from edgeagent.serving.conversations import Conversations
from edgeagent.serving.knowledge.base import KnowledgeBase
from edgeagent.serving.live_transcription import LiveTranscriptions
from edgeagent.serving.prefix_store import PrefixStore
from edgeagent.serving.remembered_answers import RememberedAnswers
from edgeagent.serving.terminal_history import forget_history
from edgeagent.store.data_lifecycle import DataLifecycle
from edgeagent.store.erasure_hub import DeletedContent, ErasureHub
from edgeagent.store.keyring import Keyring
from edgeagent.store.requests import RequestLog


@dataclass(frozen=True)
class ErasureParticipants:
    """The parts of the daemon that hold content, and how each one forgets it."""

    background: BackgroundResponses
    conversations: Conversations
    is_stored: bool
    lifecycle: DataLifecycle
    requests: RequestLog | None
    pool: Pool
    keyring: Keyring
    prefix_store: PrefixStore
    audio_job_runner: AudioJobRunner
    state_dir: Path
    remembered: RememberedAnswers
    batch_runner: BatchRunner
    live: LiveTranscriptions
    knowledge: KnowledgeBase

    def register(self, hub: ErasureHub) -> None:
        for name, holds, forget in (
            ("background answers", "running answers and their events", self._runs),
            ("batches", "requests of batches that are being done", self._batches),
            ("documents", "documents that are being indexed", self.knowledge.forget),
            ("remembered answers", "answers to requests with an Idempotency-Key", self._answers),
            ("recordings", "audio of transcription jobs, on disk", self.audio_job_runner.forget),
            ("live sessions", "speech that is being transcribed", self.live.forget),
            ("exports", "pages of running exports", self._exports),
            ("request log", "rows not written yet", self._requests),
            ("cached prefixes", "prompts, answers and schemas in workers", self._cells),
            ("kept prefixes", "KV cache of conversations and system prompts, on disk", self._files),
            ("terminal history", "lines typed into `edgeagent chat`", self._history),
        ):
            hub.register(name, holds, forget)

    async def _runs(self, gone: DeletedContent) -> None:
        """End answers whose row or content is gone, and drop ended answers of a conversation that lost an
        item."""
        ids = self.background.ids(gone.owner)
        if not ids:
            return
        stored = await self.conversations.stored(ids) if self.is_stored else set(ids)
        lost = set(ids) - stored
        if gone.conversation is not None:
            lost.update(self.background.ended_in(gone.conversation))
        await self.background.forget(lost)

    async def _batches(self, gone: DeletedContent) -> None:
        await self.batch_runner.forget(begins_again=gone.cause in ("erase", "elsewhere"))

    async def _answers(self, gone: DeletedContent) -> None:
        if gone.cause != "expire":
            await self.remembered.forget(gone)

    async def _exports(self, gone: DeletedContent) -> None:
        if gone.cause != "expire":
            self.lifecycle.stop_exports(gone)

    async def _requests(self, gone: DeletedContent) -> None:
        if self.requests is None or gone.cause == "expire":
            return
        self.requests.forget_decisions(gone.owner)
        if gone.is_whole_owner:
            self.requests.forget(gone.owner)

    async def _cells(self, gone: DeletedContent) -> None:
        """Drop cached prompts; after an erasure all of them, because unstored prompts are cached, too."""
        if gone.owner is None or gone.cause == "erase":
            self.pool.forget_prefixes()
            return
        for scope in self.keyring.key_ids(gone.owner):
            self.pool.forget_prefixes(scope)

    async def _files(self, gone: DeletedContent) -> None:
        if gone.owner is not None and gone.cause != "erase":
            if gone.cause == "delete":  # what expires has an age of its own
                await self.prefix_store.warm.forget(gone.owner)
            self.prefix_store.forget(gone.owner)
        else:
            await self.prefix_store.warm.forget(gone.owner if gone.is_whole_owner else None)
            await self.prefix_store.erased()

    async def _history(self, gone: DeletedContent) -> None:
        if gone.cause in ("erase", "elsewhere"):
            forget_history(self.state_dir)

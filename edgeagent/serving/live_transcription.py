"""Live transcription: sessions within bounds, each with a place on the speech worker for as long as it lasts.

Audio goes to the worker as it comes; a client that is ahead of it by `MAX_AHEAD_S` waits. A worker that dies
fails the items that are open; the next audio starts another one. A session ends when its key is revoked or
its owner is erased.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from edgeagent.errors import (
    BadRequest,
    EdgeAgentError,
    EngineFailed,
    Erased,
    Interrupted,
    InvalidParameter,
    QueueFull,
    RateLimited,
)
from edgeagent.routing.decision import Decision
from edgeagent.serving.audio_quota import AudioQuota
from edgeagent.serving.authentication import key_gone
from edgeagent.serving.engines import Engines
from edgeagent.serving.live_events import Completed, LiveEvent, Refused
from edgeagent.serving.live_items import LiveItems
from edgeagent.serving.metrics import LIVE
from edgeagent.serving.request_log import RequestRecord
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.settings.speech import LiveSettings
from edgeagent.speech.client import LiveStream, SpeechClient
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.live_protocol import Consumed, DropItem, EndItem, Listen, LiveAudio
from edgeagent.speech.protocol import Finished
from edgeagent.store.erasure_hub import DeletedContent
from edgeagent.types.caller import LOCAL, Caller

logger = logging.getLogger(__name__)

# Audio that was sent to the worker and not looked at yet.
MAX_AHEAD_S = 10.0
RETRY_AFTER_S = 5.0
KEY_CHECK_S = 10.0
COUNT_S = 60.0  # of audio, between two looks at what a key may have within a day


class LiveSession:
    """One stream of audio and what is heard of it. Event loop's thread only; `close()` may be called twice.

    One task sends (`append`, `commit`, `clear`, `change`), another one takes events.
    """

    def __init__(
        self,
        origin: RequestOrigin,
        decision: Decision,
        options: LiveOptions,
        engines: Engines,
        settings: LiveSettings,
    ) -> None:
        self.decision = decision
        self.options = options
        self._engines = engines
        self._settings = settings
        self._record = RequestRecord(origin, decision, status=200)
        self._items = LiveItems(has_turns=options.turns is not None)
        self._events: deque[LiveEvent] = deque()
        self._has_events = asyncio.Event()
        self._has_room = asyncio.Event()
        self._stack = AsyncExitStack()
        self._client: SpeechClient | None = None
        self._stream: LiveStream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._n_ahead = 0
        self._offset_s = 0.0  # audio before the first of this worker
        self.audio_s = 0.0
        self.counted_s = 0.0  # of it, against the bound of the key
        self._is_closed = False
        self._error: EdgeAgentError | None = None  # that ended it from outside

    @property
    def key_id(self) -> str:
        return self._record.origin.key_id

    @property
    def audio_s_per_day(self) -> float | None:
        return self._record.origin.audio_s_per_day

    @property
    def owner(self) -> str:
        return self._record.origin.owner

    # --- what the client sends

    async def append(self, data: bytes) -> None:
        """The next audio, in the session's format. Waits while the worker has too much to look at.

        Raises: InvalidParameter for more than may wait for a commit; Interrupted once the session is closed;
        what `Pool.lease` and the worker raise.
        """
        seconds = len(data) / self.options.bytes_per_s
        most = self._settings.max_item_s
        if self._items.open_s + seconds > most:
            raise InvalidParameter(
                f"The audio buffer holds {self._items.open_s:.0f} s, at most {most:g} s are kept: commit or "
                "clear it, or let the server find turns (turn_detection).",
                param="audio",
            )
        stream = await self._opened()
        while self._n_ahead > MAX_AHEAD_S * self.options.bytes_per_s and stream is self._stream:
            self._has_room.clear()
            await self._has_room.wait()
        if stream is not self._stream:
            stream = await self._opened()
        self._n_ahead += len(data)
        self.audio_s += seconds
        self._items.appended(seconds)
        self._tell(LiveAudio(stream.request_id, data))

    async def commit(self) -> None:
        """The audio so far is an item. Raises: InvalidParameter where there is none."""
        self._add(list(self._items.commit()))
        self._tell(EndItem((await self._opened()).request_id))

    async def clear(self) -> None:
        """Forget the audio that belongs to no item yet."""
        self._items.clear()
        self._tell(DropItem((await self._opened()).request_id))

    async def change(self, options: LiveOptions) -> None:
        """Go on by other options. Raises: BadRequest for what cannot change behind the first audio."""
        before = self.options
        is_other_audio = (options.format, options.rate_hz) != (before.format, before.rate_hz)
        is_other_turns = (options.turns is None) != (before.turns is None)
        if self.audio_s and (is_other_audio or is_other_turns):
            what = "`format`" if is_other_audio else "`turn_detection`"
            raise BadRequest(
                f"{what} cannot change once audio has been sent: update the session before, or open another."
            )
        self.options = options
        if is_other_turns:
            self._items = LiveItems(has_turns=options.turns is not None)
        if self._stream is not None:
            self._tell(Listen(self._stream.request_id, options))

    def choose(self, decision: Decision) -> None:
        """Hear with another model. Raises: BadRequest once audio has been sent."""
        if decision.model_id == self.decision.model_id:
            return
        if self.audio_s:
            raise BadRequest(
                f"This session is heard by {self.decision.model_id}, which cannot change once audio has been "
                "sent: open another session."
            )
        self.decision = self._record.decision = decision

    # --- what the client is told

    async def take(self) -> list[LiveEvent]:
        """All events since the last call, at least one. Raises: the error that interrupted the session."""
        while self._error is not None or not self._events:
            if self._error is not None:
                raise self._error
            self._has_events.clear()
            await self._has_events.wait()
        events = list(self._events)
        self._events.clear()
        return events

    async def interrupt(self, error: EdgeAgentError) -> None:
        """End the session from outside: nothing more is heard or told, and its client gets the error."""
        if self._error is None:
            self._error = error
            self._has_events.set()
            await self._leave()

    async def close(self) -> None:
        """End the session, give its place back, note how it went."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._leave()
        if isinstance(self._error, Erased):  # its row would come after the erasure
            return
        row = self._record.row(
            self._engines, n_prompt=0, queue_ms=None, finish=LIVE, audio_s=self.audio_s
        )
        self._engines.log(row)

    # --- the worker

    async def _opened(self) -> LiveStream:
        """The stream of a living worker. Raises what `Pool.lease` raises."""
        if self._stream is not None:
            return self._stream
        await self._leave()
        self._ensure_open()
        stack = self._stack
        lease = self._engines.lease_worker(self.decision.model_id, SpeechClient)
        client = await stack.enter_async_context(lease)
        if (
            self._is_closed or self._error is not None
        ):  # while the worker started: `close()` has left this to us
            await stack.aclose()
        self._ensure_open()
        self._client = client
        self._offset_s, self._n_ahead = self.audio_s, 0
        self._stream = client.listen(self.options)
        self._reader = asyncio.create_task(self._read(self._stream), name="live-session")
        return self._stream

    def _ensure_open(self) -> None:
        """Raises: Interrupted once the session has been closed: nobody would give the worker back; the error
        that interrupted it."""
        if self._error is not None:
            raise self._error
        if self._is_closed:
            raise Interrupted("The session has ended: open another one.")

    async def _leave(self) -> None:
        """Give the worker's place back, whatever the reader ended with."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        reader, self._reader = self._reader, None
        stack, self._stack = self._stack, AsyncExitStack()
        try:
            if reader is not None and reader is not asyncio.current_task():
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
        finally:
            await stack.aclose()

    async def _read(self, stream: LiveStream) -> None:
        """Pass on what the worker hears, until it or the session ends."""
        try:
            while replies := await stream.take():
                for reply in replies:
                    if isinstance(reply, Consumed):
                        self._n_ahead -= reply.n_bytes
                        self._has_room.set()
                    elif not isinstance(reply, Finished):
                        self._add(self._items.heard(reply, self._offset_s))
        except EdgeAgentError as exc:
            self._add(list(self._items.failed(exc)) or [Refused(exc)])
            logger.info("live_session_failed model=%s code=%s", self.decision.model_id, exc.code)
        except Exception:
            logger.exception("live_session_broken model=%s", self.decision.model_id)
            error = EngineFailed("The session failed.")
            self._add(list(self._items.failed(error)) or [Refused(error)])
        finally:
            if self._stream is stream:
                self._stream = None
            self._has_room.set()

    def _tell(self, message: Listen | LiveAudio | EndItem | DropItem) -> None:
        if self._client is not None:
            self._client.tell(message)

    def _add(self, events: Iterable[LiveEvent]) -> None:
        for event in events:
            if isinstance(event, Completed):
                self._engines.record_answer(self.decision.model_id)
            self._events.append(event)
        self._has_events.set()


class LiveTranscriptions:
    """Opens live sessions, as many as this device keeps up with. Event loop's thread only."""

    def __init__(
        self,
        engines: Engines,
        settings: LiveSettings,
        quota: AudioQuota,
        caller_of: Callable[[str], Caller | None],
    ) -> None:
        self._engines = engines
        self._settings = settings
        self._quota = quota
        self._caller_of = caller_of
        self._by_key: Counter[str] = Counter()
        self._sessions: set[LiveSession] = set()

    @asynccontextmanager
    async def open(
        self, origin: RequestOrigin, decision: Decision, options: LiveOptions
    ) -> AsyncIterator[LiveSession]:
        """A session for as long as the context lasts. Raises: QueueFull, RateLimited."""
        await self._quota.check(origin.key_id, origin.audio_s_per_day)
        self._check(origin.key_id)
        self._by_key[origin.key_id] += 1
        session = LiveSession(origin, decision, options, self._engines, self._settings)
        self._sessions.add(session)
        watch = asyncio.create_task(self._watch(session), name="live-watch")
        try:
            yield session
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            self._sessions.discard(session)
            try:
                await session.close()
            finally:
                self._count(session)
                self._by_key[origin.key_id] -= 1
                self._by_key += Counter()  # keys without sessions are forgotten

    async def forget(self, gone: DeletedContent) -> None:
        """End the sessions of an owner who was erased: what they hear is stored nowhere, but held."""
        if gone.is_whole_owner:
            for session in [one for one in self._sessions if gone.owner in (None, one.owner)]:
                await session.interrupt(
                    Erased("The data of this owner was erased: open another session.")
                )

    async def _watch(self, session: LiveSession) -> None:
        """Interrupt a session whose key is revoked or expires, or has had its audio of a day."""
        while True:
            await asyncio.sleep(KEY_CHECK_S)
            try:
                caller = await asyncio.to_thread(self._caller_of, session.key_id)
            except EdgeAgentError as exc:  # the store cannot be read now
                logger.warning("live_key_unchecked code=%s", exc.code)
                continue
            if caller is None:
                return await session.interrupt(key_gone())
            if session.audio_s - session.counted_s >= COUNT_S:
                self._count(session)
                try:
                    await self._quota.check(session.key_id, session.audio_s_per_day)
                except RateLimited as exc:
                    return await session.interrupt(exc)

    def _count(self, session: LiveSession) -> None:
        """Count the audio since the last count against what the key may have within a day."""
        audio_s = session.audio_s - session.counted_s
        session.counted_s = session.audio_s
        self._quota.add(session.key_id, session.audio_s_per_day, audio_s)

    def _check(self, key_id: str) -> None:
        most, of_key = self._settings.max_sessions, self._settings.max_sessions_per_key
        if self._by_key.total() >= most:
            raise QueueFull(
                f"{most} live transcriptions run, which is all that this device takes: try again later, or "
                "raise speech.live.max_sessions.",
                retry_after_s=RETRY_AFTER_S,
            )
        # Without keys there is only the local owner.
        if key_id != LOCAL.key_id and self._by_key[key_id] >= of_key:
            raise RateLimited(
                f"This key has {of_key} live transcriptions running, which is its limit: end one, or raise "
                "speech.live.max_sessions_per_key.",
                retry_after_s=RETRY_AFTER_S,
            )

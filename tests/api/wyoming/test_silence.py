"""Clients that start and send no audio, on streams of the tests."""

from __future__ import annotations

import asyncio
from typing import Any

from edgeagent.api.wyoming.framing import encoded
from edgeagent.api.wyoming.server import WyomingConnection
from edgeagent.routing.decision import Decision
from edgeagent.serving.audio_quota import AudioQuota
from edgeagent.serving.live_transcription import LiveTranscriptions
from edgeagent.settings import Settings
from edgeagent.settings.speech import WyomingSettings
from edgeagent.types.caller import LOCAL
from tests.serving.fakes import FakeEngines

START = encoded("audio-start", {"rate": 16_000, "width": 2, "channels": 1})


class Models:
    async def model_for(self, name: str | None) -> Decision:
        return Decision("whisper", "named")


async def test_neither_pings_nor_starts_keep_a_session_without_audio():
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        models: Any = Models()
        settings = WyomingSettings(timeout_s=0.2)
        await WyomingConnection(reader, writer, settings, live, models).run(is_full=False)
        closed.set()

    engines: Any = FakeEngines()
    quota = AudioQuota.of(None, None)
    live = LiveTranscriptions(engines, Settings().speech.live, quota, lambda key_id: LOCAL)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(30):
            while not closed.is_set():
                writer.write(START + encoded("ping"))
                await asyncio.sleep(0.02)
        writer.close()
    assert live._by_key.total() == 0

"""A daemon's Wyoming server, asked by Home Assistant's client library and attacked over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.commands import run_here
from tests.conftest import WHISPER, installed, serving
from tests.speech.recordings import TURNS, dialogue, words_of

with warnings.catch_warnings():  # of a module of Python's that it uses for other widths
    warnings.simplefilter("ignore", DeprecationWarning)
    from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.error import Error
    from wyoming.event import Event
    from wyoming.info import Describe, Info
    from wyoming.ping import Ping, Pong

RATE_HZ = 16_000
BYTES = (dialogue().mean(axis=0) * 32767).astype("<i2").tobytes()
SAID = {word for turn in TURNS for word in words_of(turn["text"])}
MAX_CONNECTIONS = 3


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a daemon with Whisper tiny.en, which waits two seconds for events."""
    found = free_port()
    settings = {
        "speech.wyoming.enabled": True, "speech.wyoming.port": found,
        "speech.wyoming.max_connections": MAX_CONNECTIONS, "speech.wyoming.timeout_s": 20.0,
        "speech.live.max_item_s": 30.0,
    }  # fmt: skip
    state = tmp_path_factory.mktemp("wyoming")
    with serving(installed(WHISPER), state, preload=False, **settings) as daemon:
        httpx.get(f"{daemon.url}/health")  # answered once it has started
        yield found


async def said(
    client: AsyncTcpClient, data: bytes, rate_hz: int = RATE_HZ, **options: Any
) -> list[Event]:
    """Everything that the server answers to a recording, up to the end of its transcript."""
    await client.write_event(Transcribe(**options).event())
    form = {"rate": rate_hz, "width": 2, "channels": 1}
    await client.write_event(AudioStart(**form).event())
    for at in range(0, len(data), 2048):
        await client.write_event(AudioChunk(**form, audio=data[at : at + 2048]).event())
    await client.write_event(AudioStop().event())
    events: list[Event] = []
    async with asyncio.timeout(90):
        while (event := await client.read_event()) is not None:
            events.append(event)
            if TranscriptStop.is_type(event.type) or Error.is_type(event.type):
                break
    return events


async def test_home_assistants_client_gets_a_transcript_and_its_chunks(port):
    async with AsyncTcpClient("127.0.0.1", port) as client:
        for _ in range(2):  # one after another
            events = await said(client, BYTES, language="en", transcript_terms=["breathing"])
            assert TranscriptStart.is_type(events[0].type)
            chunks = [
                TranscriptChunk.from_event(e) for e in events if TranscriptChunk.is_type(e.type)
            ]
            (transcript,) = [Transcript.from_event(e) for e in events if Transcript.is_type(e.type)]
            assert chunks
            assert "".join(chunk.text for chunk in chunks).strip() == transcript.text
            assert transcript.language == "en"
            assert len(SAID & set(words_of(transcript.text))) >= 0.75 * len(SAID)


async def test_it_describes_itself_and_answers_pings(port):
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Describe().event())
        event = await client.read_event()
        assert event is not None
        (program,) = Info.from_event(event).asr
        assert [model.name for model in program.models] == [WHISPER]
        assert program.models[0].languages == ["en"]
        assert program.supports_transcript_streaming
        await client.write_event(Ping("here").event())
        event = await client.read_event()
        assert event is not None
        assert Pong.from_event(event).text == "here"


async def test_silence_and_next_to_nothing_have_empty_transcripts(port):
    async with AsyncTcpClient("127.0.0.1", port) as client:
        events = await said(client, bytes(64_000))
        assert Transcript.from_event(events[-2]).text == ""
        await client.write_event(AudioStart(rate=RATE_HZ, width=2, channels=1).event())
        await client.write_event(AudioStop().event())
        event = await client.read_event()
        assert event is not None
        assert Transcript.from_event(event).text == ""


@pytest.mark.parametrize(
    ("form", "options", "code"),
    [
        ({"rate": 16_000, "width": 4, "channels": 1}, {}, "invalid_parameter"),
        ({"rate": 16_000, "width": 2, "channels": 2}, {}, "invalid_parameter"),
        ({"rate": 1, "width": 2, "channels": 1}, {}, "invalid_parameter"),
        ({"rate": 16_000, "width": 2, "channels": 1}, {"name": "no-such"}, "model_not_found"),
        ({"rate": 16_000, "width": 2, "channels": 1}, {"language": "klingon"}, "invalid_parameter"),
    ],
)
async def test_what_cannot_be_heard_is_an_error_and_the_end(port, form, options, code):
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(**options).event())
        await client.write_event(AudioStart(**form).event())
        event = await client.read_event()
        assert event is not None
        assert Error.from_event(event).code == code
        assert await client.read_event() is None


async def test_audio_has_a_bound(port):
    async with AsyncTcpClient("127.0.0.1", port) as client:
        form = {"rate": RATE_HZ, "width": 2, "channels": 1}
        await client.write_event(AudioStart(**form).event())
        for _ in range(4):
            await client.write_event(AudioChunk(**form, audio=bytes(10 * 2 * RATE_HZ)).event())
        event = await client.read_event()
        assert event is not None
        assert "30 s" in Error.from_event(event).text


async def answered(port: int, data: bytes) -> bytes:
    """All that the server says to these bytes, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 100_000,
        b"no json\n",
        b"[1]\n",
        b'{"type": 7}\n',
        b'{"type": "describe", "data": 5}\n',
        b'{"type": "audio-chunk", "payload_length": 99999999999}\n',
        b'{"type": "audio-chunk", "payload_length": -5}\n',
        b'{"type": "audio-chunk", "payload_length": true}\n',
        b'{"type": "transcribe", "data_length": 1000000}\n',
        b'{"type": "transcribe", "data_length": 3}\n[1]',
        b'{"type": "transcribe", "data": {"transcript_terms": 5}}\n',
        b'{"type": "audio-stop"}\n',
        b'{"type": "audio-chunk", "payload_length": 2}\n\0\0',
        b"[" * 5000 + b"\n",
        b"\xff\xfe\n",
    ],
)
async def test_rubbish_is_an_error_and_the_end_of_its_connection_only(port, data):
    text = await answered(port, data)
    if text:  # with a reset the client may not see it
        head, _, body = text.partition(b"\n")
        assert json.loads(head)["type"] == "error"
        assert json.loads(body)["text"]
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Describe().event())
        assert await client.read_event() is not None


async def test_connections_are_bounded(port):
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
    assert b"max_connections" in await answered(port, b'{"type": "describe"}\n')
    for _, writer in opened:
        await closed(writer)
    async with asyncio.timeout(20):
        while b"max_connections" in await answered(port, b'{"type": 0}\n'):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_it_listens_on_loopback_only_and_on_a_free_port(tmp_path, port, host):
    config = tmp_path / "edgeagent.toml"
    config.write_text(f'[speech.wyoming]\nenabled = true\nhost = "{host}"\nport = {port}\n')
    done = run_here(
        "serve", "--port", "0", "--state-dir", tmp_path / "state", "--models-dir",
        tmp_path / "models", "--config", config,
    )  # fmt: skip
    assert done.returncode == 2
    assert ("speech.wyoming.host" if host == "0.0.0.0" else f"port {port}") in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

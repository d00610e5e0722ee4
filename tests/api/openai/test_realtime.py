"""Live transcription over a WebSocket of a daemon with a real speech model, by the official client."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from edgeagent.speech.vad import RATE_HZ
from tests.commands import run_here
from tests.conftest import WHISPER, DaemonProcess, installed, serving, wait_for
from tests.speech.recordings import TURNS, dialogue, words_of

BYTES_16K = (dialogue().mean(axis=0) * 32767).astype("<i2").tobytes()
SAID = {word for turn in TURNS for word in words_of(turn["text"])}
QUIET = bytes(2 * RATE_HZ)
TRANSCRIPTION = "conversation.item.input_audio_transcription"
VAD = {"type": "server_vad", "silence_duration_ms": 300}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with Whisper tiny.en, three live sessions and an allowed page."""
    settings = {"speech.live.max_sessions": 3, "speech.live.max_item_s": 30.0,
                "allowed_origins": ["https://ward.example"]}  # fmt: skip
    state = tmp_path_factory.mktemp("live")
    with serving(installed(WHISPER), state, preload=False, **settings) as found:
        yield found


def session(**audio: Any) -> dict[str, Any]:
    form = {"type": "audio/pcm", "rate": RATE_HZ}
    return {"type": "transcription", "audio": {"input": {"format": form} | audio}}


def append(data: bytes) -> str:
    audio = base64.b64encode(data).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


class Wire:
    """A bare WebSocket, with what it received."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, event: dict[str, Any] | str | bytes) -> None:
        await self.socket.send(json.dumps(event) if isinstance(event, dict) else event)

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(90):
            while True:
                event = json.loads(await self.socket.recv())
                self.events.append(event)
                if event["type"] == kind:
                    return event

    async def error(self, event: dict[str, Any] | str | bytes) -> dict[str, Any]:
        """The error that an event is answered with."""
        await self.send(event)
        return (await self.until("error"))["error"]

    async def speak(self, data: bytes, size: int = 6400) -> None:
        for at in range(0, len(data), size):
            await self.send(append(data[at : at + size]))

    def text(self) -> str:
        return "".join(e["delta"] for e in self.events if e["type"] == f"{TRANSCRIPTION}.delta")


@asynccontextmanager
async def wired(daemon: DaemonProcess, **options: Any) -> AsyncIterator[Wire]:
    port = int(daemon.url.rpartition(":")[2])
    path = options.pop("path", "/v1/realtime?intent=transcription")
    url = f"ws://{options.pop('name', '127.0.0.1')}:{port}{path}"
    async with connect(
        url, **({"max_size": None, "proxy": None, "host": "127.0.0.1"} | options)
    ) as socket:
        wire = Wire(socket)
        await wire.until("session.created")
        yield wire


def is_understood(text: str) -> bool:
    return len(SAID & set(words_of(text))) >= 0.75 * len(SAID)


async def test_the_official_client_hears_turns_as_they_are_said(daemon):
    client = openai.AsyncOpenAI(base_url=f"{daemon.url}/v1", api_key="none")
    kinds: list[str] = []
    deltas: dict[str, str] = {}
    completed: dict[str, Any] = {}
    async with client, client.realtime.connect(extra_query={"intent": "transcription"}) as live:
        await live.session.update(session=session(turn_detection=VAD))
        for at in range(0, len(BYTES_16K), 6400):
            audio = base64.b64encode(BYTES_16K[at : at + 6400]).decode()
            await live.input_audio_buffer.append(audio=audio)
        await live.input_audio_buffer.append(audio=base64.b64encode(QUIET).decode())
        async with asyncio.timeout(120):
            async for event in live:
                kinds.append(event.type)
                if event.type == f"{TRANSCRIPTION}.delta":
                    deltas[event.item_id] = deltas.get(event.item_id, "") + event.delta
                elif event.type == f"{TRANSCRIPTION}.completed":
                    completed[event.item_id] = event
                if kinds.count("input_audio_buffer.committed") == len(
                    completed
                ) >= 3 and is_understood(" ".join(deltas.values())):
                    break
    assert kinds[:2] == ["session.created", "session.updated"]
    assert kinds[2] == "input_audio_buffer.speech_started"
    stopped, committed = (
        kinds.index(f"input_audio_buffer.{what}") for what in ("speech_stopped", "committed")
    )
    assert stopped < committed < kinds.index(f"{TRANSCRIPTION}.completed")
    assert f"{TRANSCRIPTION}.segment" in kinds
    assert "error" not in kinds
    for item_id, event in completed.items():
        assert event.transcript == deltas.get(item_id, "").strip()
        assert event.usage.type == "duration"
        assert event.usage.seconds > 0.3


async def test_without_turn_detection_the_client_commits(daemon):
    async with wired(daemon) as wire:
        await wire.send({"type": "session.update", "session": session(turn_detection=None)})
        updated = await wire.until("session.updated")
        assert updated["session"]["audio"]["input"]["turn_detection"] is None
        for _ in range(2):
            await wire.speak(BYTES_16K)
            await wire.send({"type": "input_audio_buffer.commit"})
            committed = await wire.until("input_audio_buffer.committed")
            completed = await wire.until(f"{TRANSCRIPTION}.completed")
            assert completed["item_id"] == committed["item_id"]
            assert is_understood(completed["transcript"])
            assert abs(completed["usage"]["seconds"] - len(BYTES_16K) / 32_000) < 0.01
        items = [e for e in wire.events if e["type"] == "input_audio_buffer.committed"]
        assert items[1]["previous_item_id"] == items[0]["item_id"]
        assert not any("speech_st" in event["type"] for event in wire.events)


async def test_a_cleared_buffer_is_not_heard(daemon):
    async with wired(daemon) as wire:
        await wire.send({"type": "session.update", "session": session(turn_detection=None)})
        await wire.speak(BYTES_16K[: 3 * 32_000], 96_000)
        await wire.send({"type": "input_audio_buffer.clear"})
        await wire.until("input_audio_buffer.cleared")
        error = await wire.error({"type": "input_audio_buffer.commit", "event_id": "mine"})
        assert error["param"] == "input_audio_buffer"
        assert error["event_id"] == "mine"
        await wire.speak(BYTES_16K)
        await wire.send({"type": "input_audio_buffer.commit"})
        assert is_understood((await wire.until(f"{TRANSCRIPTION}.completed"))["transcript"])


async def test_the_older_shape_and_g711(daemon):
    headers = {"OpenAI-Beta": "realtime=v1"}
    url = daemon.url.replace("http", "ws") + "/v1/realtime?intent=transcription"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        wire = Wire(socket)
        created = await wire.until("transcription_session.created")
        assert created["session"]["input_audio_format"] == "pcm16"
        await wire.send(
            {
                "type": "transcription_session.update",
                "session": {
                    "input_audio_format": "g711_ulaw",
                    "input_audio_transcription": {"model": "whisper-1", "language": "en"},
                    "turn_detection": None,
                    "include": ["item.input_audio_transcription.logprobs"],
                },
            }
        )
        updated = await wire.until("transcription_session.updated")
        assert updated["session"]["input_audio_transcription"]["model"] == "whisper-1"
        await wire.speak(mu_law(BYTES_16K), 4000)
        await wire.send({"type": "input_audio_buffer.commit"})
        completed = await wire.until(f"{TRANSCRIPTION}.completed")
    said = set(words_of(completed["transcript"]))
    assert len(SAID & said) >= len(SAID) * 0.7, "half the band width is gone"
    assert "".join(score["token"] for score in completed["logprobs"]).strip()


def mu_law(pcm: bytes) -> bytes:
    """16 kHz PCM as G.711 of 8 kHz, by FFmpeg."""
    import av
    import numpy as np

    encoder = av.CodecContext.create("pcm_mulaw", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8_000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[None], format="s16", layout="mono")
    frame.rate = RATE_HZ
    found = b""
    for part in av.AudioResampler(format="s16", layout="mono", rate=8_000).resample(frame):
        found += b"".join(bytes(packet) for packet in encoder.encode(part))
    return found


async def test_bad_events_are_errors_and_end_nothing(daemon):
    async with wired(daemon) as wire:
        bad: list[tuple[Any, str | None]] = [
            ("no json", None),
            ("[" * 100_000, None),
            ("7", None),
            (b"\0\1binary", None),
            ({"no": "type"}, "type"),
            ({"type": 5}, "type"),
            ({"type": "response.create"}, "type"),
            ({"type": "input_audio_buffer.append"}, "audio"),
            ({"type": "input_audio_buffer.append", "audio": 7}, "audio"),
            ({"type": "input_audio_buffer.append", "audio": "%%%rubbish"}, "audio"),
            ({"type": "input_audio_buffer.append", "audio": "QQ"}, "audio"),
            ({"type": "session.update", "session": {"type": "realtime"}}, "session.type"),
            ({"type": "session.update"}, None),
            ({"type": "session.update", "session": session(format={"type": "audio/mp3"})}, None),
            (
                {"type": "session.update", "session": session(turn_detection={"type": "semantic_vad"})},
                "session.audio.input.turn_detection.type",
            ),
            (
                {"type": "session.update", "session": session(transcription={"language": "klingon"})},
                "session.audio.input.transcription.language",
            ),
            ({"type": "session.update", "session": session(transcription={"model": "none"})}, "model"),
            ({"type": "session.update", "session": session(colour="red")}, None),
        ]  # fmt: skip
        for event, param in bad:
            error = await wire.error(event)
            assert error["type"] == "invalid_request_error", event
            assert error["message"]
            if param is not None:
                assert error["param"] == param
        await wire.send({"type": "session.update", "session": session(turn_detection=None)})
        await wire.until("session.updated")
        assert (await wire.error({"type": "input_audio_buffer.commit"}))["message"]
        await wire.send(append(b"\0"))  # half a sample
        await wire.send(append(b""))
        await wire.send(append(QUIET))
        error = await wire.error({"type": "session.update", "session": session(turn_detection=VAD)})
        assert "turn_detection" in error["message"]
        await wire.send({"type": "input_audio_buffer.commit"})
        assert (await wire.until(f"{TRANSCRIPTION}.completed"))["transcript"] == ""


async def test_ten_thousand_tiny_pieces_are_one_recording(daemon):
    async with wired(daemon) as wire:
        await wire.send({"type": "session.update", "session": session(turn_detection=None)})
        data = BYTES_16K[: 4 * 32_000]
        size = len(data) // 10_000 + 1
        for at in range(0, len(data), size):
            await wire.send(append(data[at : at + size]))
        await wire.send({"type": "input_audio_buffer.commit"})
        assert (await wire.until(f"{TRANSCRIPTION}.completed"))["transcript"]


async def test_an_item_has_a_bound(daemon):
    async with wired(daemon) as wire:
        await wire.send({"type": "session.update", "session": session(turn_detection=None)})
        for _ in range(6):
            await wire.send(append(QUIET * 5))
        error = await wire.error(append(QUIET * 5))
        assert "at most 30 s" in error["message"]
        await wire.send({"type": "input_audio_buffer.commit"})
        await wire.until(f"{TRANSCRIPTION}.completed")


@pytest.mark.parametrize("size", [2 << 20, 40 << 20])
async def test_a_huge_message_ends_its_own_session_only(daemon, size):
    async with wired(daemon) as wire:
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await wire.send("x" * size)
            await wire.until("never")
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    async with wired(daemon):
        pass


async def test_endless_fragments_are_refused(daemon):
    async with wired(daemon) as wire:

        async def pieces() -> AsyncIterator[str]:
            for _ in range(5000):
                yield ""

        with pytest.raises(websockets.ConnectionClosedError):
            await wire.socket.send(pieces())
            await wire.until("never")


async def test_sessions_are_bounded_and_places_come_back(daemon):
    async with wired(daemon), wired(daemon), wired(daemon):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with wired(daemon):
                pass
        assert refused.value.response.status_code == 429
        assert "max_sessions" in refused.value.response.body.decode()
        assert refused.value.response.headers["retry-after"]
    async with wired(daemon):
        pass


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"name": "evil.example"}, 403),
        ({"path": "/v1/realtime?intent=conversation"}, 400),
        ({"path": "/v1/realtime?model=no-such-model"}, 404),
        ({"path": "/v1/models"}, 200),
        ({"path": "/v1/realtime/more"}, 404),
    ],
)
async def test_what_is_no_session_is_an_honest_status(daemon, options, status):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with wired(daemon, **options):
            pass
    assert refused.value.response.status_code == status


async def test_an_allowed_page_may_connect_and_others_get_told_to(daemon):
    async with wired(daemon, origin="https://ward.example"):
        pass
    async with httpx.AsyncClient() as http:
        found = await http.get(f"{daemon.url}/v1/realtime")
    assert found.status_code == 400
    assert "WebSocket" in found.json()["error"]["message"]


async def test_a_worker_that_dies_fails_its_items_and_the_next_audio_is_heard(daemon):
    async with wired(daemon) as wire:
        await wire.send({"type": "session.update", "session": session(turn_detection=VAD)})
        await wire.speak(BYTES_16K[: 2 * 32_000])
        started = await wire.until("input_audio_buffer.speech_started")
        for child in psutil.Process(daemon.pid).children():
            if "edgeagent.speech.worker" in child.cmdline():
                os.kill(child.pid, signal.SIGKILL)
        failed = await wire.until(f"{TRANSCRIPTION}.failed")
        assert failed["item_id"] == started["item_id"]
        assert failed["error"]["code"] == "engine_died"
        wire.events.clear()
        await wire.speak(BYTES_16K + QUIET)
        while not is_understood(wire.text()):
            await wire.until(f"{TRANSCRIPTION}.completed")


async def test_clients_that_leave_in_the_middle_leave_nothing(daemon):
    for _ in range(4):  # one more than there are places
        async with wired(daemon) as wire:
            await wire.send({"type": "session.update", "session": session(turn_detection=VAD)})
            await wire.speak(BYTES_16K, 32_000)
            await wire.until("input_audio_buffer.speech_started")
            wire.socket.transport.abort()
    async with wired(daemon):
        pass
    assert "Traceback" not in daemon.log.read_text()


async def test_the_daemon_has_no_engine_in_it_and_logs_no_query(daemon):
    async with wired(daemon, path="/v1/realtime?intent=transcription&secret=canary-4711"):
        pass
    wait_for(lambda: "endpoint=/v1/realtime" in daemon.log.read_text())
    assert "canary-4711" not in daemon.log.read_text()
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    assert not any(name in maps for name in ("ctranslate2", "onnxruntime", "numpy", "libav"))


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, str, str]]:
    """A daemon with keys that waits for nobody: the secrets of one that transcribes and one that chats."""
    state = tmp_path_factory.mktemp("keyed-live") / "state"
    settings = {"speech.live.idle_timeout_s": 3.0, "speech.live.max_sessions_per_key": 1}
    with serving(installed(WHISPER), state, preload=False, **settings) as daemon:

        def made(name: str, scopes: str) -> str:
            done = run_here(
                "keys", "create", "--name", name, "--scopes", scopes, "--state-dir", state
            )
            assert done.returncode == 0, done.stderr
            return str(done.stdout.strip())

        yield daemon, made("ward", "transcribe"), made("bot", "chat")


async def test_a_key_comes_by_header_or_by_subprotocol(keyed):
    daemon, secret, other = keyed
    bearer = {"Authorization": f"Bearer {secret}"}
    async with wired(daemon, additional_headers=bearer):
        pass
    offered = ["realtime", f"openai-insecure-api-key.{secret}"]
    async with wired(daemon, subprotocols=offered) as wire:
        assert wire.socket.subprotocol == "realtime"
    for options, status in [
        ({}, 401),
        ({"subprotocols": ["realtime"]}, 401),
        ({"subprotocols": ["realtime", "openai-insecure-api-key.ea_wrong"]}, 401),
        ({"subprotocols": [*offered, "openai-insecure-api-key.ea_wrong"]}, 401),
        ({"additional_headers": {"Authorization": f"Bearer {other}"}}, 403),
    ]:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with wired(daemon, **options):
                pass
        assert refused.value.response.status_code == status
    assert secret not in daemon.log.read_text()


async def test_a_key_has_its_own_bound_of_sessions(keyed):
    daemon, secret, _ = keyed
    bearer = {"Authorization": f"Bearer {secret}"}
    async with wired(daemon, additional_headers=bearer):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with wired(daemon, additional_headers=bearer):
                pass
        assert refused.value.response.status_code == 429
        assert "max_sessions_per_key" in refused.value.response.body.decode()


async def test_a_key_that_has_had_its_audio_of_a_day_begins_no_session(keyed):
    daemon, _, _ = keyed
    command = (
        "keys",
        "create",
        "--name",
        "short",
        "--scopes",
        "transcribe",
        "--audio-seconds-per-day",
        1,
    )
    made = run_here(*command, "--state-dir", daemon.state_dir)
    bearer = {"Authorization": f"Bearer {made.stdout.strip()}"}
    async with wired(daemon, additional_headers=bearer) as wire:
        await wire.speak(bytes(3 * 2 * RATE_HZ))
        await wire.send({"type": "input_audio_buffer.clear"})
        await wire.until("input_audio_buffer.cleared")
    async with asyncio.timeout(60):
        while True:  # the server notices a little later that the first one has gone
            try:
                async with wired(daemon, additional_headers=bearer):
                    pass
            except websockets.InvalidStatus as exc:
                if "of its 1 s of audio" in exc.response.body.decode():
                    assert exc.response.status_code == 429
                    break


async def test_who_says_nothing_is_closed(keyed):
    daemon, secret, _ = keyed
    async with wired(daemon, additional_headers={"Authorization": f"Bearer {secret}"}) as wire:
        with pytest.raises(websockets.ConnectionClosedOK) as closed:
            await wire.until("never")
        assert closed.value.rcvd.reason == "idle for 3 s"


async def test_a_daemon_that_stops_says_so_and_does_not_wait(tmp_path):
    with serving(installed(WHISPER), tmp_path / "stopped", preload=False) as daemon:
        async with wired(daemon) as wire:
            await wire.send({"type": "session.update", "session": session(turn_detection=VAD)})
            await wire.speak(BYTES_16K[:64_000])
            await wire.until("input_audio_buffer.speech_started")
            daemon.process.send_signal(signal.SIGTERM)
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await wire.until("never")
            assert closed.value.rcvd.code == 1012
        await asyncio.to_thread(daemon.process.wait, 30)
        assert "Traceback" not in daemon.log.read_text()

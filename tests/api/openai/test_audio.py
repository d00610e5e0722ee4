"""The audio endpoints of a daemon with a real speech model, asked by the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from scripts.faults import audio
from tests.conftest import WHISPER, DaemonProcess, installed, n_examples, serving
from tests.speech.recordings import (
    CONTAINERS,
    DIALOGUE,
    TURNS,
    coded,
    dialogue,
    greeting,
    is_greeting,
    tone,
    wav_of,
    words_of,
)

RECORDING = DIALOGUE.read_bytes()
SAID = {word for turn in TURNS for word in words_of(turn["text"])}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with Whisper tiny.en."""
    state = tmp_path_factory.mktemp("speech")
    with serving(
        installed(WHISPER),
        state,
        preload=False,
        **{"speech.max_audio_s": 60.0, "speech.max_upload_bytes": 4 << 20},
    ) as found:
        yield found


@pytest.fixture(scope="module")
def client(daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with daemon.client() as found:
        yield found


def transcribe(client: openai.OpenAI, data: bytes = RECORDING, **options: Any) -> Any:
    options = {"model": WHISPER} | options
    return client.audio.transcriptions.create(file=("visit.ogg", data), **options)


def is_understood(text: str) -> bool:
    return len(SAID & set(words_of(text))) >= len(SAID) - 2


@pytest.fixture(scope="module")
def heard(client: openai.OpenAI) -> Any:
    """The recording without options."""
    return transcribe(client)


def test_json_has_the_text_and_how_long_it_was(heard):
    found = heard
    assert is_understood(found.text)
    assert found.usage.type == "duration"
    assert abs(found.usage.seconds - dialogue().shape[1] / 16_000) < 0.01


def test_text_srt_and_vtt_are_plain_bodies(client):
    assert is_greeting(transcribe(client, greeting(), response_format="text"))
    srt = transcribe(client, greeting(), response_format="srt")
    assert srt.startswith("1\n00:00:0")
    assert is_greeting(srt)
    assert transcribe(client, greeting(), response_format="vtt").startswith("WEBVTT\n\n00:00:0")


def test_verbose_json_has_segments_unless_words_alone_are_asked_for(client):
    found = transcribe(client, response_format="verbose_json")
    assert found.language == "english"
    assert isinstance(found.duration, float)
    assert found.segments
    assert found.words is None
    for segment in found.segments:
        assert 0 <= segment.start <= segment.end <= found.duration
        assert segment.tokens
    found = transcribe(
        client, greeting(), response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert found.segments is None
    assert is_greeting(" ".join(word.word for word in found.words))
    both = transcribe(
        client, greeting(), response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )  # fmt: skip
    assert both.segments
    assert both.words
    starts = [word.start for word in both.words]
    assert starts == sorted(starts)


def test_speakers_are_told_apart_by_channel(client):
    found = transcribe(
        client, response_format="diarized_json", known_speaker_names=["doctor", "patient"],
        chunking_strategy="auto",
    )  # fmt: skip
    assert found.task == "transcribe"
    assert [s.speaker for s in found.segments] == ["doctor", "patient", "doctor", "patient"]
    assert [s.id for s in found.segments] == ["seg_0", "seg_1", "seg_2", "seg_3"]
    for segment, turn in zip(found.segments, TURNS, strict=True):
        assert abs(segment.start - turn["start_s"]) < 0.25


def test_a_stream_adds_up_to_the_text(client):
    events = list(transcribe(client, stream=True))
    assert [event.type for event in events][-1] == "transcript.text.done"
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert "".join(deltas) == events[-1].text
    assert is_understood(events[-1].text)


def test_a_stream_of_speakers_has_segments(client):
    events = list(transcribe(client, stream=True, response_format="diarized_json"))
    segments = [event for event in events if event.type == "transcript.text.segment"]
    assert [segment.speaker for segment in segments] == ["A", "B", "A", "B"]
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    assert [delta.segment_id for delta in deltas] == [segment.id for segment in segments]
    assert "".join(delta.delta for delta in deltas) == events[-1].text


def test_log_probabilities(client):
    found = transcribe(client, greeting(), include=["logprobs"])
    assert is_greeting(found.text)
    assert "".join(score.token for score in found.logprobs).strip() == found.text
    assert all(score.logprob <= 0 for score in found.logprobs)


@pytest.mark.parametrize("name", ["whisper-1", "gpt-4o-transcribe", "gpt-transcribe"])
def test_other_providers_names_mean_the_model_that_is_here(client, name):
    assert transcribe(client, wav_of(tone(0.6)), model=name).text == ""


@pytest.mark.parametrize(("name", "muxer", "codec"), CONTAINERS, ids=[c[0] for c in CONTAINERS])
def test_every_container_is_read(client, name, muxer, codec):
    """To its end; that what is read sounds the same is seen in speech/test_audio.py."""
    data = coded(tone(4, 2), muxer, codec)
    found = client.audio.transcriptions.create(file=(f"visit.{name}", data), model=WHISPER)
    assert found.text == ""
    assert abs(found.usage.seconds - 4) < 0.15


def test_silence_has_no_text_in_any_format(client):
    silence = wav_of(np.zeros(32_000, dtype=np.float32))
    assert transcribe(client, silence).text == ""
    assert transcribe(client, silence, response_format="text").strip() == ""
    assert transcribe(client, silence, response_format="srt") == ""
    assert transcribe(client, silence, response_format="vtt").strip() == "WEBVTT"
    verbose = transcribe(client, silence, response_format="verbose_json")
    assert (verbose.segments, verbose.language) == ([], "english")
    assert transcribe(client, silence, response_format="diarized_json").segments == []
    (done,) = transcribe(client, silence, stream=True)
    assert done.text == ""


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_translation_of_english_is_english(client):
    found = client.audio.translations.create(
        file=("visit.wav", greeting()), model=WHISPER, response_format="verbose_json"
    )
    assert is_greeting(found.text)
    assert found.language == "english"


def test_all_parameters_at_once(client):
    found = transcribe(
        client,
        language="en",
        prompt="A visit to the doctor.",
        temperature=0.0,
        response_format="verbose_json",
        timestamp_granularities=["segment"],
        chunking_strategy={
            "type": "server_vad", "threshold": 0.4, "prefix_padding_ms": 200, "silence_duration_ms": 300
        },
        extra_body={"keywords": ["headache", "fever"], "speakers": "channel"},
    )  # fmt: skip
    assert is_understood(found.text)
    assert found.segments[0].speaker == "A"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"include": ["logprobs"], "response_format": "text"}, "include"),
        ({"language": "klingon"}, "language"),
        ({"language": "de"}, "language"),
        ({"temperature": 1.5}, "temperature"),
        ({"response_format": "docx"}, "response_format"),
        ({"chunking_strategy": {"type": "server_vad", "threshold": 2}}, "chunking_strategy"),
        ({"extra_body": {"keywords": ["word"] * 190}}, "keywords"),
        ({"extra_body": {"known_speaker_references": ["data:..."]}}, "known_speaker_references"),
        ({"known_speaker_names": ["doctor", "patient"]}, "known_speaker_names"),
        (
            {"known_speaker_names": ["a", "b", "c"], "response_format": "diarized_json"},
            "known_speaker_names",
        ),
        ({"extra_body": {"colour": "blue"}}, "colour"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_the_field(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        transcribe(client, **options)
    assert refused.value.param is not None
    assert refused.value.param.startswith(param)


def test_names_of_speakers_need_a_channel_for_each(client):
    mono = wav_of(dialogue().mean(axis=0))
    with pytest.raises(openai.BadRequestError) as refused:
        transcribe(client, mono, response_format="diarized_json", known_speaker_names=["a", "b"])
    assert refused.value.param == "known_speaker_names"


@pytest.mark.parametrize(
    "data", [b"", b"no audio", RECORDING[:2000], b"#EXTM3U\nfile:///etc/passwd\n"]
)
def test_a_bad_recording_is_a_400_before_any_event(client, data):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            transcribe(client, data, stream=stream)
        assert refused.value.param == "file"


def test_too_long_and_too_large_are_413(client):
    long = coded(np.zeros((1, 70 * 16_000), dtype=np.float32), "flac", "flac")
    for data in (long, bytes(5 << 20)):
        with pytest.raises(openai.APIStatusError) as refused:
            transcribe(client, data)
        assert refused.value.status_code == 413


def test_a_model_of_another_kind_is_a_404_or_400_that_says_what_to_do(client):
    with pytest.raises(openai.NotFoundError, match="not one of the"):
        transcribe(client, model="whisper-huge")


def test_what_open_webui_posts(daemon):
    """Two fields, and it reads `text` or `error.message`."""
    url = f"{daemon.url}/v1/audio/transcriptions"
    form = {"model": "whisper-1"}
    good = httpx.post(url, files={"file": ("a.wav", greeting())}, data=form, timeout=60)
    assert is_greeting(good.json()["text"])
    bad = httpx.post(url, files={"file": ("a.ogg", b"?")}, data=form, timeout=60)
    assert bad.status_code == 400
    assert bad.json()["error"]["message"].startswith("The file is no audio file")


def test_a_form_is_needed_and_no_page_may_send_one(daemon):
    url = f"{daemon.url}/v1/audio/transcriptions"
    assert httpx.post(url, json={"model": WHISPER}).status_code == 415
    form: dict[str, Any] = {"files": {"file": ("a.ogg", RECORDING)}, "timeout": 60}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"User-Agent": "Mozilla/5.0"},
    ):
        assert httpx.post(url, headers=headers, **form).status_code == 403
    assert httpx.post(url, data={"model": WHISPER}, files={"other": b""}).status_code == 400


def test_models_that_transcribe_are_listed_as_such(client):
    (model,) = [model for model in client.models.list() if model.id == WHISPER]
    assert model.model_dump()["task"] == "transcribe"


def test_a_chat_with_a_speech_model_says_where_to_go(client):
    with pytest.raises(openai.BadRequestError, match="/v1/audio/transcriptions"):
        client.chat.completions.create(model=WHISPER, messages=[{"role": "user", "content": "Hi"}])


def test_the_document_and_the_conformance_list_show_the_fields(daemon):
    report = httpx.get(f"{daemon.url}/v1/conformance", timeout=60).json()
    (endpoint,) = [e for e in report["data"] if e["path"] == "/v1/audio/transcriptions"]
    support = {p["name"]: p["support"] for p in endpoint["parameters"]}
    assert support["file"] == support["keywords"] == "honoured"
    assert support["known_speaker_references"] == "refused"
    assert support["speakers"] == "extension"


def test_nothing_of_a_recording_is_written_in_the_clear(daemon, heard):
    """Not to the log, the state directory or a temporary file."""
    assert "headache" in words_of(heard.text)
    assert "headache" not in daemon.log.read_text()
    for path in Path(daemon.state_dir).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"headache" not in data
            assert RECORDING[1000:1064] not in data


def test_the_daemon_itself_has_no_audio_libraries(daemon):
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    for library in ("libavcodec", "ctranslate2", "onnxruntime", "numpy"):
        assert library not in maps


def test_an_error_in_json_has_openais_shape(daemon):
    found = httpx.post(
        f"{daemon.url}/v1/audio/transcriptions", files={"file": ("a.ogg", RECORDING)},
        data={"model": "nothing"}, timeout=60,
    )  # fmt: skip
    assert found.status_code == 404
    assert json.loads(found.text)["error"].keys() >= {"message", "type", "param", "code"}


def test_damaged_and_hostile_files_are_answered_with_a_status_of_their_own(daemon):
    """The short version of scripts/faults/audio.py."""
    found = audio.throw(daemon, n_examples(160), seed=7)
    assert found.wrong == []
    assert found.answers.keys() == {"damaged", "lies", "bombs", "others"}
    assert len(found.workers) == 1  # the same to the end

"""Whisper tiny.en for real, on ten seconds of our own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeagent.errors import InvalidParameter, ModelUnusable
from edgeagent.speech import transcriber as transcribing
from edgeagent.speech.audio import blocks
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.segments import Segment, text_of
from edgeagent.speech.transcriber import Survey, Transcriber, _windows, survey
from edgeagent.speech.whisper import Session, Whisper
from edgeagent.speech.windows import whole
from scripts.benchmarks.noises import noise
from tests.conftest import N_THREADS
from tests.speech.recordings import DIALOGUE, TURNS, dialogue, wav_of, words_of

RECORDING = DIALOGUE.read_bytes()


@pytest.fixture(scope="module")
def transcriber(whisper_dir: Path) -> Transcriber:
    return Transcriber(Whisper(whisper_dir, n_threads=N_THREADS))


@pytest.fixture(scope="module")
def turns(transcriber: Transcriber) -> list[Segment]:
    """The dialogue by channel."""
    return heard(transcriber, RECORDING, speakers="channel", speaker_names=("doctor", "patient"))


def heard(transcriber: Transcriber, data: bytes, **options: object) -> list[Segment]:
    wanted = msgspec.convert(options, SpeechOptions)
    steps = transcriber.transcribe(data, wanted, survey(data))
    return [segment for heard in steps if heard is not None for segment in heard.segments]


def n_wrong(said: str, found: str) -> int:
    """Words to insert, delete or replace."""
    a, b = words_of(said), words_of(found)
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


def test_the_dialogue_is_understood(turns):
    said = " ".join(turn["text"] for turn in TURNS)
    assert n_wrong(said, text_of(turns)) <= 2


def test_speakers_are_told_apart_by_channel(turns):
    assert [s.speaker for s in turns] == ["doctor", "patient", "doctor", "patient"]
    assert [s.channel for s in turns] == [turn["channel"] for turn in TURNS]


def test_turns_begin_and_end_when_they_were_spoken(turns):
    for segment, turn in zip(turns, TURNS, strict=True):
        assert abs(segment.start_s - turn["start_s"]) < 0.25
        assert abs(segment.end_s - turn["end_s"]) < 0.25


def test_words_are_in_order_and_inside_their_segment(turns):
    before = 0.0
    for segment in turns:
        for word in segment.words:
            assert segment.start_s <= word.start_s <= word.end_s <= segment.end_s
            assert word.start_s >= before
            before = word.start_s
            assert 0 < word.confidence <= 1


def test_times_are_right_behind_a_long_silence(transcriber):
    """The pause is not heard by the model, and is not missing on the clock."""
    samples = dialogue().mean(axis=0)
    cut = round(5.5 * 16_000)
    pause = np.random.default_rng(0).standard_normal(16_000 * 20).astype(np.float32) * 2e-4
    data = wav_of(np.concatenate((samples[:cut], pause, samples[cut:])))
    words = [w for s in heard(transcriber, data) for w in s.words]
    late = [w for w in words if w.start_s > 15]
    assert abs(late[0].start_s - (TURNS[2]["start_s"] + 20)) < 0.3
    assert abs(late[-1].end_s - (TURNS[3]["end_s"] + 20)) < 0.3
    assert not [w for w in words if 6 < w.start_s < 25]


@pytest.mark.parametrize("name", ["silence", "pink", "hum", "typing"])
def test_noises_have_no_words(transcriber, name):
    data = wav_of(noise(name, 12, -25))
    assert heard(transcriber, data) == []


def test_each_token_has_its_log_probability(transcriber):
    found = heard(transcriber, RECORDING, has_logprobs=True)
    assert found
    for segment in found:
        assert len(segment.logprobs) == len(segment.tokens)
        assert "".join(score.token for score in segment.logprobs).strip() == segment.text.strip()
        assert all(score.logprob <= 0 for score in segment.logprobs)
        assert bytes(segment.logprobs[0].bytes).decode() == segment.logprobs[0].token


def test_an_english_model_refuses_other_languages_by_name(transcriber):
    with pytest.raises(InvalidParameter, match="English only") as refused:
        heard(transcriber, RECORDING, language="de")
    assert refused.value.param == "language"


def test_a_wrong_option_of_voice_detection_is_refused_by_name(transcriber):
    with pytest.raises(InvalidParameter, match="threshold"):
        heard(transcriber, RECORDING, vad={"threshold": 7})


def test_a_model_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"no weights")
    with pytest.raises(ModelUnusable, match="install it again"):
        Whisper(tmp_path, n_threads=1)


def test_a_survey_knows_length_and_channels():
    found = survey(RECORDING)
    assert found == Survey(pytest.approx(dialogue().shape[1] / 16_000), 2, True)


def test_a_short_recording_is_decoded_once_and_a_long_one_is_not_kept(monkeypatch, transcriber):
    kept = survey(RECORDING)
    assert kept.kept is not None
    monkeypatch.setattr(transcribing, "MAX_KEPT_SAMPLES", 1)
    long = survey(RECORDING)
    assert long.kept is None
    windows = [
        list(_windows(found, SpeechOptions())) for found in (iter(kept.kept), blocks(RECORDING))
    ]
    first, again = ([w for w in found if w is not None] for found in windows)
    assert [w.pieces for w in first] == [w.pieces for w in again]
    assert all(np.array_equal(a.channels, b.channels) for a, b in zip(first, again, strict=True))
    monkeypatch.setattr(transcribing, "blocks", None)  # nothing decodes it again
    assert list(transcriber.transcribe(RECORDING, SpeechOptions(), kept))


class Listener:
    """Stands for a multilingual model: records what it is asked, says nothing."""

    def __init__(self, *languages: list[tuple[str, float]]) -> None:
        self.asked: list[dict[str, object]] = []
        self._languages = list(languages)

    def detect_language(self, samples):
        scores = self._languages.pop(0)
        return (*scores[0], scores)

    def transcribe(self, samples, **options):
        self.asked.append(options)
        return [], None


def session(listener: Any, **options: object) -> Session:
    from edgeagent.speech.prompt import Prompt

    wanted = SpeechOptions(**options)  # type: ignore[arg-type]
    return Session(listener, wanted, Prompt(lambda text: [], wanted), ("en", "de", "fr"))


WINDOW = whole(np.zeros((1, 16_000), dtype=np.float32), 0)


def test_each_window_has_its_own_language_and_the_task_stays():
    listener = Listener(
        [("en", 0.9), ("de", 0.1)], [("de", 0.8), ("en", 0.2)], [("fr", 0.4), ("de", 0.3)]
    )
    hearing = session(listener)
    for _ in range(3):
        assert list(hearing.hear(WINDOW)) == []
    # The third is not sure enough to leave the language before.
    assert [asked["language"] for asked in listener.asked] == ["en", "de", "de"]
    assert {asked["task"] for asked in listener.asked} == {"transcribe"}
    assert {asked["multilingual"] for asked in listener.asked} == {False}


def test_only_allowed_languages_are_found():
    listener = Listener([("en", 0.9), ("de", 0.06), ("fr", 0.04)])
    list(session(listener, languages=("de", "fr")).hear(WINDOW))
    assert listener.asked[0]["language"] == "de"


def test_a_given_language_is_not_asked_for():
    listener = Listener()
    list(session(listener, language="fr", task="translate").hear(WINDOW))
    assert (listener.asked[0]["language"], listener.asked[0]["task"]) == ("fr", "translate")


class QuickListener:
    """Stands for a multilingual model that is heard quickly; counts what it encodes."""

    def __init__(self, like: Any, *languages: tuple[str, float]) -> None:
        self.hf_tokenizer, self.feature_extractor = like.hf_tokenizer, like.feature_extractor
        self.max_length = like.max_length
        self.model = self
        self.n_frames: list[int] = []
        self.starts: list[list[int]] = []
        self._scores = [(f"<|{name}|>", p) for name, p in languages]
        self._tokens = list(self.hf_tokenizer.encode(" Guten Tag").ids)

    def encode_all(self, features: Any) -> list[int]:
        self.n_frames.append(features.shape[-1])
        return self.n_frames

    def detect_language(self, encoded: Any) -> Any:
        assert encoded is self.n_frames  # what was encoded for the text
        return [self._scores]

    def generate(self, encoded: Any, prompts: list[list[int]], **options: Any) -> Any:
        self.starts += prompts
        return [SimpleNamespace(sequences_ids=[self._tokens], no_speech_prob=0.0)]

    def align(self, encoded: Any, start: Any, texts: Any, n_frames: int) -> Any:
        return [SimpleNamespace(text_token_probs=[0.5] * len(texts[0]))]


def test_a_quick_hearing_finds_the_language_in_what_it_encodes_anyway(transcriber):
    listener = QuickListener(transcriber.whisper._model, ("de", 0.8), ("en", 0.2))
    found = session(listener).hear_quickly(WINDOW.samples, "", seconds=15.0, beam_size=5)
    assert found.language == "de"
    assert listener.n_frames == [1500]  # once, and no whole window
    assert listener.hf_tokenizer.token_to_id("<|de|>") in listener.starts[0]


def test_windows_see_the_text_before_and_guards_are_on():
    listener = Listener()
    list(session(listener, language="en").hear(WINDOW))
    asked = listener.asked[0]
    assert asked["condition_on_previous_text"] is True
    assert asked["temperature"] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert (asked["no_speech_threshold"], asked["log_prob_threshold"]) == (0.6, -1.0)
    assert asked["compression_ratio_threshold"] == 2.4
    assert asked["vad_filter"] is False

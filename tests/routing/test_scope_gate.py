"""Scope gates: what they find, what they read, and what they make of hostile texts and files."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.errors import InvalidParameter, SettingsError
from edgeagent.routing.scope_gate import Gate, ScopeGate, read_scope
from edgeagent.routing.scope_texts import (
    MAX_CHARS,
    Examples,
    WordNearness,
    centred,
    grams_of,
    words_of,
)
from edgeagent.routing.training.scope_training import (
    LOST,
    Answer,
    domain_gates,
    examples_of,
    write_scope,
)
from tests.routing.scopes import MODEL, answers, scope_file, strange


@pytest.fixture(scope="module")
def gate() -> ScopeGate:
    file = scope_file()
    return ScopeGate(file, file.models[MODEL])


def test_words_find_out_of_scope_what_the_probability_does_not_tell(gate):
    seen = answers(7, 300, 60)
    scores = [
        gate.score(ALL, one.text, one.intent, one.probability, one.margin, 0.01) for one in seen
    ]
    found = [one for one, score in zip(seen, scores, strict=True) if not score.is_inside]
    lost = [one for one in found if one.wanted is not None]
    assert len(found) - len(lost) >= 57, "of 60"
    assert len(lost) <= 12, "of 300"


def test_a_greater_share_that_may_be_lost_never_accepts_more(gate):
    gates = scope_file().models[MODEL][ALL]
    cuts = [gates.words.cut(lost) for lost in (0.0, 0.0005, *LOST, 0.5)]
    assert cuts == sorted(cuts) and cuts[0] == -math.inf
    between = gates.words.cut((LOST[0] + LOST[1]) / 2)
    assert gates.words.cut(LOST[0]) <= between <= gates.words.cut(LOST[1])


HOSTILE = ["", " ", "\x00\x1b[31m\u202e", "🙂🙂🙂", "a " * 10_000, "x" * 100_000, "включи свет", "灯をつけて",
           "\ud800 turn", "'", "turn\u2028the\tlamp", "ﷺ" * 3000]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_gets_a_score_and_long_ones_are_read_in_part(gate, text):
    score = gate.score(ALL, text, "light", 0.5, 0.1, 0.01)
    assert math.isfinite(score.score) and len(words_of(text)) <= 64
    again = gate.score(
        ALL, text[:MAX_CHARS] + "zzz" * (len(text) > MAX_CHARS), "light", 0.5, 0.1, 0.01
    )
    assert again.score == score.score


@given(st.lists(st.sampled_from(["turn", "the", "lamp", "rome", "of", "hall"]), max_size=8),
       st.floats(0, 1), st.floats(-1, 1))  # fmt: skip
@settings(max_examples=50)
def test_the_same_text_has_the_same_score_and_a_surer_model_no_lower_one(
    words, probability, margin
):
    file = scope_file()
    gate = ScopeGate(file, file.models[MODEL])
    text = " ".join(words)
    one, other = (gate.score(ALL, text, "light", probability, margin, 0.01) for _ in range(2))
    assert one == other
    assert gate.score(ALL, text.upper(), "light", probability, margin, 0.01) == one


def test_a_domain_or_an_intent_without_a_gate_is_not_judged(gate):
    assert gate.score("banking", "turn the lamp", "light", 0.5, 0.1, 0.01) is None
    assert gate.score(ALL, "turn the lamp", "oven", 0.5, 0.1, 0.01) is None


def test_a_file_is_read_as_it_was_written_and_a_damaged_one_is_refused(tmp_path: Path):
    path = tmp_path / "x.scope"
    write_scope(scope_file(), path)
    assert read_scope(path) == scope_file()
    data = path.read_bytes()
    for damaged in (
        b"",
        data[:-1],
        data[: len(data) // 2],
        b"\x00" + data,
        b"{}",
        data + b"x" * (9 << 20),
    ):
        path.write_bytes(damaged)
        with pytest.raises(SettingsError, match=r"x\.scope cannot be used"):
            read_scope(path)
    path.unlink()
    with pytest.raises(SettingsError, match="No such file"):
        read_scope(path)


@given(st.data())
@settings(max_examples=60)
def test_no_changed_byte_does_more_than_refuse_the_file(data):
    import tempfile
    import zlib

    plain = bytearray(msgspec.msgpack.encode(scope_file()))
    plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.scope")
        path.write_bytes(zlib.compress(plain, 1))
        try:
            file = read_scope(path)
        except SettingsError:
            return
        for gates in file.models.values():
            ScopeGate(file, gates).score(ALL, "turn the lamp of rome", "light", 0.5, 0.1, 0.01)


@pytest.mark.parametrize(
    "part",
    [
        {"scales": [0.0] * 7},
        {"cuts": [math.nan] * len(LOST)},
        {"weights": [1.0]},
        {"lost": [0.5, 0.1]},
    ],
)
def test_a_gate_whose_parts_do_not_fit_is_refused(tmp_path: Path, part):
    gates = scope_file().models[MODEL][ALL]
    changed = msgspec.structs.replace(gates, words=msgspec.structs.replace(gates.words, **part))
    broken = msgspec.structs.replace(scope_file(), models={MODEL: {ALL: changed}})
    write_scope(broken, tmp_path / "x.scope")
    with pytest.raises(SettingsError, match=r"do not fit|cannot be used"):
        read_scope(tmp_path / "x.scope")


@pytest.mark.parametrize(
    "part",
    [
        {"middle": array("f", [math.nan]).tobytes()},
        {"middle": b"123"},
        {"outside": Examples(b"", b"\0\0", b"", b"", 1.0, b"", [b"1234"])},
        {"outside": Examples(b"", b"\0\0", b"", b"", 1.0, b"", [b""] * 65)},
        {"outside": Examples(b"\0\0", b"\0\0\1\0", b"\5", b"\0\0\x80?", 1.0)},
    ],
)
def test_vectors_and_texts_out_of_scope_that_do_not_fit_are_refused(tmp_path: Path, part):
    write_scope(msgspec.structs.replace(scope_file(), **part), tmp_path / "x.scope")
    with pytest.raises(SettingsError, match=r"do not fit|cannot be used"):
        read_scope(tmp_path / "x.scope")


def test_the_words_of_texts_out_of_scope_are_known_and_count_against_a_text():
    mine = [("turn the lamp on", "light"), ("close the door", "door"), ("play a song", "music")]
    file = examples_of(mine, outside=["why do whales sing"])
    words = WordNearness(file.vocabulary, file.intents, file.outside)
    found = words.of("why do whales sing", "light")
    assert found is not None and (found.near, found.unknown) == (0.0, 1.0)
    assert found.outside == pytest.approx(1)
    own = words.of("turn the lamp on", "light")
    assert own is not None and (own.outside, own.unknown) == (0.0, 0.0)


def test_too_few_texts_make_no_gate():
    file = examples_of([("turn the lamp", "light")])
    with pytest.raises(InvalidParameter, match="too few for a scope gate"):
        domain_gates([Answer("turn the lamp", "light", "light", 0.9, 0.8)], file)


def test_vectors_decide_what_words_leave_in_doubt():
    rng = np.random.default_rng(0)
    middles = {one: rng.normal(size=16) for one in ("light", "door", "music", None)}

    def vector(kind: str | None) -> np.ndarray:
        made = middles[kind] + 0.3 * rng.normal(size=16)
        return made / np.linalg.norm(made)

    from tests.routing.scopes import texts

    examples = texts(1, 90)
    vectors = np.array([vector(intent) for _, intent in examples])
    others = strange(3, 80)
    file = examples_of(examples, vectors, others, np.array([vector(None) for _ in others]))
    seen = [msgspec.structs.replace(one, vector=vector(one.wanted)) for one in answers(2, 300, 60)]
    gates = domain_gates(seen, file)
    assert gates.vectors is not None and gates.vectors.weights[-1] > 0, "far from those outside"
    file = msgspec.structs.replace(file, models={MODEL: {ALL: gates}})
    gate = ScopeGate(file, file.models[MODEL])
    text = strange(9, 1)[0]
    scored = gate.score(ALL, text, "light", 0.6, 0.3, 0.01)
    assert scored is not None
    first = replace(scored, is_in_doubt=True)
    assert not gate.with_vector(ALL, "light", first, vector(None).tolist(), 0.01).is_inside
    assert gate.with_vector(ALL, "light", first, [1.0, 2.0], 0.01) is first, (
        "another model's vector"
    )


def test_grams_are_words_and_pairs_whatever_their_case_and_signs():
    assert grams_of(words_of("Turn THE lamp!")) == grams_of(words_of("turn, the... lamp"))
    assert len(grams_of(words_of("turn the lamp"))) == 5
    assert sum(x * x for x in centred([3.0, 4.0], [0.0, 0.0])) == pytest.approx(1)
    assert Gate([0.0], [2.0], [3.0], 1.0, [0.01], [0.0]).score([4.0]) == 7.0

"""What the decision log keeps of a text scores as the text does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.errors import InvalidParameter
from edgeagent.routing.feature_record import packed, packed_text, unpacked
from edgeagent.routing.text_features import features


@given(st.text(max_size=200))
def test_a_record_gives_the_features_back(text):
    found, kept = features(text), unpacked(packed_text(text))
    assert kept == found
    assert packed(kept) == packed(found), "packing is stable"


def test_a_record_is_small_and_has_no_word_of_the_text():
    record = packed_text("my patient Zacharias has measles and cannot sleep at night")
    assert len(record) < 300 and b"acharias" not in record and b"measles" not in record
    longest = " ".join(f"w{n:05}" for n in range(5000))
    assert len(packed_text(longest)) < 8192


@pytest.mark.parametrize(
    "record", [b"", b"x", packed_text("a b")[:-3], b"\x95\x07" + b"\xc4\x00" * 4]
)
def test_a_damaged_record_and_one_of_another_version_are_refused(record):
    with pytest.raises(InvalidParameter, match="record of features"):
        unpacked(record)

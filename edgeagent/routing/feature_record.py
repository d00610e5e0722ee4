"""The features of a text as the decision log keeps them: a few hundred bytes instead of the text.

They are hashes without a key, since a policy that is made later must be able to read them: whoever has the
record and a dictionary can guess single words. So they are kept and erased like content.
"""

from __future__ import annotations

from array import array
from typing import Any

import msgspec

from edgeagent.errors import InvalidParameter
from edgeagent.routing.text_features import SHAPE_NAMES, TextFeatures, features

VERSION = 1


class _Record(msgspec.Struct, frozen=True, array_like=True):
    """`columns`: uint16, rising; `counts`: uint8; `shape`: float64; `words`: uint32, rising. Of this device's
    byte order, which is little-endian on all that edgeagent runs on."""

    version: int
    columns: bytes
    counts: bytes
    shape: bytes
    words: bytes


def packed(found: TextFeatures) -> bytes:
    columns = sorted(found.counts)
    return msgspec.msgpack.encode(
        _Record(
            VERSION,
            array("H", columns).tobytes(),
            bytes(found.counts[column] for column in columns),
            array("d", found.shape).tobytes(),
            array("I", sorted(found.words)).tobytes(),
        )
    )


def packed_text(text: str) -> bytes:
    return packed(features(text))


def unpacked(record: bytes) -> TextFeatures:
    """Raises: InvalidParameter for a record of another version, or a damaged one."""
    try:
        found = msgspec.msgpack.decode(record, type=_Record)
        columns, words = _numbers("H", found.columns), _numbers("I", found.words)
        shape = list(map(float, _numbers("d", found.shape)))
    except (msgspec.DecodeError, ValueError) as exc:
        raise InvalidParameter(f"A record of features is damaged: {exc}.") from exc
    is_ours = found.version == VERSION and len(shape) == len(SHAPE_NAMES)
    if not is_ours or len(columns) != len(found.counts):
        raise InvalidParameter(
            f"A record of features has version {found.version}, this edgeagent reads {VERSION}."
        )
    return TextFeatures(
        dict(zip(map(int, columns), found.counts, strict=True)), shape, frozenset(map(int, words))
    )


def _numbers(kind: str, data: bytes) -> array[Any]:
    found: array[Any] = array(kind)
    found.frombytes(data)
    return found

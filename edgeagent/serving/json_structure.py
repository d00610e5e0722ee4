"""Limits the structure of JSON bodies before objects are made of it.

Four megabytes of text are little work; four megabytes of brackets become a hundred megabytes of objects,
and reporting an error for each takes seconds. The limits here prevent both.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from edgeagent.errors import BadRequest

# Numbers are cheap: LangChain sends batches of 1000 texts as 512 token ids each.
MAX_VALUES = 1 << 19
# Enough for 4096 messages with their parts, and 128 tools with 150 described properties each.
MAX_CONTAINERS = 1 << 16
MAX_STRINGS = 1 << 17  # including keys
MAX_KEYS = 2048
MAX_DEPTH = 100
STRINGS_AT_ONCE = 1 << 14
MAX_DIGITS = 64  # of one number: a double has 17 significant ones, and more are slow to parse

_AS_DIGITS = bytes.maketrans(b"123456789.", b"0000000000")
_TOO_LONG = b"0" * (MAX_DIGITS + 1)


def check_text(raw: bytes) -> None:
    """Limit the values of JSON text that has not been parsed, and the length of its numbers.

    A few passes in C of some milliseconds each for 4 MB, between which other threads run. Raises:
    BadRequest beyond `MAX_VALUES` or `MAX_DIGITS`. Invalid JSON passes.
    """
    if _n_values(raw) <= MAX_CONTAINERS and not _has_long_number(raw):
        return  # including strings
    n_values, n_containers, n_strings = 1, 0, 0
    for text in _outside_strings(raw):
        n_containers += text.count(b"[") + text.count(b"{")
        n_values += _n_values(text) - 1
        n_strings += text.count(b'"')
        for n, most, what in (
            (n_values, MAX_VALUES, "values"),
            (n_containers, MAX_CONTAINERS, "arrays and objects"),
            (n_strings, MAX_STRINGS, "strings and keys"),
        ):
            if n > most:
                raise BadRequest(f"The body has more than {most} JSON {what}: send fewer.")
        if _has_long_number(text):
            raise BadRequest(
                f"The body has a number of more than {MAX_DIGITS} digits: send it with 17 of them."
            )


def _outside_strings(raw: bytes) -> Iterator[bytes]:
    """What stands outside strings, some strings at a time, which are one quote each."""
    rest = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    while rest:
        *pieces, rest = rest.split(b'"', 2 * STRINGS_AT_ONCE)
        if not pieces:
            yield rest
            return
        yield b'"'.join([*pieces[::2], b""])


def _n_values(raw: bytes) -> int:
    """Values in a text without strings; in any other, at most so many."""
    return 1 + raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _has_long_number(raw: bytes) -> bool:
    return _TOO_LONG in raw.translate(_AS_DIGITS)


def check_value(value: dict[str, Any]) -> None:
    """Limit the depth of a parsed body and the keys of each object in it. Raises: BadRequest."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        widest = max((len(one) for one in level if type(one) is dict), default=0)
        if widest > MAX_KEYS:
            raise BadRequest(
                f"An object in the body has {widest} keys, the bound is {MAX_KEYS}: send fewer."
            )
        inner = chain.from_iterable(one.values() if type(one) is dict else one for one in level)
        level = [one for one in inner if type(one) is dict or type(one) is list]
        if not level:
            return
    raise BadRequest(
        f"The body is nested deeper than {MAX_DEPTH} levels: send a flatter JSON object."
    )

"""Slices of a body: all of it, in order, none larger than a slice."""

from __future__ import annotations

import pytest

from edgeagent.api.http.body_slices import SLICE_BYTES, body_slices


@pytest.mark.parametrize(
    "n_bytes", [0, 1, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 5 * SLICE_BYTES]
)
def test_slices_are_the_body_and_only_the_last_one_is_the_end(n_bytes: int):
    body = bytes(i * 7 % 251 for i in range(n_bytes))
    parts = list(body_slices(body))
    assert b"".join(part for part, _ in parts) == body
    assert [has_more for _, has_more in parts] == [True] * (len(parts) - 1) + [False]
    assert all(0 < len(part) <= SLICE_BYTES for part, _ in parts) or n_bytes == 0


def test_a_small_body_is_not_copied():
    body = b"x" * SLICE_BYTES
    ((part, _),) = body_slices(body)
    assert part is body

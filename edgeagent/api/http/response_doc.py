"""Documents one more response of a route in OpenAPI."""

from __future__ import annotations

from typing import Any

from litestar.openapi.datastructures import ResponseSpec


def response_doc(content: type[Any] | None, *, description: str) -> ResponseSpec:
    """The response of a status: its body's model and what it means.

    Without examples: Litestar would invent random ones, with a library that adds 13 MB to the daemon when the
    document is first read.
    """
    return ResponseSpec(content, generate_examples=False, description=description)

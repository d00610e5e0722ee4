"""The base class of all bodies of requests and answers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class BodyModel(BaseModel):
    """A body, or a part of one. Its validator is built at the first use, not at import.

    There are 200 of them, of which a daemon uses a few: building all takes 0.11 s of each start and 4 MB
    (Xeon, 2026-11-29).
    """

    model_config = ConfigDict(defer_build=True)

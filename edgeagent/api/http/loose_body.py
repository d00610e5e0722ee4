"""Bodies whose unknown fields are left alone, as Ollama does: said once in the log, by name.

A number beyond what can be done here is brought to the nearest that can.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, model_validator

from edgeagent.api.http.field_marks import RequestModel

logger = logging.getLogger(__name__)

# Names are the clients' own: so many are remembered, and no more said.
MAX_NAMES = 256
_said: set[str] = set()


class LooseModel(RequestModel):
    """A body, or a part of one, with fields of which only some are known."""

    model_config = ConfigDict(extra="ignore", strict=True)

    # What a field of it is called in the log.
    field_kind: ClassVar[str] = "field"

    @model_validator(mode="before")
    @classmethod
    def _say_what_is_ignored(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name in data.keys() - cls.model_fields.keys() - cls.refused.keys():
                say_ignored(cls.field_kind, str(name))
        return data


def say_ignored(kind: str, name: str) -> bool:
    """Log that a field of a request changes nothing; once for each name, which is a client's text and
    therefore escaped. Returns whether it was said now."""
    if name in _said or len(_said) >= MAX_NAMES:
        return False
    _said.add(name)
    logger.warning("request_%s_ignored name=%s", kind, ascii(name[:80]))
    return True


def within(least: float, most: float) -> BeforeValidator:
    """Numbers brought into bounds; what is no number is left to the field's type to refuse."""

    def fitted(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return min(max(value, least), most) if is_number else value

    return BeforeValidator(fitted)

"""Bodies whose unknown fields are ignored, as in Ollama's API; each name is logged once.

Numbers beyond a limit are clamped to it.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, model_validator

from edgeagent.api.http.field_support import RequestModel

logger = logging.getLogger(__name__)

# Names come from clients: this many are remembered, and no others are logged.
MAX_NAMES = 256
_said: set[str] = set()


class LooseModel(RequestModel):
    """A body, or a part of one, that may have unknown fields."""

    model_config = ConfigDict(extra="ignore", strict=True)

    # The word for its fields in the log.
    field_kind: ClassVar[str] = "field"

    @model_validator(mode="before")
    @classmethod
    def _say_what_is_ignored(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name in data.keys() - cls.model_fields.keys() - cls.refused.keys():
                say_ignored(cls.field_kind, str(name))
        return data


def say_ignored(kind: str, name: str) -> bool:
    """Log once for each name that a field has no effect. The name comes from a client and is escaped.
    Returns whether it was logged now."""
    if name in _said or len(_said) >= MAX_NAMES:
        return False
    _said.add(name)
    logger.warning("request_%s_ignored name=%s", kind, ascii(name[:80]))
    return True


def within(least: float, most: float) -> BeforeValidator:
    """Clamp numbers; other values are left to the field's type to refuse."""

    def fitted(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return min(max(value, least), most) if is_number else value

    return BeforeValidator(fitted)

"""The intents of an assistant model by domain, and the slots of those that have any.

Read from the file that a catalog entry names as `tools`, which the forge writes beside its models
(`forge.export.write_tools`):

    {"out_of_scope": "oos", "domains": {"assistant": ["weather", ...], ...},
     "tools": {"GetWeather": {"description": "Get weather", "slots": ["city", ...]}, ...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from edgeagent.durable import read_json
from edgeagent.errors import SettingsError
from edgeagent.types.tools import Tool

# The threshold if none was calibrated.
THRESHOLD = 0.5
_MOST_BYTES = 16 << 20
# The key of the threshold for requests that offer all domains.
ALL = "all"


class SlottedTool(Struct, frozen=True):
    """An intent with slots, or with a description (a few words) or an `answer` of its own, which a client
    without tools gets instead of the call in words."""

    slots: tuple[str, ...] = ()
    description: str = ""
    answer: str = ""


class Assistant(Struct, frozen=True, kw_only=True):
    """The intents of one model. `thresholds` by domain: an intent with a lower probability is rejected."""

    domains: dict[str, tuple[str, ...]]
    tools: dict[str, SlottedTool] = {}
    out_of_scope: str = "oos"
    thresholds: Mapping[str, float] = {}

    def names(self, domain: str | None) -> tuple[str, ...]:
        """The intents of one domain, or of all, without duplicates."""
        if domain is not None:
            return self.domains[domain]
        return tuple(dict.fromkeys(name for names in self.domains.values() for name in names))

    def slots(self, intent: str) -> tuple[str, ...]:
        return self.tools[intent].slots if intent in self.tools else ()

    def answer(self, intent: str) -> str:
        return self.tools[intent].answer if intent in self.tools else ""

    def threshold(self, domain: str | None) -> float:
        return self.thresholds.get(domain or ALL, THRESHOLD)

    def tool(self, intent: str) -> Tool:
        """An intent in the form of clients' `tools`."""
        slots = {slot: {"type": "string"} for slot in self.slots(intent)}
        own = self.tools[intent].description if intent in self.tools else ""
        said = own or described(intent)
        parameters: dict[str, Any] = {
            "type": "object", "properties": slots, "additionalProperties": False,
        }  # fmt: skip
        return Tool(name=intent, description=said, parameters=parameters)


def described(intent: str) -> str:
    """An intent's name in words: "Card arrival" for card_arrival, "Play music" for PlayMusic."""
    words = spoken(intent)
    return words[:1].upper() + words[1:]


def spoken(name: str) -> str:
    """The words of an intent's or a slot's name; in lower case if the name is in camel case."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).replace("_", " ").strip()


def read_assistant(path: Path) -> Assistant:
    """Raises: SettingsError if the file is missing or is not a list of tools."""
    try:
        return read_json(path, _MOST_BYTES, Assistant)
    except (OSError, msgspec.MsgspecError) as exc:
        raise SettingsError(
            f"{path} is not a list of an assistant's tools ({exc}): restore the file, or correct `tools` in "
            "the catalog."
        ) from exc

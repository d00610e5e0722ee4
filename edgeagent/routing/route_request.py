"""What the router knows of a request and of this device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edgeagent.routing.language import language_of
from edgeagent.routing.upstreams.upstream_access import Access, Sender
from edgeagent.settings.route_rules import Privacy

# Characters of the last message that text conditions read: half from its beginning, half from its end.
WINDOW_CHARS = 4096


@dataclass(frozen=True)
class RouteRequest:
    """A request to a route. `text` is the window of the last message of the user, `n_chars` the length of all
    messages; `domain` and `privacy` come from the metadata. `is_plain`: a text to continue, not a chat.
    `failed` are models that could not be loaded for this request. `request_id` decides what is drawn. An
    answer must begin within `left_s` seconds; None: no deadline. `n_hops`: daemons that it came through."""

    route: str
    text: str = ""
    n_chars: int = 0
    has_tools: bool = False
    has_schema: bool = False
    is_plain: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    key_id: str = "local"
    owner: str = "local"
    privacy: Privacy = "any"
    failed: frozenset[str] = frozenset()
    request_id: str = ""
    left_s: float | None = None
    n_hops: int = 0

    @property
    def sender(self) -> Sender:
        """For whom it would be sent to an upstream."""
        return Sender(self.key_id, self.owner, self.privacy, self.request_id, self.n_hops)

    @property
    def domain(self) -> str | None:
        return self.metadata.get("domain")

    @cached_property
    def folded(self) -> str:
        """The text without upper case, each run of other characters than letters and digits as one space."""
        kept = "".join(char if char.isalnum() else " " for char in self.text.casefold())
        return f" {' '.join(kept.split())} "

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of the folded text."""
        return frozenset(self.folded.split())

    @cached_property
    def language(self) -> str | None:
        """ISO 639-1; None where it is not clear."""
        return language_of(self.text)


@dataclass(frozen=True)
class ModelState:
    """One text model. `cooling_s`: seconds in which it is avoided; `n_busy`: requests that run or wait;
    `first_token_s`, `answer_s`: how long an answer is predicted to take, `answer_j` its energy, None: not
    known; `access`: which requests may be sent to each of its upstreams, empty for a model on this device."""

    model_id: str
    size_bytes: int = 0
    is_assistant: bool = False
    is_resident: bool = False
    n_busy: int = 0
    cooling_s: float = 0.0
    first_token_s: float | None = None
    answer_s: float | None = None
    answer_j: float | None = None
    access: tuple[Access, ...] = ()


@dataclass(frozen=True)
class RouteState:
    """This device at one moment; None: not known.

    `models` by id; `default_id` and `larger_id` are the default model and the one that takes over from it.
    `minute` of the local day. `tokens_of_key`: what the key of the request has used of models in 24 hours,
    and `joules_of_key` what that took; `energy_source`: what measures energy here.
    """

    models: Mapping[str, ModelState]
    default_id: str | None = None
    larger_id: str | None = None
    minute: int = 0
    is_on_battery: bool | None = None
    battery_percent: int | None = None
    is_throttled: bool | None = None
    hottest_c: float | None = None
    tokens_of_key: Mapping[str, int] = field(default_factory=dict)
    joules_of_key: Mapping[str, float] = field(default_factory=dict)
    energy_source: str | None = None


def text_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The window of the last message of the user."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return window(str(message.get("content") or ""))
    return ""


def window(text: str) -> str:
    """The part of a text that conditions read."""
    if len(text) <= WINDOW_CHARS:
        return text
    half = WINDOW_CHARS // 2
    return f"{text[:half]}\n{text[-half:]}"


def length_of(messages: Sequence[Mapping[str, Any]]) -> int:
    """Characters of all messages."""
    return sum(len(str(message.get("content") or "")) for message in messages)

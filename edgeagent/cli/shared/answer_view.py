"""An answer in the terminal: streamed text, complete tool calls, and a line with confidence and speed."""

from __future__ import annotations

import json
import sys
from typing import Any

import click


class AnswerView:
    """Prints the events of one streamed chat. `text` is the text printed so far."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._last: dict[str, Any] = {}
        self._own: dict[str, Any] = {}

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def read(self, event: dict[str, Any]) -> None:
        """Print the new text and calls of one event."""
        for choice in event.get("choices", []):
            delta = choice["delta"]
            self._show(delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                function = call["function"]
                parts = self._calls.setdefault(call["index"], ["", ""])
                parts[0] += function.get("name") or ""
                parts[1] += function.get("arguments") or ""
            if choice.get("finish_reason") is not None:
                self._show_calls()
        self._own = event.get("edgeagent") or self._own
        if event.get("usage"):
            self._last = event

    def _show(self, piece: str) -> None:
        self._pieces.append(piece)
        click.echo(piece, nl=False)
        sys.stdout.flush()

    def _show_calls(self) -> None:
        for name, arguments in self._calls.values():
            before = "\n" if self.text else ""
            self._show(f"{before}{call_text(name, arguments)}")
        self._calls = {}

    def footnote(self) -> str:
        """Confidence and speed in brackets; empty if they are unknown."""
        if not self._last:
            return ""
        return "[" + ", ".join([*_sure(self._own), *_speed(self._last)]) + "]"


def call_text(name: str, arguments: str) -> str:
    """A call for people: `GetWeather(city: "Rome")`. Incomplete arguments are shown unchanged."""
    try:
        values = json.loads(arguments)
        said = ", ".join(f"{key}: {json.dumps(v, ensure_ascii=False)}" for key, v in values.items())
    except (ValueError, AttributeError):
        said = arguments
    return f"{name}({said})"


def _sure(own: dict[str, Any]) -> list[str]:
    if not own:
        return []
    sure = own["confidence"]
    said = f"{sure['intent']} {100 * sure['probability']:.1f}% probable"
    said += ", below the threshold" if sure["abstained"] else ""
    return [said, "handed to the larger model"] if own["route"] == "escalated" else [said]


def _speed(last: dict[str, Any]) -> list[str]:
    usage, timings = last["usage"], last.get("timings", {})
    rate = timings.get("tokens_per_second")
    n = usage["completion_tokens"]
    cached = f"{usage['prompt_tokens_details']['cached_tokens']} of {usage['prompt_tokens']}"
    return [
        f"{n} token{'' if n == 1 else 's'}",
        *([f"{rate:.1f} tokens/s"] if rate else []),
        f"first after {timings.get('ttft_ms', 0):.0f} ms",
        f"{cached} prompt tokens cached",
    ]

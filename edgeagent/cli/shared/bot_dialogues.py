"""Test dialogues of a bot, as YAML: what is said, and what must come back.

    - name: a dog on the ferry
      at: 2026-06-01T09:30             # the bot's clock, by the time zone of its hours; default: now
      turns:
        - say: May I bring my dog?
          cites: [animals.md]          # among the files that are cited
          contains: lead               # in the text, whatever its case
        - say: I want to talk to a person
          handover: human              # or router, or none

`intent`, `slots`, `sure` (false: the documents do not tell, so that the answer says that it may be none, or
that nothing was found) and `basis` (verbatim, quotes, passages, nothing, intent, call, handover, model) are
compared, too. The file is YAML 1.2: 17:00, yes and 2026-06-01 are texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import yaml

from edgeagent.errors import InvalidParameter
from edgeagent.serving.bots.bot_turn import Basis, BotAnswer

MAX_BYTES = 1 << 20
DOUBTFUL_SHARE = 0.9
LEAST_TURNS = 5


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message, and what its answer must be, as far as it is said."""

    say: str
    intent: str | None = None
    slots: dict[str, Any] | None = None
    cites: list[str] = []
    contains: str | None = None
    basis: Basis | None = None
    sure: bool | None = None
    handover: Literal["human", "router", "none"] | None = None


class Dialogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    turns: list[Turn]
    at: str | None = None

    def clock(self, timezone: str) -> Callable[[], datetime]:
        """The bot's clock in this dialogue."""
        if self.at is None:
            return lambda: datetime.now(UTC)
        at = datetime.fromisoformat(self.at)
        local = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(timezone))
        return lambda: local


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.2 in place of 1.1: a time is no number of base 60, and `no` is no boolean."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
    )


def read_dialogues(path: Path) -> list[Dialogue]:
    """Raises: InvalidParameter, with what is wrong and where."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidParameter(
                f"{path.name} has more than {MAX_BYTES} bytes: divide it.", param="bot"
            )
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a safe one
        found = msgspec.convert(tree, list[Dialogue])
        for dialogue in found:
            dialogue.clock("UTC")
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as exc:
        why = " ".join(str(exc).split())
        raise InvalidParameter(f"{path.name} has no test dialogues ({why}).", param="bot") from exc
    if not any(dialogue.turns for dialogue in found):
        raise InvalidParameter(f"{path.name} has no turns to test: write some.", param="bot")
    return found


def differences(turn: Turn, answer: BotAnswer) -> list[str]:
    """What is not as expected, each in a few words."""
    found = []
    for name, wanted, got in (
        ("intent", turn.intent, answer.intent),
        ("basis", turn.basis, answer.basis),
    ):
        if wanted is not None and wanted != got:
            found.append(f"{name} is {got}, not {wanted}")
    is_sure = answer.is_sure and answer.basis != "nothing"
    if turn.sure is not None and turn.sure != is_sure:
        found.append(f"it is {'' if is_sure else 'not '}sure")
    if turn.handover is not None and turn.handover != (answer.handover or "none"):
        found.append(f"handover is {answer.handover or 'none'}, not {turn.handover}")
    for slot, value in (turn.slots or {}).items():
        if answer.slots.get(slot) != value:
            found.append(f"slot {slot} is {answer.slots.get(slot)!r}, not {value!r}")
    for name in turn.cites:
        if name not in answer.citations:
            found.append(f"{name} is not cited ({', '.join(answer.citations) or 'nothing is'})")
    if turn.contains is not None and turn.contains.casefold() not in answer.text.casefold():
        found.append(f"the text does not have {turn.contains!r}")
    return found


class Proposal(NamedTuple):
    """A threshold by the test dialogues: how many of the questions that the documents do not answer, and how
    many of those that they answer, are below it."""

    name: str
    value: float
    doubtful: int
    n_doubtful: int
    answered: int
    n_answered: int

    def __str__(self) -> str:
        does, ends = ("decline", "") if self.name == "answerable" else ("tell", " as uncertain")
        return (
            f"thresholds.{self.name} = {self.value:.2f} would {does} {self.doubtful} of {self.n_doubtful} "
            f"questions that the documents do not answer{ends}, and "
            f"{self.answered} of {self.n_answered} that they answer."
        )


def proposals(held: Sequence[tuple[Turn, BotAnswer]]) -> list[Proposal]:
    """`thresholds.sure`, or, where a judge was asked, `thresholds.sure_answerable` and
    `thresholds.answerable`."""
    found = [_proposed("sure", held, lambda answer: answer.evidence)]
    if any(answer.answerability is not None for _, answer in held):
        found = [
            _proposed(name, held, lambda answer: answer.answerability)
            for name in ("sure_answerable", "answerable")
        ]
    return [one for one in found if one is not None]


def _proposed(
    name: str,
    held: Sequence[tuple[Turn, BotAnswer]],
    value_of: Callable[[BotAnswer], float | None],
) -> Proposal | None:
    """The lowest value that `DOUBTFUL_SHARE` of the turns with `sure: false` are below; None where fewer than
    `LEAST_TURNS` are there, or as few answers that cite what they have to."""
    doubtful = [value_of(answer) or 0.0 for turn, answer in held if turn.sure is False]
    answered = [
        value_of(answer) or 0.0
        for turn, answer in held
        if turn.sure is not False and turn.cites and answer.basis in ("quotes", "nothing")
    ]
    if min(len(doubtful), len(answered)) < LEAST_TURNS:
        return None
    place = math.ceil(DOUBTFUL_SHARE * len(doubtful)) - 1
    least = min(1.0, math.floor(100 * sorted(doubtful)[place] + 1) / 100)
    below = [sum(value < least for value in values) for values in (doubtful, answered)]
    return Proposal(name, least, below[0], len(doubtful), below[1], len(answered))

"""Parses percentages, temperatures and durations in sentences.

Each kind has a regular expression over words that are each followed by a space, and a parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_SPECIAL = {
    "half": 50.0, "halfway": 50.0, "full": 100.0, "maximum": 100.0, "max": 100.0, "fully": 100.0,
    "minimum": 1.0, "min": 1.0, "quarter": 25.0,
}  # fmt: skip
_NUMBER = r"(?:\d+(?:\.\d+)? )"
_TO = "(?:to|at|by|with|up to|down to) "
_UNITS = {
    "hours": ("hours", "hour", "hrs", "hr", "h"),
    "minutes": ("minutes", "minute", "mins", "min", "m"),
    "seconds": ("seconds", "second", "secs", "sec", "s"),
}
_UNIT = "(?:" + "|".join(unit for units in _UNITS.values() for unit in units) + ")"
_PART = rf"(?:(?:{_NUMBER})?(?:and )?(?:half |quarter of )?{_UNIT} (?:and half )?)"
PATTERNS: Mapping[str, str] = {
    # "to 40", "40 percent", "halfway": a bare number might be part of a name
    "percent": rf"(?:(?:{_TO})?(?:{_NUMBER}percent |(?:{'|'.join(_SPECIAL)}) )|{_TO}{_NUMBER})",
    "degrees": rf"(?:(?:{_TO})?{_NUMBER}(?:degrees?|c|f) (?:celsius |fahrenheit |c |f )?|{_TO}{_NUMBER})",
    "bare_degrees": rf"(?:{_NUMBER}(?:(?:degrees?|c|f) (?:celsius |fahrenheit |c |f )?)?)",
    "duration": rf"(?:{_PART}(?:(?:and )?{_PART})*)",
    "text": r"(?:\S+ )+?",
}


def number(text: str) -> float:
    """Raises: ValueError."""
    return float(text)


def percent(text: str) -> float:
    """Raises: ValueError for what is not 0..100."""
    word = _value(text)
    value = _SPECIAL[word] if word in _SPECIAL else number(word)
    if not 0 <= value <= 100:
        raise ValueError(text)
    return value


def degrees(text: str) -> float:
    """Degrees in the unit that the user's home has. Raises: ValueError for none that a home can have."""
    value = number(_value(text))
    if not 0 < value <= 120:
        raise ValueError(text)
    return value


def _value(text: str) -> str:
    """The word that is a number, or stands for one."""
    return next((w for w in text.split() if w[0].isdigit() or w in _SPECIAL), "")


def duration(text: str) -> dict[str, int]:
    """Hours, minutes and seconds, each only where it is not zero. Raises: ValueError for none at all."""
    seconds = 0.0
    for found in re.finditer(_PART, text):
        part = found.group()
        (unit,) = (
            name for name, units in _UNITS.items() if any(word in units for word in part.split())
        )
        scale = {"hours": 3600, "minutes": 60, "seconds": 1}[unit]
        counted = re.match(_NUMBER, part)
        count = number(counted.group()) if counted else 0.0
        if "quarter" in part:
            count += 0.25
        elif "half" in part:
            is_bare = part.split()[0] in _UNITS[unit]
            count += 1.5 if is_bare else 0.5
        elif counted is None:
            count = 1.0
        seconds += count * scale
    whole = round(seconds)
    if whole <= 0:
        raise ValueError(text)
    parts = {"hours": whole // 3600, "minutes": whole % 3600 // 60, "seconds": whole % 60}
    return {name: n for name, n in parts.items() if n}


READERS: Mapping[str, Callable[[str], Any]] = {
    "percent": percent,
    "degrees": degrees,
    "bare_degrees": degrees,
    "duration": duration,
}

"""Chooses the profile that matches a device best, and explains why the others do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from edgeagent.device.probe import Device
from edgeagent.device.profile import MatchRules, Profile
from edgeagent.device.profile_files import load_all
from edgeagent.errors import SettingsError

# How specific a rule is. The board outweighs everything else together, then the processor, then a
# container, whose limits are already part of the other rules.
_WEIGHTS = {"board": 32, "cpu": 16, "container": 8, "battery": 4}


class ProfileCandidate(msgspec.Struct, frozen=True):
    """One candidate profile; `why`: the rule that refused it, or the rules that held."""

    name: str
    verdict: Literal["chosen", "fits", "refused"]
    why: str


class ProfileMatch(msgspec.Struct, frozen=True):
    """The best profile, the reason in one sentence, and all candidates, best first."""

    profile: Profile
    reason: str
    considered: tuple[ProfileCandidate, ...]


def match(device: Device, extra_dirs: Iterable[Path] = ()) -> ProfileMatch:
    """The most specific profile whose rules all hold for `device`.

    Deterministic: more specific profiles first; among equals the one read last, so that a user's profile
    takes precedence over a shipped one. `generic` has no rules and always matches.

    Raises: SettingsError for a bad file in `extra_dirs`, or if none matches because a user gave `generic`
    rules.
    """
    return choose(device, load_all(extra_dirs).values())


def choose(device: Device, profiles: Iterable[Profile]) -> ProfileMatch:
    """`match` among given profiles, later ones preferred among equally specific ones."""
    newest_first = list(profiles)[::-1]  # the sort is stable
    ranked = sorted(newest_first, key=lambda profile: -specificity(profile.match))
    verdicts = [(profile, list(check(profile.match, device))) for profile in ranked]
    best = next((profile for profile, checks in verdicts if all(ok for ok, _ in checks)), None)
    if best is None:
        raise SettingsError(
            f"None of the {len(ranked)} device profiles matches this device, and one must have no match"
            " rules: remove the [match] table of your profile named generic"
        )
    considered = []
    for profile, checks in verdicts:
        refusals = [why for ok, why in checks if not ok]
        held = ", ".join(why for _, why in checks) or "it has no rules"
        if refusals:
            considered.append(ProfileCandidate(profile.name, "refused", refusals[0]))
        else:
            verdict: Literal["chosen", "fits"] = "chosen" if profile is best else "fits"
            considered.append(ProfileCandidate(profile.name, verdict, held))
    reason = next(entry.why for entry in considered if entry.verdict == "chosen")
    return ProfileMatch(
        best, f"{best.name} is the most specific match: {reason}", tuple(considered)
    )


def specificity(rules: MatchRules) -> int:
    """The rank of a matching profile; 0 without rules."""
    given = {
        name: value
        for name, value in msgspec.structs.asdict(rules).items()
        if value is not None and value != ()
    }
    return sum(_WEIGHTS.get(name, 1) for name in given)


def check(rules: MatchRules, device: Device) -> Iterator[tuple[bool, str]]:
    """Every given rule: whether it holds, and the value it was compared with."""
    if rules.board:
        label = device.board.label or "unknown"
        yield _contains(device.board.search_text, rules.board), f"board is {label}"
    if rules.cpu:
        model = device.cpu.model or "unknown"
        yield _contains(model.lower(), rules.cpu), f"processor is {model}"
    if rules.architecture:
        architecture = device.system.architecture
        yield architecture in rules.architecture, f"architecture is {architecture or 'unknown'}"
    ram = device.capacity.ram_usable_bytes
    yield from _range("usable RAM", ram, rules.ram_min_bytes, rules.ram_max_bytes, 2**30, " GiB")
    n_cores = device.cores.n_threads_max
    yield from _range("usable cores", n_cores, rules.n_cores_min, rules.n_cores_max, 1, "")
    if rules.container is not None:
        container = device.system.container
        is_container = container is not None
        yield is_container == rules.container, f"container is {container or 'none'}"
    if rules.battery is not None:
        has_battery = device.power.has_battery
        yield has_battery == rules.battery, f"battery is {'present' if has_battery else 'none'}"


def _contains(text: str, wanted: tuple[str, ...]) -> bool:
    return any(word.lower() in text for word in wanted)


def _range(
    name: str, value: int | None, low: int | None, high: int | None, scale: int, unit: str
) -> Iterator[tuple[bool, str]]:
    if low is None and high is None:
        return
    bounds = " and ".join(
        f"{word} {bound / scale:.4g}{unit}"
        for word, bound in (("at least", low), ("at most", high))
        if bound is not None
    )
    if value is None:
        yield False, f"{name} is unknown, required {bounds}"
        return
    is_inside = (low is None or value >= low) and (high is None or value <= high)
    yield is_inside, f"{name} is {value / scale:.4g}{unit}, required {bounds}"

"""Resolves phrases to devices: "kitchen lights", "lamp in the bedroom", "all blinds", "anna's lamp".

Every word of the phrase must be explained by the name of one device, the name of an area, or a noun for a
kind of device. A phrase that fits several devices is ambiguous; a phrase with an unexplained word is
rejected. Names that are not in the list are never guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from edgeagent.routing.home_assistant.entities import Entity
from edgeagent.routing.home_assistant.normalized_words import Words, stem, stems

_ALL = frozenset({"all", "every", "each", "both", "any", "whole", "entire", "everywhere"})
_PLACE = frozenset({"in", "inside", "of", "at", "on", "for", "from", "over", "within"})
_FILLER = frozenset({"there", "device", "up", "here", "overhead", "main", "some", "more", "please"})


@dataclass(frozen=True)
class Target:
    """One device by name, or all devices of some domains, in one area or everywhere."""

    name: str | None = None
    area: str | None = None
    floor: str | None = None
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class AmbiguousTarget:
    """Several devices fit the phrase."""

    names: tuple[str, ...]


Found = tuple[Target, ...] | AmbiguousTarget


@dataclass(frozen=True)
class Noun:
    """A word for a kind of device. A `common` noun means every device of the domain; others mean the
    devices with the noun in their name, or, if there are none, all of them unless it `needs_name`."""

    domain: str
    is_common: bool = False
    needs_name: bool = False


@dataclass
class Home:
    """The devices of one request, the nouns for their kinds as stems, and the area of the user."""

    entities: Sequence[Entity]
    nouns: Mapping[tuple[str, ...], Sequence[Noun]]
    here: str | None = None
    areas: dict[tuple[str, ...], str] = field(init=False)
    floors: dict[tuple[str, ...], str] = field(init=False)

    def __post_init__(self) -> None:
        self.areas = {
            _key(alias): entity.areas[0] for entity in self.entities for alias in entity.areas
        }
        self.floors = {_key(e.floor): e.floor for e in self.entities if e.floor}

    def vocabulary(self) -> set[str]:
        """All words that names and areas are made of."""
        texts = [name for entity in self.entities for name in (*entity.names, *entity.areas)]
        return {word for text in texts for word in Words.of(text).words}

    def target(
        self, words: Sequence[str], domains: Collection[str] = (), *, place_domain: str = ""
    ) -> Found | None:
        """What `words` mean among the devices of some domains (any where there are none given). An area alone
        means its devices of `place_domain`, or with "*" of all these domains."""
        entities = [e for e in self.entities if not domains or e.domain in domains]
        if not words or not entities:
            return None
        return _Phrase(self, entities, words, place_domain).target()

    def only(self, domain: str) -> tuple[Target, ...]:
        """The only device of a domain, or the only one where the user is; else none in particular."""
        found = [entity for entity in self.entities if entity.domain == domain]
        near = [entity for entity in found if self.here is not None and self.here in entity.areas]
        for some in (near, found):
            if len(some) == 1:
                return (Target(some[0].name, None, None, (domain,)),)
        return ()

    def place(self, words: Sequence[str]) -> tuple[str | None, str | None] | None:
        """The area or the floor that words name."""
        key = stems(words)
        for form in (key, (*key, "room"), key[:-1] if key[-1:] == ("room",) else key):
            if form in self.areas:
                return self.areas[form], None
            if form in self.floors:
                return None, self.floors[form]
        joined = "".join(key)
        for known, name in self.areas.items():
            if "".join(known) == joined:
                return name, None
        return None


@lru_cache(maxsize=8192)
def _key(text: str) -> tuple[str, ...]:
    return stems(Words.of(text).words)


@dataclass
class _Phrase:
    """One phrase being resolved."""

    home: Home
    entities: Sequence[Entity]
    words: Sequence[str]
    place_domain: str

    def target(self) -> Found | None:
        exact = self._named(self.words, self.entities)
        if exact is not None:
            return exact
        bare = [word for word in self.words if word not in _FILLER]
        return self._meant(list(self.words)) or (self._meant(bare) if bare else None)

    def _meant(self, words: list[str]) -> Found | None:
        """What words mean that are not just a name."""
        is_all = any(word in _ALL for word in words)
        is_plural = any(stem(word) != word for word in words)
        words = [word for word in words if word not in _ALL]
        while words and words[0] in _PLACE:  # "all of the lights"
            words = words[1:]
        while words and words[-1] in _PLACE:  # "the lights in here"
            words = words[:-1]
        if not words:
            return None
        if exact := self._named(words, self.entities):
            return exact
        for head, place in self._splits(words, is_all=is_all):
            found = self._within(head, place, is_many=is_all or is_plural, is_all=is_all)
            if found is not None:
                return found
        return self._described(words, is_many=is_all or is_plural)

    def _named(self, words: Sequence[str], entities: Iterable[Entity]) -> Found | None:
        """The device that has exactly this name."""
        key = stems(words)
        joined = "".join(key)
        found = [e for e in entities if any("".join(_key(name)) == joined for name in e.names)]
        if not found and len(key) > 1 and key[-1] in ("device", "entity"):
            return self._named(words[:-1], entities)
        return self._one(found)

    def _one(self, found: Sequence[Entity]) -> Found | None:
        """The only device that was found."""
        if len(found) > 1:
            return AmbiguousTarget(tuple(map(_shown, found)))
        return self._only(found[0]) if found else None

    def _only(self, entity: Entity) -> tuple[Target, ...]:
        """One device; of several with one name, the one in its area."""
        has_twin = sum(one.name == entity.name for one in self.home.entities) > 1
        return (Target(entity.name, entity.area if has_twin else None, None, (entity.domain,)),)

    def _splits(
        self, words: list[str], *, is_all: bool
    ) -> Iterable[tuple[list[str], tuple[str | None, str | None]]]:
        """The ways to read the words as a thing and a place; without a place last."""
        for at in range(len(words) - 1, -1, -1):
            if words[at] in _PLACE and (place := self.home.place(words[at + 1 :])):
                head = words[:at]
                while head and head[-1] in _PLACE:
                    head.pop()
                yield head, place
        for n in range(len(words), 0, -1):
            if place := self.home.place(words[:n]):
                yield words[n:], place
            if n < len(words) and (place := self.home.place(words[-n:])):
                yield words[:-n], place
        if self.home.here is not None and not is_all:
            yield words, (self.home.here, None)
        yield words, (None, None)

    def _within(
        self,
        head: list[str],
        place: tuple[str | None, str | None],
        *,
        is_many: bool,
        is_all: bool,
    ) -> Found | None:
        """A thing in a place: a kind of device, or one by name."""
        area, floor = place
        inside = [e for e in self.entities if _is_in(e, area, floor)]
        if not inside:
            return None
        if not head or head == ["everything"]:
            return self._place_alone(inside, area, floor, is_everything=head != [])
        noun = stems(head)
        meant = [one for one in self.home.nouns.get(noun, ()) if _has(inside, one)]
        if meant and (found := _of_noun(inside, noun, meant)):
            return self._kind(found, inside, place, is_many=is_many, is_all=is_all)
        if area is None and floor is None:
            return None
        return self._named(head, inside) or self._one(_described(head, inside, self.home))

    def _place_alone(
        self, inside: Sequence[Entity], area: str | None, floor: str | None, *, is_everything: bool
    ) -> Found | None:
        if area is None and floor is None:
            return None
        if is_everything:
            return (Target(None, area, floor),)
        if self.place_domain == "*":
            return (Target(None, area, floor, tuple(dict.fromkeys(e.domain for e in inside))),)
        found = [entity for entity in inside if entity.domain == self.place_domain]
        if len(found) > 1:
            return (Target(None, area, floor, (self.place_domain,)),)
        return self._one(found)

    def _kind(
        self,
        found: Sequence[Entity],
        inside: Sequence[Entity],
        place: tuple[str | None, str | None],
        *,
        is_many: bool,
        is_all: bool,
    ) -> Found | None:
        """The devices of a kind: the only one by its name, several by area and domain."""
        area, floor = place
        domains = tuple(dict.fromkeys(entity.domain for entity in found))
        if len(found) == 1 and not (is_all and is_many):
            return self._one(found)
        if len(found) < sum(entity.domain in domains for entity in inside):
            if is_many and (is_all or area or floor):
                return tuple(target for one in found for target in self._only(one))
            return AmbiguousTarget(tuple(map(_shown, found)))
        if area is not None or floor is not None or is_all:
            return (Target(None, area, floor, domains),)
        places = {entity.area for entity in found}
        if is_many and len(places) == 1 and None not in places:
            return (Target(None, found[0].area, None, domains),)
        return AmbiguousTarget(tuple(map(_shown, found)))

    def _described(self, words: Sequence[str], *, is_many: bool) -> Found | None:
        """The device, or the devices, that names in part, an area and nouns describe together."""
        found = _described(words, self.entities, self.home)
        if is_many and len(found) > 1:
            return tuple(target for one in found for target in self._only(one))
        return self._one(found)


def _is_in(entity: Entity, area: str | None, floor: str | None) -> bool:
    if area is not None:
        return area in entity.areas
    return floor is None or entity.floor == floor


def _shown(entity: Entity) -> str:
    return f"{entity.name} ({entity.area})" if entity.area else entity.name


def _has(inside: Sequence[Entity], noun: Noun) -> bool:
    return any(entity.domain == noun.domain for entity in inside)


def _of_noun(
    inside: Sequence[Entity], words: tuple[str, ...], meant: Sequence[Noun]
) -> list[Entity]:
    """The devices that a noun means."""
    found: list[Entity] = []
    for noun in meant:
        able = [entity for entity in inside if entity.domain == noun.domain]
        named = [e for e in able if any(set(words) <= set(_key(name)) for name in e.names)]
        found += able if noun.is_common else named or ([] if noun.needs_name else able)
    return list(dict.fromkeys(found))


def _described(words: Sequence[str], entities: Iterable[Entity], home: Home) -> list[Entity]:
    """The devices whose name, area and kind explain every word, those with most of their name said."""
    wanted = [stem(word) for word in words if word not in _PLACE]
    best: list[Entity] = []
    best_share = 0.0
    for entity in entities:
        share = max((_share(wanted, _key(name), entity, home) for name in entity.names), default=0)
        if share > best_share + 1e-9:
            best, best_share = [entity], share
        elif share and abs(share - best_share) <= 1e-9:
            best.append(entity)
    return best if wanted else []


def _share(wanted: Sequence[str], name: tuple[str, ...], entity: Entity, home: Home) -> float:
    """How much of a device's name the words say, 0 where a word is not explained by the device."""
    area = {word for alias in entity.areas for word in _key(alias)}
    kinds = {
        word
        for words, nouns in home.nouns.items()
        if any(noun.domain == entity.domain and not noun.needs_name for noun in nouns)
        for word in words
    }
    if any(word not in {*name, *area, *kinds} for word in wanted):
        return 0.0
    own = [word for word in name if word not in kinds and word not in area]
    said = [word for word in name if word in wanted]
    if own and not any(word in wanted for word in own):
        return 0.0
    if not own and not any(word in wanted for word in name if word in area):
        return 0.0
    return len(said) / len(name)

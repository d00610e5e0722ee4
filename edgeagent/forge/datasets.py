"""The public data sets for training the assistants: their files, digests, and how they are split.

There are three tasks with one kind of item: a text, its domain, the name of its intent, and the slots in
it. `assistant` is CLINC150 (150 intents, and texts that belong to none), `service` is Banking77, `skills`
is SNIPS (7 intents with slots).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeagent.errors import ForgeFailed

Domain = Literal["assistant", "service", "skills"]
DOMAINS: tuple[Domain, ...] = ("assistant", "service", "skills")
OUT_OF_SCOPE = "oos"
# One in this many items is kept for validation, if a data set has no split of its own.
BANKING_EVERY = 10
SNIPS_EVERY = 20

SNIPS_INTENTS = (
    "AddToPlaylist",
    "BookRestaurant",
    "GetWeather",
    "PlayMusic",
    "RateBook",
    "SearchCreativeWork",
    "SearchScreeningEvent",
)


_STRANGE_TO_ASSISTANT = ("RateBook", "SearchCreativeWork", "SearchScreeningEvent")
_STRANGE_TO_SERVICE = (
    "kitchen_and_dining",
    "home",
    "auto_and_commute",
    "work",
    "small_talk",
    "meta",
)
_STRANGE_TO_SKILLS = ("banking", "credit_cards", "auto_and_commute", "work", "meta", "small_talk")
# Words that a function's question may share with an intent.
_FAMILIAR = re.compile(
    r"weather|forecast|currenc|exchange|convert|calculat|calori|sum of|multipl|distance|direction|"
    r"restaurant|recipe|translat|flight|hotel|timer|alarm|temperature|spell|music|song|movie|playlist|"
    r"album|bank|account|card|order|book|ticket|reserv|schedul|meeting|remind|tax|mortgage|loan",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Source:
    """One file of a data set; `origin` says where to get it."""

    file: str
    sha256: str
    origin: str


_CLINC = (
    "CLINC150 (Larson et al. 2019, CC BY 3.0), github.com/clinc/oos-eval: the splits train, val, oos_train "
    "and oos_val of data/data_oos_plus.json in one file"
)
_BANKING = (
    "Banking77 (Casanueva et al. 2020, CC BY 4.0), github.com/PolyAI-LDN/task-specific-datasets: "
    "banking_data/"
)
_SNIPS = (
    "SNIPS (Coucke et al. 2018, CC0 1.0), github.com/sonos/nlu-benchmark: "
    "2017-06-custom-intent-engines/*/train_*_full.json"
)
_BFCL = (
    "Berkeley Function Calling Leaderboard (Patil et al., Apache-2.0), github.com/ShishirPatil/gorilla: "
    "berkeley-function-call-leaderboard"
)

SOURCES = (
    Source(
        "clinc150/clinc150.json",
        "e04a2b3d6298761273cc5e3cac1f93ecbf982327ea32946967155dc3db6d4168",
        _CLINC,
    ),
    Source(
        "clinc150/domains.json",
        "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
        "CLINC150, github.com/clinc/oos-eval: data/domains.json",
    ),
    Source(
        "banking77/train.csv",
        "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
        _BANKING,
    ),
    Source(
        "snips/train_AddToPlaylist.json",
        "304b402054111174af1b180dcee7d4d8a50240704efabac2d17012b8ff96a8ae",
        _SNIPS,
    ),
    Source(
        "snips/train_BookRestaurant.json",
        "cee852884fa575c4071dfaf856706779c45d9eaebf41c04a8f14f88a1b8c549b",
        _SNIPS,
    ),
    Source(
        "snips/train_GetWeather.json",
        "ae79d25e9c43506c58ed45d01b611244a613cb140cf818bd74604c1b573800a6",
        _SNIPS,
    ),
    Source(
        "snips/train_PlayMusic.json",
        "f36089e3fd6345890e174a7aee67a082c9c572554024e2e92acf1b2518b8a8c9",
        _SNIPS,
    ),
    Source(
        "snips/train_RateBook.json",
        "bb43e4b74134300d5766f6b420d0357a63402987a225f6dc92c806c9c040ce04",
        _SNIPS,
    ),
    Source(
        "snips/train_SearchCreativeWork.json",
        "87b3432de48c71c205aa5238b41d9e3f2d70bdfcd0bea2427544fb9e4bd5e5bb",
        _SNIPS,
    ),
    Source(
        "snips/train_SearchScreeningEvent.json",
        "5447e9440c02e2fb08c3ae16b9f58a4d1332b4bc77fd34691402b02aa4399765",
        _SNIPS,
    ),
    Source(
        "bfcl/BFCL_v4_simple_python.json",
        "82dd63ba502eb2520c6b5d1d9a5c4b590e03ff261565175561f6228a367d1991",
        _BFCL,
    ),
    Source(
        "bfcl/BFCL_v4_multiple.json",
        "aef168155ebd74b7ac2401198b201343bc7d16d7a3d7e0d4e6d8ee82c6969b2a",
        _BFCL,
    ),
)


@dataclass(frozen=True)
class Slot:
    """A value in the text, from character `start` to `end`."""

    name: str
    value: str
    start: int
    end: int


@dataclass(frozen=True)
class Item:
    """One text, and the expected call if the names of `domain` are on offer."""

    text: str
    domain: Domain
    intent: str
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """All training and validation items. `names` are the intents of each domain, `groups` the group of each
    intent of CLINC150, `outside` CLINC150's own training texts out of scope."""

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    names: dict[Domain, tuple[str, ...]]
    slot_names: dict[str, tuple[str, ...]]
    groups: dict[str, str] = field(default_factory=dict)
    outside: tuple[str, ...] = ()

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every intent once, out-of-scope last: the order of the model's classes."""
        every = {name for names in self.names.values() for name in names}
        return (*sorted(every), OUT_OF_SCOPE)


def check_files(folder: Path, sources: Iterable[Source] = SOURCES) -> None:
    """Check that every file exists and has the right digest. Raises: ForgeFailed, saying where to get it."""
    for source in sources:
        path = folder / source.file
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            raise ForgeFailed(
                f"{path} is missing: it comes from {source.origin}. Put it there, or name another folder "
                "with --data."
            ) from None
        except OSError as exc:
            raise ForgeFailed(f"{path} cannot be read ({exc.strerror}): check the folder.") from exc
        if digest != source.sha256:
            raise ForgeFailed(
                f"{path} has SHA-256 {digest[:16]}..., but {source.sha256[:16]}... is expected: get it again "
                f"from {source.origin}."
            )


def load(folder: Path) -> Corpus:
    """Read and split everything. Raises: ForgeFailed."""
    check_files(folder)
    assistant = _clinc(folder / "clinc150" / "clinc150.json")
    service = _banking(folder / "banking77" / "train.csv")
    skills = _snips(folder / "snips")
    domains = _json(folder / "clinc150" / "domains.json")
    train = [*assistant[0], *service[0], *skills[0]]
    train += [*_elsewhere(train, domains), *_bfcl(folder / "bfcl")]
    validation = [*assistant[1], *service[1], *skills[1]]
    names: dict[Domain, tuple[str, ...]] = {}
    slot_names: dict[str, set[str]] = defaultdict(set)
    for domain in DOMAINS:
        found = {i.intent for i in validation if i.domain == domain and i.intent != OUT_OF_SCOPE}
        names[domain] = tuple(sorted(found))
    for item in train:
        if item.intent in SNIPS_INTENTS:
            slot_names[item.intent].update(slot.name for slot in item.slots)
    return Corpus(
        tuple(train),
        tuple(validation),
        names,
        {intent: tuple(sorted(found)) for intent, found in sorted(slot_names.items())},
        {intent: name for name, intents in domains.items() for intent in intents},
        tuple(item.text for item in assistant[0] if item.intent == OUT_OF_SCOPE),
    )


def strange_to(corpus: Corpus, domain: Domain) -> list[Item]:
    """Validation items of other domains that ask for nothing a domain has; of the assistant domain there are
    texts out of scope of its own."""
    groups = corpus.groups
    wanted = {"service": _STRANGE_TO_SERVICE, "skills": _STRANGE_TO_SKILLS}.get(domain, ())
    return [item for item in corpus.validation if groups.get(item.intent) in wanted]


def _json(path: Path, encodings: tuple[str, ...] = ("utf-8",)) -> Any:
    raw = path.read_bytes()
    for encoding in encodings:
        try:
            return json.loads(raw.decode(encoding))
        except UnicodeDecodeError:
            continue
        except ValueError as exc:
            raise ForgeFailed(f"{path} is not JSON ({exc}): get it again.") from exc
    raise ForgeFailed(f"{path} has an unknown encoding: get it again.")


def _clinc(path: Path) -> tuple[list[Item], list[Item]]:
    data = _json(path)

    def items(*splits: str) -> list[Item]:
        return [Item(text, "assistant", intent) for split in splits for text, intent in data[split]]

    return items("train", "oos_train"), items("val", "oos_val")


def _banking(path: Path) -> tuple[list[Item], list[Item]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [
            Item(row["text"].strip(), "service", row["category"]) for row in csv.DictReader(file)
        ]
    return _divide(rows, BANKING_EVERY)


def _snips(folder: Path) -> tuple[list[Item], list[Item]]:
    items = []
    for intent in SNIPS_INTENTS:
        # Some of the files are in Latin-1.
        data = _json(folder / f"train_{intent}.json", ("utf-8", "latin-1"))
        items += [_snips_item(intent, entry["data"]) for entry in data[intent]]
    return _divide(items, SNIPS_EVERY)


def _snips_item(intent: str, parts: list[dict[str, str]]) -> Item:
    text = ""
    slots = []
    for part in parts:
        value = part["text"]
        if "entity" in part and value.strip():
            start = len(text) + len(value) - len(value.lstrip())
            slots.append(Slot(part["entity"], value.strip(), start, start + len(value.strip())))
        text += value
    left = len(text) - len(text.lstrip())
    slots = [Slot(s.name, s.value, s.start - left, s.end - left) for s in slots]
    return Item(text.strip(), "skills", intent, tuple(slots))


def _elsewhere(items: list[Item], clinc_domains: dict[str, list[str]]) -> list[Item]:
    """Texts of one data set as out-of-scope texts of another with entirely different intents."""
    group = {intent: name for name, intents in clinc_domains.items() for intent in intents}
    found = []
    for n, item in enumerate(items):
        if item.intent in _STRANGE_TO_ASSISTANT and n % 12 == 0:
            found.append(Item(item.text, "assistant", OUT_OF_SCOPE))
        elif group.get(item.intent) in _STRANGE_TO_SERVICE and n % 10 == 0:
            found.append(Item(item.text, "service", OUT_OF_SCOPE))
        elif group.get(item.intent) in _STRANGE_TO_SKILLS and n % 10 == 1:
            found.append(Item(item.text, "skills", OUT_OF_SCOPE))
    return found


def _bfcl(folder: Path) -> list[Item]:
    """Questions for functions that none of the domains has."""
    questions = []
    for name in ("BFCL_v4_simple_python.json", "BFCL_v4_multiple.json"):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            question = json.loads(line)["question"][0][-1]["content"].strip()
            if len(question) <= 160 and not _FAMILIAR.search(question):
                questions.append(question)
    return [
        Item(question, domain, OUT_OF_SCOPE)
        for n, question in enumerate(dict.fromkeys(questions))
        for domain in (DOMAINS if n % 3 == 0 else ("assistant",))
    ]


def _divide(items: list[Item], every: int) -> tuple[list[Item], list[Item]]:
    """Training and validation items: every `every`-th item of each intent is for validation."""
    seen: dict[str, int] = defaultdict(int)
    kept: list[Item] = []
    back: list[Item] = []
    for item in items:
        seen[item.intent] += 1
        (back if seen[item.intent] % every == 0 else kept).append(item)
    return kept, back

"""Broad English texts that a small sentence encoder learns from: no labels are used.

| part | origin | licence |
|---|---|---|
| definitions and examples | WordNet 3.0, of Debian's package wordnet-base | WordNet 3.0 |
| descriptions of programs | Debian bookworm's list of packages | free, of each package |
| encyclopedia | WikiText-2's validation part | CC BY-SA 3.0 |
| what people ask for | the training splits of CLINC150 and Banking77, and BFCL | see `datasets` |
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeagent.forge import datasets
from edgeagent.forge.datasets import Source, check_files

_WORDNET = "Debian's package wordnet-base 1:3.0-37, folder /usr/share/wordnet"
_DEBIAN = "Debian bookworm's index main/i18n/Translation-en"
_WIKITEXT = "WikiText-2 (Merity et al. 2016, arXiv:1609.07843), the validation part"
WIKITEXT = Source(
    "wikitext-2/valid.txt",
    "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    _WIKITEXT,
)
TEXTS = (
    Source(
        "wordnet/data.noun",
        "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
        _WORDNET,
    ),
    Source(
        "wordnet/data.verb",
        "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2",
        _WORDNET,
    ),
    Source(
        "wordnet/data.adj",
        "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7",
        _WORDNET,
    ),
    Source(
        "wordnet/data.adv",
        "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139",
        _WORDNET,
    ),
    Source(
        "debian/Translation-en",
        "62f59c3cdca9786e4f7adf9002f9f5729a684adcb4667e58e448dec9b5a46c7f",
        _DEBIAN,
    ),
)
_SHORTEST, _LONGEST = 12, 320  # characters
_N_DEFINITIONS, _N_EXAMPLES, _N_PROGRAMS, _N_ENCYCLOPEDIA = 22_000, 8_000, 4_000, 4_000


@dataclass(frozen=True)
class TextCorpus:
    """Different texts in an order that depends on the seed only."""

    texts: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()


def read(data: Path, texts: Path, seed: int = 1) -> TextCorpus:
    """From the folder of the data sets and that of the other texts. Raises: ForgeFailed."""
    check_files(data, [WIKITEXT])
    check_files(texts, TEXTS)
    rng = random.Random(seed)
    definitions: list[str] = []
    examples: list[str] = []
    for part in ("noun", "verb", "adj", "adv"):
        for definition, said in _wordnet(texts / "wordnet" / f"data.{part}"):
            definitions.append(definition)
            examples += said
    programs = list(_programs(texts / "debian" / "Translation-en"))
    # Not SNIPS: a set of what people ask for that it has not seen shows what it is worth.
    items = datasets.load(data).train
    skills = {item.text for item in items if item.intent in datasets.SNIPS_INTENTS}
    asked = [item.text for item in items if item.text not in skills]
    found = [
        *_some(rng, definitions, _N_DEFINITIONS),
        *_some(rng, examples, _N_EXAMPLES),
        *_some(rng, programs, _N_PROGRAMS),
        *_some(rng, list(_encyclopedia(data / "wikitext-2" / "valid.txt")), _N_ENCYCLOPEDIA),
        *asked,
    ]
    distinct = [t for t in dict.fromkeys(found) if _SHORTEST <= len(t) <= _LONGEST]
    rng.shuffle(distinct)
    return TextCorpus(tuple(distinct))


def _some(rng: random.Random, texts: list[str], n: int) -> list[str]:
    distinct = list(dict.fromkeys(texts))
    return rng.sample(distinct, min(n, len(distinct)))


def _wordnet(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The words of each synset with their definition, and its example sentences."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if line.startswith(" "):  # the licence
            continue
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        n_words = int(fields[3], 16)
        words = [w.split("(")[0].replace("_", " ") for w in fields[4 : 4 + 2 * n_words : 2]]
        said = [e.strip() for e in re.findall(r'"([^"]+)"', gloss)]
        meaning = gloss.split('; "')[0].strip(' ;"')
        # Definitions also stand alone, so that they are not recognized by their words only.
        yield (meaning if number % 3 == 0 else f"{', '.join(words[:3])}: {meaning}"), said


def _programs(path: Path) -> Iterator[str]:
    """The first paragraph of each description."""
    for entry in path.read_text(encoding="utf-8").split("\n\n"):
        _, _, text = entry.partition("Description-en: ")
        summary, _, body = text.partition("\n")
        first = " ".join(" ".join(body.split("\n .\n")[0].split()).split()[:45])
        if first:
            yield first
        elif summary:
            yield summary.strip()


def _encyclopedia(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if "<unk>" in line and line.count("<unk>") > 12:
            continue
        text = re.sub(r" @(.)@ ", r"\1", line.strip())
        text = re.sub(r" ([,.;:)'])", r"\1", text).replace("( ", "(").replace("<unk>", "")
        yield from (" ".join(s.split()) for s in re.split(r"(?<=[.?!]) ", text))

"""The language of a short text, by its script and its most frequent words.

Only for conditions of routing rules: it is quick, knows few languages and says None rather than guess.
"""

from __future__ import annotations

import re

MAX_WORDS = 200
# Frequent words that few of the other languages share.
_WORDS = {
    "en": "the and is are was what how of to in it you that this for with my can please do does i not have "
    "where when why which on at be would could should set turn me an a",
    "de": "der die das und ist sind was wie ich nicht ein eine einen mit für auf zu den dem wir sie es "
    "bitte kann warum wann wo welche im am mein meine von haben",
    "fr": "le la les et est sont quoi comment je ne pas un une des avec pour sur dans du vous nous il elle "
    "que qui pourquoi quand où quel quelle mon ma mes au ce cette",
    "es": "el la los las y es son qué cómo yo no un una unos con para por en del usted nosotros que quién "
    "porqué cuándo dónde cuál mi mis al este esta está de puede",
    "it": "il lo la gli le e è sono che cosa come io non un una con per su nel della del di perché quando "
    "dove quale mio mia al questo questa puoi",
    "pt": "o a os as e é são que como eu não um uma com para por em no na do da você nós quem quando onde "
    "qual meu minha ao este esta está de pode",
    "nl": "de het een en is zijn wat hoe ik niet met voor op aan te van wij jij je u kan waarom wanneer "
    "waar welke mijn dit dat om",
}
_LANGUAGES = {name: frozenset(words.split()) for name, words in _WORDS.items()}
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("uk", re.compile("[іїєґІЇЄҐ]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str | None:
    """The language as ISO 639-1; None where no language is clearly ahead."""
    words = _WORD.findall(text)[:MAX_WORDS]
    joined = " ".join(words)
    if not joined:
        return None
    if not joined.isascii():
        n_letters, n_foreign = len(joined) - len(words) + 1, sum(char > "\u036f" for char in joined)
        for name, script in _SCRIPTS:
            n_own = len(script.findall(joined))
            # Japanese and Ukrainian texts have few of the letters that only they have.
            if 3 * (n_foreign if n_own and name in ("ja", "uk") else n_own) >= n_letters:
                return name
    folded = [word.casefold() for word in words]
    counts = sorted(
        ((sum(word in known for word in folded), name) for name, known in _LANGUAGES.items()),
        reverse=True,
    )
    (most, best), (second, _) = counts[:2]
    return best if most > second and 6 * most >= len(folded) else None

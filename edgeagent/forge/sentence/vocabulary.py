"""Which word pieces of a BERT vocabulary a small encoder keeps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PLAIN = re.compile(r"(##)?[a-z0-9]+|[!-/:-@\[-`{-~£€°’“”–—…]")
# Pieces that are kept for their place in the vocabulary, which is sorted by frequency in books and an
# encyclopedia.
_FREQUENT = 8000


def chosen(pieces: Sequence[str], used: Iterable[Sequence[int]], n: int) -> list[int]:
    """The numbers of `n` pieces, ascending: special ones, single characters (so that every Latin word can be
    spelled), frequent ones, then those that the texts `used` have most often."""
    counts: Counter[int] = Counter()
    for ids in used:
        counts.update(ids)
    plain = [i for i, piece in enumerate(pieces) if _PLAIN.fullmatch(piece)]
    kept = {i for i, piece in enumerate(pieces) if piece in SPECIAL}
    kept |= {i for i in plain if len(pieces[i].removeprefix("##")) == 1}
    for some in (
        [i for i in plain if i < _FREQUENT],
        sorted(plain, key=lambda i: (-counts[i], i)),
    ):
        for i in some:
            if len(kept) >= n:
                break
            kept.add(i)
    return sorted(kept)

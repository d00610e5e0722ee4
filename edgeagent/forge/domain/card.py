"""The model card of a domain model, in Markdown."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgeagent.forge.domain.example import Domain

if TYPE_CHECKING:
    from edgeagent.forge.domain.build import DomainFigures

_HOW = {
    "head": "A linear classifier on what the frozen base model {base} makes of a text, without torch.",
    "torch": "New tokens on the frozen base model {base} first, then all layers with a small rate.",
}


def card(name: str, domain: Domain, figures: DomainFigures) -> str:
    """What the model knows, how good it is, and what it cannot do."""
    counts = Counter(e.intent for e in domain.examples)
    slots = domain.slot_names
    intents = "\n".join(
        f"| {intent} | {counts[intent]} | {', '.join(slots.get(intent, ())) or '-'} |"
        for intent in domain.intents
    )
    recall = "not measured: no such texts" if figures.recall is None else f"{figures.recall:.1%}"
    slot_lines = ""
    if figures.slot_f1 is not None and figures.calls is not None:
        slot_lines = (
            f"| slots of examples it has seen: F1 of exact values | {figures.slot_f1:.1%} |\n"
            f"| whole calls of examples it has seen | {figures.calls:.1%} |\n"
        )
    return f"""# {name}

{figures.n_intents} intents, from {figures.n_examples} examples. Made by `edgeagent forge new`.
{_HOW[figures.method].format(base=figures.base)}

| figure | value |
|---|---|
| accuracy of the intent, on texts it had not seen | {figures.accuracy:.1%} |
| threshold: a less probable intent is rejected | {figures.threshold:.3f} |
| right choices that this loses | {figures.lost:.1%} |
| everyday texts, and yours, of no intent that it recognises | {recall} |
{slot_lines}| texts per second, as served here | {figures.texts_per_s:.0f} |
| seconds of training | {figures.seconds:.0f} |
| size | {figures.size_bytes / 1e6:.1f} MB |

| intent | examples | slots |
|---|---|---|
{intents}

It answers the last text of a user with one call and holds no conversation. It knows these intents and no
others; a text that asks for two things gets one of them. Values of slots are copied from the text. Do not
let it act alone where a wrong call does harm: ask back.
"""

"""Reads training data of Rasa (YAML, versions 2 and 3): the examples of `nlu`, and answers from `responses`.

    nlu:
    - intent: book_table
      examples: |
        - book a table for [two](party_size)
    responses:
      utter_book_table:
      - text: Your table is booked.

A response belongs to the intent whose name follows `utter_`. Synonyms, lookup tables and patterns have no
use here and are left out.
"""

from __future__ import annotations

from edgeagent.forge.domain.example import Domain, Place
from edgeagent.forge.domain.readers.inline_slots import add_marked
from edgeagent.forge.domain.readers.yaml_document import Node


def is_rasa(root: Node) -> bool:
    return root.get("nlu") is not None or root.get("responses") is not None


def read_rasa(root: Node) -> Domain:
    """Raises: ForgeFailed."""
    domain = Domain()
    nlu = root.get("nlu")
    for block in (nlu.items or ()) if nlu is not None else ():
        intent, examples = block.get("intent"), block.get("examples")
        if intent is None:
            continue
        if intent.text is None or examples is None:
            raise block.error("an intent needs a name and `examples`: add what is missing.")
        for place, text in _lines(examples):
            add_marked(domain, text, intent.text, place)
    responses = root.get("responses")
    for name, choices in ((responses.keys or {}) if responses is not None else {}).items():
        first = choices.items[0] if choices.items else None
        said = first.get("text") if first is not None else None
        if name.startswith("utter_") and said is not None and said.text:
            place = Place(choices.path, choices.line)
            domain.answers[domain.intent(name.removeprefix("utter_"), place)] = said.text.strip()
    return domain


def _lines(examples: Node) -> list[tuple[Place, str]]:
    """The texts of a block of `- ` lines, or of a list (`text:` within, if they have metadata)."""
    if examples.text is not None:
        found = []
        for number, line in enumerate(examples.text.splitlines()):
            text = line.strip()
            if text.startswith("-"):
                where = examples.line + number + examples.is_block
                found.append((Place(examples.path, where), text[1:]))
            elif text and not text.startswith("#"):
                raise examples.error(
                    f"the example {text[:60]!r} does not begin with '- ': add that."
                )
        return found
    texts = [item if item.text is not None else item.get("text") for item in examples.items or ()]
    return [
        (Place(n.path, n.line), n.text.strip().removeprefix("- "))
        for n in texts if n is not None and n.text is not None
    ]  # fmt: skip

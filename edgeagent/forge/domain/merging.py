"""New examples beside known ones, and what a new version no longer knows."""

from __future__ import annotations

from pathlib import Path

from edgeagent.forge.domain.checks import normalized
from edgeagent.forge.domain.example import Domain, Example
from edgeagent.forge.domain.served_evaluation import choices


def merged(old: Domain, new: Domain) -> Domain:
    """All examples; a text of both has the intent and the slots of the new one. Raises: ForgeFailed for too
    many."""
    replaced = {normalized(example.text) for example in new.examples}
    kept = [e for e in old.examples if normalized(e.text) not in replaced]
    both = Domain(kept, dict(old.answers), dict(old.tools))
    both.merge(new)
    return both


async def regressions(
    before: Path, after: Path, old: Domain, new: Domain
) -> tuple[list[tuple[Example, str]], int]:
    """Texts that the file `before` had right and `after` has wrong, with its choice, and how many `before`
    had right. Texts whose intent was changed do not count."""
    labels = {normalized(e.text): e.intent for e in new.examples}
    known = [e for e in old.inside if labels.get(normalized(e.text)) == e.intent]
    texts = [e.text for e in known]
    was = await choices(before, texts, old.intents, {})
    now = await choices(after, texts, new.intents, {})
    right = [n for n, e in enumerate(known) if was[n].intent == e.intent]
    lost = [(known[n], now[n].intent) for n in right if now[n].intent != known[n].intent]
    return lost, len(right)

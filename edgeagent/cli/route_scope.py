"""`edgeagent route calibrate --scope MODEL`: the scope gate of an assistant model, fitted to other texts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.catalog.installed import InstalledModels
from edgeagent.cli.shared.options import configured
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.errors import InvalidParameter, ModelNotFound, SettingsError
from edgeagent.serving.scope_judge import FOLDER, SUFFIX
from edgeagent.settings import Settings

if TYPE_CHECKING:
    from edgeagent.routing.scope_gate import ScopeFile
    from edgeagent.routing.training.scope_training import Answer


def calibrate_scope(
    model_id: str, data: Sequence[Path], domain: str | None, *, rolls_back: bool, as_json: bool,
    config: Path | None, flags: dict[str, Any],
) -> None:  # fmt: skip
    """Fit the gate of a model to texts, or take the last calibration back."""
    resolved = configured(config, **flags).resolved
    settings, models = resolved.settings, InstalledModels.of(resolved)
    target = settings.state_dir / FOLDER / f"{model_id}{SUFFIX}"
    models.find(model_id)  # a name of no model may be a path
    from edgeagent.routing.training.scope_revisions import replace_scope, roll_back_scope

    try:
        if rolls_back:
            earlier = roll_back_scope(target)
            told: dict[str, Any] = {"file": str(target), "revision": earlier and earlier.revision}
        else:
            file = _current(models, model_id, target)
            made, told = _calibrated(
                models, model_id, file, data, domain, settings.routing.scope.max_lost
            )
            told = {"file": str(target), "revision": replace_scope(target, made).revision} | told
    except OSError as exc:
        raise InvalidParameter(f"{target} cannot be written: {exc.strerror}.") from exc
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    if told["revision"] is None:
        click.echo(f"{target} is removed: the gate of the model itself counts again.")
        return
    click.echo(f"{target}: revision {told['revision']}")
    if "found" in told:
        click.echo(
            f"{told['lost']:.1%} of {told['n_inside']} right answers are handed on, {told['found']:.0%} of "
            f"{told['n_outside']} texts out of scope (before: {told['lost_before']:.1%} and "
            f"{told['found_before']:.0%})"
        )


def told_of_gate(
    settings: Settings, models: InstalledModels, model_id: str, text: str, domain: str | None
) -> dict[str, Any] | None:
    """What the gate of a model knows of a text before the model has answered; None without a gate."""
    from edgeagent.errors import SettingsError
    from edgeagent.routing.scope_texts import WordNearness

    try:
        file = _current(models, model_id, settings.state_dir / FOLDER / f"{model_id}{SUFFIX}")
    except InvalidParameter:
        return None
    except SettingsError as exc:
        return {"fault": exc.message}
    gates = file.models.get(models.find(model_id).sha256 or "", {})
    if not settings.routing.scope.gate or (domain or ALL) not in gates:
        return None
    words = WordNearness(file.vocabulary, file.intents, file.outside)
    found = {intent: one for intent in file.intents if (one := words.of(text, intent)) is not None}
    best = max(found, key=lambda intent: found[intent].near)
    return {
        "max_lost": settings.routing.scope.max_lost, "revision": file.revision, "nearest": best,
        "near": round(found[best].near, 4), "unknown": round(found[best].unknown, 4),
    }  # fmt: skip


def _current(models: InstalledModels, model_id: str, target: Path) -> ScopeFile:
    """The gate in use: the calibrated one, or where that cannot be read the model's own. Raises:
    InvalidParameter without one; SettingsError."""
    from edgeagent.routing.scope_gate import read_scope

    try:
        own = models.beside_intents(model_id, SUFFIX)
    except ModelNotFound:
        own = None
    paths = [path for path in (target, own) if path is not None and path.is_file()]
    if not paths:
        raise InvalidParameter(
            f"Model {model_id!r} has no scope gate: the bundled assistants have one, and those that "
            "`edgeagent forge new` makes of enough examples."
        )
    try:
        return read_scope(paths[0])
    except SettingsError as exc:
        if len(paths) == 1:
            raise
        click.echo(exc.message, err=True)
    return read_scope(paths[1])


def _calibrated(
    models: InstalledModels, model_id: str, file: ScopeFile, data: Sequence[Path], domain: str | None,
    max_lost: float,
) -> tuple[ScopeFile, dict[str, Any]]:  # fmt: skip
    """Raises: InvalidParameter for too few texts; ForgeFailed for files that cannot be read."""
    from edgeagent.routing.training.scope_training import domain_gates, outcome

    model = models.find(model_id)
    answers = _answers(models, model_id, file, data, domain)
    key = domain or ALL
    gates = domain_gates(answers, file)
    known = file.models.get(model.sha256 or "", {})
    before = outcome(known[key], answers, file, max_lost) if key in known else (0.0, 0.0)
    lost, found = outcome(gates, answers, file, max_lost)
    changed = file.models | {model.sha256 or "": known | {key: gates}}
    return msgspec.structs.replace(file, models=changed), {
        "domain": key, "n_inside": gates.n_inside, "n_outside": gates.n_outside, "lost": lost,
        "found": found, "lost_before": before[0], "found_before": before[1],
    }  # fmt: skip


def _answers(
    models: InstalledModels,
    model_id: str,
    file: ScopeFile,
    data: Sequence[Path],
    domain: str | None,
) -> list[Answer]:
    """What the model answers to the texts, in a worker of its own, and their vectors where the gate has some
    and the encoder is there."""
    from edgeagent.forge.datasets import OUT_OF_SCOPE
    from edgeagent.forge.domain.features import encoder, vectors
    from edgeagent.forge.domain.readers.source import read_domain
    from edgeagent.forge.domain.served_evaluation import choices
    from edgeagent.routing.training.scope_training import Answer

    assistant = models.assistant(model_id)
    if assistant is None:
        raise InvalidParameter(f"Model {model_id!r} is no assistant model: name one.")
    if domain is not None and domain not in assistant.domains:
        raise InvalidParameter(
            f"--domain is {domain[:80]!r}, and the domains are {', '.join(assistant.domains)}."
        )
    names = assistant.names(domain)
    examples = [one for path in data for one in read_domain(path, 0).examples]
    if strange := sorted({one.intent for one in examples} - {*names, OUT_OF_SCOPE}):
        raise InvalidParameter(
            f"The texts have the intent {strange[0]!r}, which {model_id} has not: write `oos` where a text "
            "asks for none of its intents."
        )
    texts = [one.text for one in examples]

    async def embedded(path: Path) -> Any:
        async with encoder(path) as client:
            return await vectors(client, texts)

    with timed_progress() as tell:
        found = asyncio.run(
            choices(
                models.find(model_id).path, texts, names, dict.fromkeys(assistant.tools, ()),
                lambda n: tell("asking", n, len(texts)),
            )
        )  # fmt: skip
        part = models.part(file.encoder)
        made = asyncio.run(embedded(part.path)) if part is not None else None
    return [
        Answer(
            example.text, example.intent if example.intent != OUT_OF_SCOPE else None, one.intent,
            one.probability, one.margin, made[n].astype("f8") if made is not None else None,
        )
        for n, (example, one) in enumerate(zip(examples, found, strict=True))
    ]  # fmt: skip

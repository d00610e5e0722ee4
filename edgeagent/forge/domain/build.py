"""Makes a domain model: reads nothing and installs nothing; from a checked domain to files in a workspace."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.catalog.catalog_file import Entry, LocalPath, Variant
from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.toml_text import to_toml
from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.domain.call_rows import calls_of, first_rows
from edgeagent.forge.domain.card import card
from edgeagent.forge.domain.checks import Finding, confused_pairs, nearest_pairs
from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
from edgeagent.forge.domain.example import Domain
from edgeagent.forge.domain.head_training import (
    Base,
    Head,
    LabelledTexts,
    Tell,
)
from edgeagent.forge.domain.intent_file import intent_file
from edgeagent.forge.domain.judging import MOST_JUDGED, first, judge, spread
from edgeagent.forge.domain.scope import domain_scope
from edgeagent.forge.domain.served_evaluation import ServedFigures, served_figures
from edgeagent.forge.domain.softmax_head import Ids
from edgeagent.forge.domain.trunk import Trunk
from edgeagent.forge.domain.trunk_file import Floats
from edgeagent.forge.domain.workspace import Method, Workspace, write_text
from edgeagent.routing.training.scope_training import write_scope

# Examples that are asked of the made file, to see that it computes what was trained.
N_SERVED = 200
MOST_DIFFERENT = 0.03


@dataclass(frozen=True)
class DomainFigures:
    """`base`: the model it began with; `tried`: the accuracy of a head on each, by cross-validation.
    `accuracy`, `lost`, `recall`: of texts that the model had not seen (cross-validation), as in
    `thresholds.Calibration`; `served` are those of the made file on examples that it has seen."""

    method: str
    base: str
    tried: Mapping[str, float]
    n_intents: int
    n_examples: int
    accuracy: float
    threshold: float
    lost: float
    recall: float | None
    slot_f1: float | None
    calls: float | None
    texts_per_s: float
    seconds: float
    size_bytes: int


@dataclass(frozen=True)
class Made:
    """What was made, and what was noticed about the examples."""

    figures: DomainFigures
    entry: Entry
    findings: list[Finding]


@dataclass(frozen=True)
class BuildOptions:
    """How to make a model. With `teacher`, a sentence encoder's file. `minutes`: for all of it with torch,
    and without it where there are more than `MOST_JUDGED` examples."""

    seed: int
    method: Method
    minutes: float = 10.0
    teacher: Path | None = None
    larger: str | None = None


def build(
    domain: Domain, bases: Sequence[Base], workspace: Workspace, options: BuildOptions, tell: Tell
) -> Made:
    """Train on each of the bases, keep the better one, write the files, and check them as served.

    Raises: ForgeFailed.
    """
    return asyncio.run(_build(domain, bases, workspace, options, tell))


async def _build(
    domain: Domain, bases: Sequence[Base], workspace: Workspace, options: BuildOptions, tell: Tell
) -> Made:
    started, whole = time.monotonic(), domain
    if options.method == "torch" and len(domain.examples) > MOST_JUDGED:
        domain = first(replace(domain, examples=spread(domain.examples, options.seed)), MOST_JUDGED)
    made = await judge(domain, bases, workspace, options.seed, options.minutes, tell)
    trunk, head, texts, states, domain = made.base, made.head, made.texts, made.states, made.domain
    notes = _left_out(made.n_learnt, len(whole.examples), options)
    inside = _inside(domain)
    n_intents = len(domain.intents)
    calibration, findings = head.calibration, confusions(head.classes, head.logits, head.labels)
    method = options.method
    if method == "torch" and isinstance(trunk, EncoderTrunk):
        # Where the vectors of sentences tell intents apart better, training an assistant does not help.
        method = "head"
    if method == "torch":
        assert isinstance(trunk, Trunk)
        # Imported here: without torch the rest still works.
        from edgeagent.forge.domain.torch_training import train_with_torch

        left_s = 60 * options.minutes - (time.monotonic() - started)
        trained = await train_with_torch(
            domain, trunk, workspace, texts, states, head, options, left_s, tell
        )
        write_model(trunk, domain, workspace, trained.rows, trained.weights)
        calibration, findings = trained.calibration, trained.findings
        wanted = trained.logits[inside, :n_intents].argmax(1)
    else:
        write_model(trunk, domain, workspace, head.rows)
        wanted = (states[inside] @ head.rows[:n_intents].T).argmax(1)
    served = await check_served(domain, workspace, [domain.intents[n] for n in wanted], tell)
    write_gate(workspace, texts, head if method == "head" else None, options.seed)
    figures = DomainFigures(
        method, trunk.name, {one.name: h.calibration.accuracy for one, h in made.tried}, n_intents,
        made.n_learnt, calibration.accuracy, round_down(calibration.threshold), calibration.lost,
        calibration.recall, served.slot_f1, served.calls, served.texts_per_s, time.monotonic() - started,
        workspace.gguf.stat().st_size,
    )  # fmt: skip
    findings = [*notes, *nearest_pairs(domain.inside, states[inside, : trunk.n_embd]), *findings]
    entry = write_about(whole, trunk, workspace, figures, options.larger)
    return Made(figures, entry, findings)


def _left_out(n_learnt: int, n: int, options: BuildOptions) -> list[Finding]:
    if n_learnt == n:
        return []
    why = f"--minutes {options.minutes:g} is too short for all: give it more"
    if options.method == "torch":
        why = f"training with torch takes {MOST_JUDGED}: --method head takes more"
    said = f"{n_learnt} of {n} examples were learnt, of each intent alike; {why}."
    return [Finding("warning", None, said)]


def _inside(domain: Domain) -> list[int]:
    inner = set(map(id, domain.inside))
    return [n for n, example in enumerate(domain.examples) if id(example) in inner]


def write_gate(workspace: Workspace, texts: LabelledTexts, head: Head | None, seed: int) -> None:
    """Write the scope gate, where there are enough texts for one. Training with torch changes the answers
    that it is fitted to: such a model, without a `head`, has none."""
    workspace.scope.unlink(missing_ok=True)
    if head is None:
        return
    made = domain_scope(workspace.name, sha256_of(workspace.gguf), texts, head, seed)
    if made is not None:
        write_scope(made, workspace.scope)


def confusions(classes: Sequence[str], logits: Floats, labels: Ids) -> list[Finding]:
    """The intents that are confused most, of texts that were not learnt from."""
    n = len(classes) - 1
    mine = labels < n
    chosen = logits[mine, :n].argmax(1)
    return confused_pairs([classes[i] for i in labels[mine]], [classes[i] for i in chosen])


def write_model(
    trunk: Base,
    domain: Domain,
    workspace: Workspace,
    rows: Floats,
    weights: Mapping[str, Floats] | None = None,
) -> None:
    """`rows`: of the intents and out-of-scope; with `weights` of an assistant, of all its calls."""
    told = f"{len(domain.intents)} intents, made by edgeagent forge new"
    if isinstance(trunk, EncoderTrunk):
        labels = (*domain.intents, OUT_OF_SCOPE)
        trunk.write(
            workspace.gguf, labels, rows, name=workspace.name, description=told, weights=weights
        )
    else:
        rows = rows if weights is not None else first_rows(trunk, domain, rows)
        trunk.write(
            workspace.gguf, calls_of(domain), rows, name=workspace.name, description=told,
            weights=weights,
        )  # fmt: skip
    write_text(workspace.intents, intent_file(domain, workspace.name))


async def check_served(
    domain: Domain, workspace: Workspace, wanted: Sequence[str], tell: Tell
) -> ServedFigures:
    """Ask the made file for the intents of some examples; `wanted` are what the training chose for all.

    Raises: ForgeFailed where it does not compute what was trained.
    """
    step = max(1, len(domain.inside) // N_SERVED)
    examples, chosen = domain.inside[::step], wanted[::step]
    figures, found = await served_figures(
        workspace.gguf, examples, domain.intents, domain.slot_names,
        lambda n: tell("checking", n, len(examples)),
    )  # fmt: skip
    n_different = sum(one.intent != name for one, name in zip(found, chosen, strict=True))
    if n_different > max(1, MOST_DIFFERENT * len(examples)):
        raise ForgeFailed(
            f"{workspace.gguf} differs from what was trained in {n_different} of {len(examples)} answers: "
            "check the versions of gguf and llama-cpp-python, then run the command again."
        )
    return figures


def round_down(value: float) -> float:
    return int(value * 1e4) / 1e4


def write_about(
    domain: Domain, trunk: Base, workspace: Workspace, figures: DomainFigures, larger: str | None
) -> Entry:
    """Write figures, card and catalog entry; returns the entry, by which the model is installed."""
    write_text(workspace.model / "figures.json", json.dumps(asdict(figures), indent=1) + "\n")
    write_text(workspace.card, card(workspace.name, domain, figures))
    own = (workspace.intents, workspace.card, workspace.scope)
    files = [path for path in own if path.is_file()]
    value = {workspace.name: figures.threshold, ALL: figures.threshold}
    variant = Variant(
        quant=trunk.quant, file=workspace.gguf.name, size_bytes=workspace.gguf.stat().st_size,
        sha256=sha256_of(workspace.gguf), sources=(LocalPath(path=str(workspace.gguf)),),
        extra_files=tuple(path.name for path in files),
        extra_sha256={path.name: sha256_of(path) for path in files},
    )  # fmt: skip
    entry = Entry(
        id=workspace.name, name=workspace.name, family=trunk.family, n_params=trunk.n_params,
        task="assistant", licence="own", variants=(variant,), domains=(workspace.name,), n_ctx_min=128,
        notes=f"{figures.n_intents} intents of one's own.", larger=larger,
        tools=workspace.intents.name, thresholds=value,
    )  # fmt: skip
    write_text(workspace.model / "catalog.toml", to_toml(_tree(entry)))
    return entry


def _tree(entry: Entry) -> dict[str, Any]:
    body = msgspec.to_builtins(entry)
    del body["id"]
    plain = {key: value for key, value in body.items() if value not in (None, {}, [], "")}
    for variant in plain["variants"]:
        for key in [key for key, value in variant.items() if value in (None, {}, [], "")]:
            del variant[key]
    plain.pop("sampling", None)
    return {"models": {entry.id: plain}}

"""Scope gates that were made without a fifth of the texts, to ask them about just these."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from zlib import crc32

import msgspec

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.forge.datasets import load
from edgeagent.forge.scope_files import ENCODER, ScopeTexts, answers_of, vectors_of, with_gates
from edgeagent.routing.scope_gate import read_scope
from edgeagent.routing.training.scope_training import write_scope

N_FOLDS = 5


def fold_of(text: str) -> int:
    return crc32(text.encode()) % N_FOLDS


def held_out_gates(
    work: Path, data: Path, model_id: str, stack: ExitStack
) -> Callable[[int], Path]:
    """Makes a state directory with a gate of the model that has not seen a fold of the texts. `work` is that
    of `forge scope`; the examples are those of the bundled gate."""
    corpus = load(data)
    texts = ScopeTexts.of(corpus)
    path = next((shipped_models_dir() / model_id).glob("*.gguf"))
    sha256 = sha256_of(path)
    bundled = read_scope(shipped_models_dir() / "edge-assistant.scope")
    encoder = shipped_models_dir() / ENCODER / f"{ENCODER}.gguf"
    known = vectors_of(encoder, texts.all_texts, work / "vectors.npz")
    answers = {
        domain: [
            msgspec.structs.replace(one, vector=known.get(one.text))
            for one in answers_of(
                path, fitted, corpus, domain, work / f"{sha256[:16]}-{domain}.answers"
            )
        ]
        for domain, fitted in texts.fitted.items()
    }

    def made(fold: int) -> Path:
        seen = {
            domain: [one for one in found if fold_of(one.text) != fold]
            for domain, found in answers.items()
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_scope(with_gates(bundled, {sha256: seen}), folder / "scope" / f"{model_id}.scope")
        return folder

    return made

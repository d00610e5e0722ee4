"""Which answers of an assistant model a scope gate judges, and what happens where it cannot be used."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import compress

import msgspec
import numpy as np
import pytest

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.catalog.model_library import Library
from edgeagent.errors import InsufficientMemory
from edgeagent.forge.domain.features import encoder, vectors
from edgeagent.routing.scope_gate import DomainGates, Gate, ScopeFile, ScopeGate, read_scope
from edgeagent.routing.training.scope_training import write_scope
from edgeagent.serving.scope_judge import ScopeJudge
from edgeagent.settings import Settings
from edgeagent.types.intents import Candidate, Confidence, IntentQuestion, WholeCall
from edgeagent.types.unary_requests import Vectors
from tests.routing.scopes import MODEL, scope_file, strange

UNSURE = Confidence("light", 0.4, 0.2, None, False)


class Models:
    """An installed model and a part of it; the list of intents is in `folder`."""

    def __init__(self, folder: Path, sha256: str = MODEL) -> None:
        self.folder, self.sha256 = folder, sha256

    def find(self, model_id: str) -> Any:
        return SimpleNamespace(id=model_id, sha256=self.sha256)

    def beside_intents(self, model_id: str, suffix: str) -> Path:
        return self.folder / f"{model_id}{suffix}"

    def part(self, model_id: str) -> Any:
        return SimpleNamespace(id=model_id) if model_id == "vectors" else None


class Encoder:
    """An embedding model that answers when it may."""

    def __init__(self) -> None:
        self.may_answer, self.n_asked = asyncio.Event(), 0

    @asynccontextmanager
    async def lease(self, model_id: str) -> Any:
        yield self

    async def ask(self, spec: Any) -> Vectors:
        self.n_asked += 1
        await self.may_answer.wait()
        return Vectors(
            data=np.array([1, 0, 0, 0], "<f4").tobytes(),
            n_dimensions=4,
            n_prompt=3,
            queue_ms=0.0,
            total_ms=0.0,
        )


def question(text: str = "who does rome fall", **fields: Any) -> IntentQuestion:
    given: dict[str, Any] = {
        "candidates": [Candidate("light"), Candidate("door"), Candidate("music")], "out_of_scope": "oos",
        "threshold": 0.3, "may_abstain": True, "otherwise": "",
    }  # fmt: skip
    return IntentQuestion(text=text, **(given | fields))


def judge(tmp_path: Path, models: Models, engines: Any = None, **scope: Any) -> ScopeJudge:
    settings = Settings(state_dir=tmp_path / "state", routing={"scope": scope})
    return ScopeJudge(engines, models, settings)


def write_of(file: ScopeFile) -> bytes:
    return compress(msgspec.msgpack.encode(file))


def with_vectors() -> ScopeFile:
    """A gate that the vector alone decides, and whose words are always in doubt."""
    file = scope_file()
    words = Gate([0.0] * 7, [1.0] * 7, [0.0] * 7, 1.0, [0.001], [0.0])
    vectors = Gate([0.0] * 10, [1.0] * 10, [0.0] * 8 + [1.0, 0.0], 0.0, [0.001], [0.5])
    examples = {
        name: msgspec.structs.replace(one, centre=bytes(4), prototypes=[bytes(4)])
        for name, one in file.intents.items()
    }
    gates = DomainGates(words, vectors, (-9.0, 9.0))
    return msgspec.structs.replace(
        file, intents=examples, models={MODEL: {ALL: gates}}, encoder="vectors", middle=bytes(16)
    )


async def test_a_text_out_of_scope_is_found_where_the_gate_belongs_to_the_model(tmp_path: Path):
    models = Models(tmp_path)
    write_scope(scope_file(), tmp_path / "small.scope")
    found = await judge(tmp_path, models).score("small", question(strange(3, 1)[0]), UNSURE)
    assert found is not None and not found.is_inside
    mine = await judge(tmp_path, models).score(
        "small", question("turn the lamp of the hall now"), UNSURE
    )
    assert mine is not None and mine.is_inside
    other = judge(tmp_path, Models(tmp_path, sha256="b" * 64))
    assert not await other.covers("small", question()), "another version of the model"


@pytest.mark.parametrize(
    "fields",
    [
        {"may_abstain": False},
        {"candidates": [Candidate("light", call=WholeCall("a", "{}"))]},
        {"candidates": [Candidate("light", is_foil=True)]},
        {"domain": "banking"},
    ],
)
async def test_what_the_gate_was_not_made_for_is_not_judged(tmp_path: Path, fields):
    write_scope(scope_file(), tmp_path / "small.scope")
    one = judge(tmp_path, Models(tmp_path))
    assert await one.covers("small", question())
    assert not await one.covers("small", question(**fields))
    assert not await judge(tmp_path, Models(tmp_path), gate=False).covers("small", question())


async def test_a_damaged_file_is_said_once_and_a_good_one_is_used_at_once(tmp_path: Path, caplog):
    path = tmp_path / "small.scope"
    one = judge(tmp_path, Models(tmp_path))
    assert not await one.covers("small", question()), "no file"
    path.write_bytes(b"nonsense")
    for _ in range(3):
        assert not await one.covers("small", question())
    assert caplog.text.count("scope_gate_unusable") == 1
    write_scope(scope_file(), path)
    assert await one.covers("small", question())


async def test_a_calibrated_gate_in_the_state_directory_comes_first(tmp_path: Path):
    write_scope(scope_file(), tmp_path / "state" / "scope" / "small.scope")
    (tmp_path / "small.scope").write_bytes(b"nonsense")
    assert await judge(tmp_path, Models(tmp_path)).covers("small", question())


async def test_the_gate_of_the_model_judges_where_the_calibrated_one_cannot_be_used(
    tmp_path: Path, caplog
):
    own = tmp_path / "state" / "scope" / "small.scope"
    own.parent.mkdir(parents=True)
    write_scope(scope_file(), tmp_path / "small.scope")
    one = judge(tmp_path, Models(tmp_path))
    for damage in (b"nonsense", b"", write_of(scope_file("b" * 64))):
        own.write_bytes(damage)
        for _ in range(2):
            found = await one.score("small", question(strange(3, 1)[0]), UNSURE)
            assert found is not None and not found.is_inside
    assert caplog.text.count("scope_gate_unusable") == 3, "once for each file"


async def test_the_vector_decides_in_doubt_and_a_slow_one_is_not_waited_for(tmp_path: Path):
    write_scope(with_vectors(), tmp_path / "small.scope")
    encoder = Encoder()
    plain = judge(tmp_path, Models(tmp_path), encoder, vectors=False)
    found = await plain.score("small", question(), UNSURE)
    assert found is not None and found.is_inside and not encoder.n_asked
    slow = judge(tmp_path, Models(tmp_path), encoder, vector_timeout_s=0.01)
    found = await slow.score("small", question(), UNSURE)
    assert found is not None and found.is_inside and encoder.n_asked == 1
    encoder.may_answer.set()
    quick = judge(tmp_path, Models(tmp_path), encoder, vector_timeout_s=5)
    found = await quick.score("small", question(), UNSURE)
    assert found is not None and not found.is_inside and "vector centre" in found.signals
    await slow.close()
    await slow.close()


async def test_an_encoder_that_cannot_be_loaded_is_left_alone_for_a_while(tmp_path: Path, caplog):
    """In a full device every text would else try to load it."""

    class Full(Encoder):
        @asynccontextmanager
        async def lease(self, model_id: str) -> Any:
            self.n_asked += 1
            raise InsufficientMemory("no room")
            yield

    write_scope(with_vectors(), tmp_path / "small.scope")
    encoder = Full()
    one = judge(tmp_path, Models(tmp_path), encoder)
    for _ in range(3):
        found = await one.score("small", question(), UNSURE)
        assert found is not None and found.is_inside, "the words decide"
    assert encoder.n_asked == caplog.text.count("scope_without_vector") == 1


@pytest.mark.process
async def test_the_bundled_gate_knows_the_bundled_assistants_and_their_encoder():
    library = Library(Path("/nonexistent"))
    file = read_scope(library.shipped_dir / "edge-assistant.scope")
    shipped = {one.sha256 for one in library.installed() if one.id.startswith("edge-assistant-")}
    assert file.models.keys() == shipped
    (part,) = [one for one in library.parts() if one.id == file.encoder]
    gates = file.models[library.resolve("edge-assistant-s").sha256 or ""]
    assert gates.keys() == {ALL, "assistant", "service", "skills"}
    gate = ScopeGate(file, gates)
    asked = ["what is the balance of my savings", "which painter made the first oil painting"]
    async with encoder(part.path, n_threads=1) as client:
        found = await vectors(client, asked)
    scores = []
    for text, vector in zip(asked, found, strict=True):
        first = gate.score("assistant", text, "balance", 0.6, 0.4, 0.0075)
        assert first is not None
        scores.append(gate.with_vector("assistant", "balance", first, vector.tolist(), 0.0075))
    mine, strange_one = scores
    assert mine.is_inside and not strange_one.is_inside
    assert mine.signals["vector near"] > 0.5 > strange_one.signals["vector near"]
    assert mine.signals["vector outside"] > strange_one.signals["vector outside"]

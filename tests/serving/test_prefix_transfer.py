"""The state of tokens on its way between an engine and its file, and what is left where that fails."""

from __future__ import annotations

from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edgeagent.errors import StoreDamaged
from edgeagent.serving.prefix_transfer import RECORD_BYTES, PrefixTransfer
from edgeagent.settings.store import PrefixSettings, StoreSettings
from edgeagent.store import prefix_files, prefixes
from edgeagent.store.prefixes import PrefixChain
from edgeagent.store.warm_prefixes import WarmPrefix
from edgeagent.types.answer import Usage
from edgeagent.types.kv_state import Cells, LoadCellsSpec, ReadCellsSpec

CELL = RECORD_BYTES // 4  # four tokens a record


class FakeEngine:
    """The cells of ten tokens, of which the first `n_known` are still cached."""

    def __init__(self, n_known: int = 10) -> None:
        self.n_known = n_known
        self.placed: list[tuple[int, int]] = []
        self.config = SimpleNamespace(model_id="m")

    async def ask(self, question: Any) -> Cells:
        match question:
            case ReadCellsSpec(_, first, last):
                data = bytes(range(first, last)) if last <= self.n_known else b""
                return Cells(n=last, data=data)
            case LoadCellsSpec():
                last = len(question.tokens) // 4
                assert question.data == bytes(range(question.first, last))
                self.placed.append((question.first, last))
                return Cells(n=last)
        raise AssertionError(question)


@pytest.fixture
def transfer(tmp_path: Path) -> PrefixTransfer:
    settings = StoreSettings(prefixes=PrefixSettings(min_tokens=1), reserve_bytes=0)
    database: Any = SimpleNamespace(files=SimpleNamespace(prefixes=tmp_path))
    return PrefixTransfer(database, settings, lambda model_id: "digest")


def state() -> WarmPrefix:
    return WarmPrefix(
        id=prefixes.new_name(), owner="ann", scope="key", model="m", digest=b"d", fits="f",
        tokens=array("i", range(10)).tobytes(), key=prefixes.new_key(), n_bytes=0, prefill_tok_s=1.0,
        made_ms=0, used_ms=0,
    )  # fmt: skip


def files(transfer: PrefixTransfer) -> list[Any]:
    return list(transfer._folder.iterdir())


async def test_what_is_fetched_is_sent_from_where_the_engine_lacks_it(transfer: PrefixTransfer):
    made = state()
    n_bytes = await transfer.fetch(FakeEngine(), 1, made, 10, CELL)
    (file,) = files(transfer)
    assert n_bytes == file.stat().st_size
    whole = msgspec.structs.replace(made, n_bytes=n_bytes)
    chain = PrefixChain([whole], array("i", range(10)))
    engine = FakeEngine()
    assert await transfer.send(engine, "key", chain, 5) == (10, 6)
    assert engine.placed == [(4, 8), (8, 10)]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreDamaged):
        await transfer.send(engine, "key", chain, 0)


async def test_a_disk_that_fills_up_and_an_engine_that_forgets_leave_no_file(
    transfer: PrefixTransfer, monkeypatch: pytest.MonkeyPatch
):
    assert await transfer.fetch(FakeEngine(n_known=8), 1, state(), 10, CELL) is None
    assert files(transfer) == []
    append = prefix_files.append

    def full(folder, piece, number, *rest):
        if number == 2:
            raise OSError(28, "No space left on device")
        return append(folder, piece, number, *rest)

    monkeypatch.setattr(prefix_files, "append", full)
    with pytest.raises(OSError, match="No space"):
        await transfer.fetch(FakeEngine(), 1, state(), 10, CELL)
    assert files(transfer) == []


def test_reading_is_weighed_against_computing_by_what_was_measured(transfer: PrefixTransfer):
    assert transfer.prefill_tok_s("m") is None
    transfer.expect("m", 100.0)
    assert transfer.saving_s("m", 100, 0) == pytest.approx(1.0)
    usage = Usage(
        n_prompt=500, n_cached=0, n_generated=1, queue_ms=500, ttft_ms=1500, total_ms=1600
    )
    transfer.observe("m", usage)
    transfer.expect("m", 1.0)  # what an earlier start has measured counts less
    assert transfer.prefill_tok_s("m") == pytest.approx(500.0)
    assert transfer.saving_s("m", 500, 50e6) == pytest.approx(0.0)

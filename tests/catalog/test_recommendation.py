"""Selection: what fits is offered, what does not is refused with the numbers."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.catalog.catalog_file import load_catalog
from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.catalog.recommendation import Refusal, Requirements, TargetDevice, judge, select
from edgeagent.catalog.sizing.speed import Rates, error_of

ENTRIES = tuple(load_catalog(shipped_models_dir() / "catalog.toml").entries.values())
RATES = Rates(20e9, 100.0)
MB = 10**6

targets = st.builds(
    TargetDevice,
    budget_bytes=st.integers(50 * MB, 12_000 * MB),
    n_threads=st.integers(1, 16),
    rates=st.builds(Rates, st.floats(1e9, 1e11), st.floats(2.0, 2000.0)),
    n_ctx=st.sampled_from([512, 1024, 3000, 8192, 32_768]),
    n_seq=st.integers(1, 16),
    n_batch=st.sampled_from([32, 128, 512]),
    kv_types=st.sampled_from([("f16", "q8_0"), ("q8_0",), ("f16", "q8_0", "q4_0")]),
    latency_target_ms=st.floats(20, 2000),
    repacked=st.sampled_from([frozenset(), frozenset({"Q4_0", "Q4_K"}), frozenset({"Q8_0"})]),
    storage_free_bytes=st.none() | st.integers(0, 8_000 * MB),
)
needs = st.builds(
    Requirements,
    task=st.sampled_from(["chat", "assistant", "embedding", "rerank"]),
    domain=st.sampled_from([None, "general", "law"]),
    language=st.sampled_from([None, "en", "de", "fi"]),
    n_ctx_min=st.sampled_from([None, 512, 4096]),
)


@given(target=targets, wanted=needs)
def test_nothing_accepted_exceeds_the_budget_the_disk_or_the_models_own_context(
    target: TargetDevice, wanted: Requirements
) -> None:
    ranking = select(ENTRIES, target, wanted)
    shapes = {entry.id: entry.shape for entry in ENTRIES}
    for choice in ranking.choices:
        shape = shapes[choice.model_id]
        assert shape is not None
        assert choice.memory.total_bytes <= target.budget_bytes
        assert choice.n_ctx <= shape.n_ctx_train
        assert 1 <= choice.n_seq <= target.n_seq
        assert choice.decode_tokens_per_s > 0 < choice.prefill_tokens_per_s
        if target.storage_free_bytes is not None:
            assert choice.download_bytes <= target.storage_free_bytes
    assert len(ranking.choices) + len(ranking.refusals) == sum(len(e.variants) for e in ENTRIES)
    assert all(refusal.reason for refusal in ranking.refusals)


@given(target=targets, wanted=needs, more=st.integers(0, 4_000 * MB))
def test_more_memory_never_gives_a_lesser_best(
    target: TargetDevice, wanted: Requirements, more: int
) -> None:
    grown = TargetDevice(
        **{name: getattr(target, name) for name in TargetDevice.__slots__}
        | {"budget_bytes": target.budget_bytes + more}
    )
    before = select(ENTRIES, target, wanted)
    after = select(ENTRIES, grown, wanted)
    accepted = {(choice.model_id, choice.quant) for choice in after.choices}
    assert {(choice.model_id, choice.quant) for choice in before.choices} <= accepted
    if before.best is not None:
        assert after.best is not None
        assert _worth(after.best) >= _worth(before.best)


def _worth(choice: object) -> tuple[object, ...]:
    return tuple(getattr(choice, n) for n in ("is_fast_enough", "is_for_domain", "capability"))


@given(target=targets, wanted=needs, seed=st.randoms(use_true_random=False))
def test_the_order_of_the_catalog_does_not_matter(
    target: TargetDevice, wanted: Requirements, seed
) -> None:
    shuffled = list(ENTRIES)
    seed.shuffle(shuffled)
    assert select(shuffled, target, wanted) == select(ENTRIES, target, wanted)


def test_a_smaller_kv_type_comes_before_a_shorter_context_and_that_before_a_refusal() -> None:
    entry = next(e for e in ENTRIES if e.id == "smollm2-1.7b-instruct")

    def at(budget_mb: int) -> tuple[str, int, int] | None:
        target = TargetDevice(
            budget_mb * MB, 4, RATES, n_ctx=8192, n_seq=4, kv_types=("f16", "q8_0")
        )
        verdict = judge(entry, entry.variants[0], target, Requirements())
        if isinstance(verdict, Refusal):
            return None
        return verdict.kv_type, verdict.n_ctx, verdict.n_seq

    seen: list[object] = []
    for budget_mb in range(3200, 1000, -20):
        if not seen or seen[-1] != at(budget_mb):
            seen.append(at(budget_mb))
    assert seen == [
        ("f16", 8192, 4), ("q8_0", 8192, 4), ("f16", 4096, 2), ("q8_0", 4096, 2),
        ("f16", 2048, 1), ("q8_0", 2048, 1), None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "target", "wanted", "reason"),
    [
        (
            "qwen3-8b",
            {},
            Requirements(),
            r"needs \d+ MB = weights \d+ \+ KV .* the budget is 900 MB: \d+",
        ),
        ("whisper-tiny", {}, Requirements(), "its task is speech, but chat is required"),
        (
            "smollm2-135m-instruct",
            {},
            Requirements(language="de"),
            "it speaks en, but de is required",
        ),
        (
            "tinyllama-1.1b-chat",
            {},
            Requirements(n_ctx_min=4096),
            "trained for 2048 tokens .* 4096 are",
        ),
        ("granite-4.0-h-1b", {}, Requirements(), "the catalog states no shape"),
        (
            "smollm2-135m-instruct",
            {"storage_free_bytes": MB},
            Requirements(),
            "98 MB, but 1 MB are free",
        ),
    ],
)
def test_a_refusal_says_why_with_the_numbers(
    model: str, target: dict[str, int], wanted: Requirements, reason: str
) -> None:
    entry = next(e for e in ENTRIES if e.id == model)
    verdict = judge(entry, entry.variants[0], TargetDevice(900 * MB, 4, RATES, **target), wanted)
    assert isinstance(verdict, Refusal)
    assert re.search(reason, verdict.reason), verdict.reason


def test_a_model_made_for_the_domain_goes_before_a_larger_general_one() -> None:
    special = msgspec.structs.replace(
        next(e for e in ENTRIES if e.id == "smollm2-135m-instruct"), domains=("law",)
    )
    ranking = select(
        [*ENTRIES, special], TargetDevice(4000 * MB, 4, RATES), Requirements(domain="law")
    )
    assert ranking.best is not None
    assert ranking.best.model_id == "smollm2-135m-instruct"


def test_what_is_too_slow_is_offered_last_and_says_so() -> None:
    slow = TargetDevice(8000 * MB, 4, Rates(3e9, 20.0))
    ranking = select(ENTRIES, slow, Requirements())
    fast = [choice.is_fast_enough for choice in ranking.choices]
    assert fast == sorted(fast, reverse=True)
    assert False in fast
    assert "too slow" in ranking.choices[-1].reason


def test_the_error_of_a_prediction_is_relative_to_what_was_measured() -> None:
    assert error_of(110, 100) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="measure first"):
        error_of(1, 0)

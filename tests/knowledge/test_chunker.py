"""Chunks follow the structure of a document and stay within their size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeagent.knowledge.chunker import cut
from edgeagent.knowledge.document import Block, ChunkSizes, n_tokens
from edgeagent.knowledge.sentences import sentence_spans, sentences


def texts(blocks: list[Block], max_tokens: int, overlap: int = 0) -> list[str]:
    sizes = ChunkSizes(max_tokens=max_tokens, overlap_tokens=overlap)
    return [chunk.text for chunk in cut(blocks, sizes, 1000)]


def test_paragraphs_of_a_section_share_chunks_and_sections_do_not() -> None:
    blocks = [
        Block(text="One two.", headings=("A",)), Block(text="Three.", headings=("A",)),
        Block(text="Four.", headings=("A", "B")),
    ]  # fmt: skip
    assert texts(blocks, 100) == ["One two.\n\nThree.", "Four."]


def test_a_large_paragraph_is_cut_between_sentences_and_repeats_the_last_one() -> None:
    block = Block(text="Aaaa aaaa aaaa. Bbbb bbbb bbbb. Cccc cccc cccc. Dddd dddd dddd.")
    assert texts([block], 9) == [
        "Aaaa aaaa aaaa. Bbbb bbbb bbbb.", "Cccc cccc cccc. Dddd dddd dddd.",
    ]  # fmt: skip
    assert texts([block], 9, 4) == [
        "Aaaa aaaa aaaa. Bbbb bbbb bbbb.", "Bbbb bbbb bbbb. Cccc cccc cccc.",
        "Cccc cccc cccc. Dddd dddd dddd.",
    ]  # fmt: skip


def test_a_question_is_a_chunk_of_its_own() -> None:
    blocks = [Block(text="When?", answer="At nine."), Block(text="How?", answer="By ferry.")]
    found = cut(blocks, ChunkSizes(), 10)
    assert [(chunk.text, chunk.answer) for chunk in found] == [
        ("When?", "At nine."), ("How?", "By ferry."),
    ]  # fmt: skip


@given(
    st.lists(st.text(st.sampled_from("aBé漢😀 .!\n"), max_size=300), max_size=6),
    st.integers(4, 60), st.integers(0, 30),
)  # fmt: skip
def test_no_chunk_is_too_large_and_no_letter_is_lost(
    given_texts: list[str], max_tokens: int, overlap: int
) -> None:
    blocks = [Block(text=text) for text in given_texts]
    found = texts(blocks, max_tokens, min(overlap, max_tokens // 2))
    assert all(0 < n_tokens(text) <= max_tokens for text in found)
    wanted = sum(text.count(c) for text in given_texts for c in "aBé漢😀")
    assert sum(text.count(c) for text in found for c in "aBé漢😀") >= wanted
    if overlap == 0:
        assert sum(text.count(c) for text in found for c in "aBé漢😀") == wanted


def test_sentences_end_where_readers_think_so() -> None:
    text = (
        'Dr. Ito left at 9.30 a.m. for St. Kilda. "Why?" he asked, e.g. twice.\n1. First step\n'
        "船は九時です。次は十時。"
    )
    assert sentences(text) == [
        "Dr. Ito left at 9.30 a.m. for St. Kilda.",
        '"Why?" he asked, e.g. twice.',
        "1. First step",
        "船は九時です。",
        "次は十時。",
    ]
    assert all(
        text[span.start : span.end].strip() == text[span.start : span.end]
        for span in sentence_spans(text)
    )

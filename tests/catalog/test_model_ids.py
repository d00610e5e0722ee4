"""Model ids: what may become a folder name, and what never does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeagent.catalog.model_ids import check_id, folder_name, id_of_file, is_id, nearest
from edgeagent.errors import ModelNotFound

IDS = st.from_regex(r"[ab][ab._-]{0,4}(/[ab][ab._-]{0,4})?", fullmatch=True).filter(is_id)
ID_LIKE = st.text(st.sampled_from("ab0._-/A\\ \0"), max_size=12)


@pytest.mark.parametrize("model_id", ["qwen3-0.6b", "owner/model", "a", "a.b_c-d", "0"])
def test_an_ordinary_id_is_accepted(model_id: str) -> None:
    assert check_id(model_id) == model_id


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "../a", "a/..", "a/../b", "/a", "a/", "a/b/c", ".hidden", "a..b", "a__b", "A",
     "a b", "a\n", "a\0", "-a", "a/.b", "é", "a" * 97, "a\\b", "a:b", "~", "a%2fb"],
)  # fmt: skip
def test_anything_else_is_no_such_model(text: str) -> None:
    with pytest.raises(ModelNotFound, match="is not a model id"):
        check_id(text)


@given(st.one_of(st.text(), ID_LIKE))
@example("a/b")
def test_a_folder_is_always_one_step_below_the_models_directory(text: str) -> None:
    if not is_id(text):
        return
    root = Path("/models")
    folder = root / folder_name(text)
    assert folder.parent == root
    assert folder.resolve().parent == root.resolve()
    assert not folder.name.startswith(".")


@given(IDS, IDS)
def test_two_ids_never_share_a_folder(one: str, other: str) -> None:
    assert (folder_name(one) == folder_name(other)) == (one == other)


@given(st.one_of(st.text(), ID_LIKE.map(lambda text: text + ".gguf")))
def test_a_file_name_gives_an_id_or_nothing(file_name: str) -> None:
    model_id = id_of_file(file_name)
    assert model_id is None or is_id(model_id)


def test_a_dropped_file_is_named_after_itself() -> None:
    assert id_of_file("My Model.Q4_K_M.gguf") == "my-model.q4_k_m"


def test_the_nearest_name_is_found_and_a_far_one_is_not() -> None:
    known = ["smollm2-135m-instruct", "lfm2-350m", "qwen3-4b"]
    assert nearest("smolm2-135m", known) == "smollm2-135m-instruct"
    assert nearest("qwen3-4b-instruct", known) == "qwen3-4b"
    assert nearest("smollm2", ["smollm3-3b", "smollm2-1.7b-instruct"]) == "smollm2-1.7b-instruct"
    assert nearest("zzzz", known) is None
    assert nearest("anything", []) is None

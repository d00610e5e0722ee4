"""Suites of tasks: how they are read, asked through the API, scored, and what requests cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.optimize.efficiency import Prices, cost_per_1000, parts_of, read_weights, scored
from edgeagent.optimize.figures import ModelFigures, RunFigures, Spread, SuiteFigures
from edgeagent.optimize.suites import (
    CallTask,
    ChoiceTask,
    ExactTask,
    SchemaTask,
    SummaryTask,
    read_suite,
    request_body,
)
from edgeagent.optimize.task_scores import rouge_l, rouge_n, score, words
from edgeagent.optimize.tensor_bits import TensorBits
from tests.commands import run_here

TALES = Path(__file__).resolve().parents[2] / "tests/data/tales260K.gguf"
AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
CHOICE = ChoiceTask(prompt="?", choices=["a", "b"], answer="a")
CALL = CallTask(prompt="?", tools=[], expected={"name": "f", "arguments": {"x": 1}})


def calling(arguments):
    return {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("task", "message", "expected"),
    [
        (CHOICE, {"content": '{"answer": "a"}'}, 1),
        (CHOICE, {"content": '{"answer": "b"}'}, 0),
        (CHOICE, {"content": None}, 0),
        (ExactTask(prompt="?", answers=["Paris", "city of light"]), {"content": " paris."}, 1),
        (ExactTask(prompt="?", answers=["Paris"]), {"content": "Paris, France"}, 0),
        (SchemaTask(prompt="?", schema=AGE), {"content": '{"age": 3}'}, 1),
        (SchemaTask(prompt="?", schema=AGE), {"content": '{"age": "3"}'}, 0),
        (SchemaTask(prompt="?", schema=AGE, expected={"age": 4}), {"content": '{"age": 3}'}, 0),
        (SummaryTask(prompt="?", reference="the cat sat"), {"content": "The cat"}, 0.8),
        (CALL, calling('{"x": 1}'), 1),
        (CALL, calling('{"x": 2}'), 0),
        (CALL, calling("{"), 0),
        (CALL, {"content": "no"}, 0),
    ],
)
def test_an_answer_is_scored_by_the_kind_of_its_task(task, message, expected):
    assert score(task, message) == pytest.approx(expected)


def test_rouge_counts_common_words_pairs_and_the_longest_common_subsequence():
    ours, theirs = words("police killed the gunman"), words("the gunman killed police")
    assert rouge_n(ours, theirs, 1) == 1
    assert rouge_n(ours, theirs, 2) == pytest.approx(1 / 3)
    assert rouge_l(ours, theirs) == pytest.approx(0.5)
    assert rouge_l([], theirs) == 0 == rouge_n(ours, [], 2)


def test_choices_and_schemas_hold_the_answer():
    choice = request_body(CHOICE, "m")["response_format"]["json_schema"]["schema"]
    assert choice["properties"]["answer"] == {"enum": ["a", "b"]}
    body = request_body(ExactTask(prompt="?", system="s", answers=["x"]), "m")
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["temperature"] == 0 and "response_format" not in body
    assert request_body(CALL, "m")["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"kind": "exact", "prompt": "?", "answers": ["x"]}\n{"kind": "essay"}', "Line 2 of"),
        ('{"kind": "exact", "prompt": "?"}', "missing required field `answers`"),
        ('{"kind": "exact", "prompt": "?", "answers": []}', "has no answers"),
        ('{"kind": "choice", "prompt": "?", "choices": ["a"], "answer": "b"}', "none of its choices"),
        ("[1", "is not a task"),
        ("", "is empty"),
    ],
)  # fmt: skip
def test_a_suite_that_is_wrong_names_its_line(tmp_path, text, reason):
    path = tmp_path / "tasks.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidParameter, match=reason):
        read_suite(path)


@pytest.mark.process
def test_tasks_are_asked_through_the_api_of_a_daemon(tmp_path):
    tasks = [
        {"kind": "choice", "prompt": "Once", "choices": ["one"], "answer": "one", "max_tokens": 20},
        {"kind": "exact", "prompt": "Once", "answers": ["no such answer"], "max_tokens": 2},
    ]
    suite = tmp_path / "tasks.jsonl"
    suite.write_text("\n".join(map(json.dumps, tasks)))
    done = run_here(
        "evaluate", TALES, "--suite", suite, "--runs", 0, "--threads", 1, "--json",
        tmp_path / "out.json", "--csv", tmp_path / "out.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out.json").read_text())["models"][0]["suites"]
    assert (found["suite"], found["n_tasks"], found["accuracy"]) == ("tasks", 2, 0.5)
    assert found["latency_ms"]["low"] > 0 and "50.0%" in done.stdout
    assert "tasks_accuracy" in (tmp_path / "out.csv").read_text()


def model(name, decode, rss, *, energy=None, accuracy=None):
    run = RunFigures(10, rss, 100, decode, 5, decode, request_s=3.6, energy_j=energy)
    figures = ModelFigures(name, Path(name), 1, 1, TensorBits({}, {}), (run,))
    if accuracy is not None:
        spread = Spread(1, 1, 1)
        figures = replace(figures, suites=(SuiteFigures("s", 1, 1, accuracy, 0, spread),))
    return figures


@pytest.mark.parametrize(
    ("prices", "energy", "expected"),
    [
        (Prices(), 100.0, None),
        (Prices(per_device_hour=0.5), None, 0.5),
        (Prices(per_kwh=0.36), 100.0, 0.01),
        (Prices(per_kwh=0.36), None, None),
        (Prices(per_kwh=0.36, per_device_hour=0.5), 100.0, 0.51),
    ],
)
def test_requests_cost_what_was_measured_or_nothing_is_said(prices, energy, expected):
    found = cost_per_1000(model("a", 10, 1, energy=energy), prices)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_score_weighs_what_all_models_have_and_names_it():
    models = [model("a", 20, 100, accuracy=0.8), model("b", 40, 200, accuracy=0.4, energy=3)]
    found, parts = scored(models, Prices(), read_weights("quality=1, ttft=0"))
    assert [(p.name, p.metric) for p in parts] == [
        ("quality", "accuracy"), ("decode", "decode_tok_s"), ("memory", "rss_bytes"),
    ]  # fmt: skip
    assert sum(p.weight for p in parts) == pytest.approx(1)
    assert found[0].efficiency == pytest.approx((1 + 0.2 * 0.5 + 0.2) / 1.4)
    assert found[1].efficiency == pytest.approx((0.5 + 0.2 + 0.2 * 0.5) / 1.4)
    assert [p.name for p in parts_of([models[1]], {})] == [
        "quality", "decode", "ttft", "memory", "energy",
    ]  # fmt: skip
    assert scored(models[:1], Prices(), {})[0][0].efficiency is None


@pytest.mark.parametrize("text", ["speed=1", "quality", "quality=-1", "quality=inf", "quality=x"])
def test_weights_that_make_no_sense_are_refused(text):
    with pytest.raises(InvalidParameter, match="write NAME=NUMBER"):
        read_weights(text)

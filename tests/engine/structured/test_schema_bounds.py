"""What a schema may hold: tables, and every schema of the corpus through a real worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgeagent.engine.client import EngineClient
from edgeagent.engine.structured.schema_bounds import checked, repeats
from edgeagent.engine.structured.schema_rewrite import is_exclusive, narrowed
from edgeagent.errors import BadRequest, InvalidParameter, UnsupportedParameter
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from tests.conftest import EXAMPLES, N_THREADS, SHARED
from tests.engine.schema_corpus import UNSUPPORTED, bad, bfcl, good

N_AT_ONCE = 24
OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize("keyword", sorted(UNSUPPORTED))
def test_a_keyword_that_cannot_be_enforced_is_named_with_its_path(keyword):
    schema = {"type": "object", "properties": {"a/b": {"items": {keyword: UNSUPPORTED[keyword]}}}}
    with pytest.raises(UnsupportedParameter) as caught:
        checked(json.dumps(schema))
    assert f"`{keyword}` at #/properties/a~1b/items" in caught.value.message
    assert caught.value.param == "response_format"


def test_what_only_looks_like_a_keyword_is_none():
    schema = {
        "type": "object",
        "properties": {"not": {"type": "string"}, "if": {"const": {"not": 1}}},
        "default": {"contains": 1},
        "enum": [{"uniqueItems": True}],
    }
    assert checked(json.dumps(schema)).schema == schema


@pytest.mark.parametrize(
    "keywords",
    [
        {"type": "integer", "minimum": 10**400},
        {"type": "integer", "multipleOf": 10**400},
        {"type": "number", "exclusiveMaximum": -(10**400)},
        {"type": "string", "minLength": 10**400},
        {"type": "array", "items": {"type": "string"}, "minItems": 10**400},
    ],
)
def test_a_number_that_no_float_can_hold_is_no_crash(keywords):
    assert checked(json.dumps(keywords)).schema == keywords


@pytest.mark.parametrize(
    ("pattern", "n"),
    [
        ("^abc$", 1),
        ("a{5}", 5),
        ("a{2,7}", 7),
        ("a{3,}", 3),
        ("(a{10}){20}", 200),
        ("((a{3}b){4}c{50}){2}", 100),
        ("[{9}]{4}", 4),
        (r"\{9}\({3}", 3),
        ("(a{99}){99}){99}", 99 * 99),
        ("a{99999999999999}", 999_999_999),
    ],
)
def test_repetitions_that_nest_are_multiplied(pattern, n):
    assert repeats(pattern) == n


def test_objects_are_closed_only_where_nothing_else_asks_for_more():
    def is_closed(schema: dict[str, Any]) -> bool:
        return checked(json.dumps(schema)).narrowed.get("additionalProperties") is False

    assert is_closed(OBJECT)
    assert not is_closed(OBJECT | {"required": ["b"]})
    assert not is_closed(OBJECT | {"required": [["a"]]}), "malformed, and the meta-schema's to say"
    assert not is_closed(OBJECT | {"allOf": [{"required": ["b"]}, {}]})
    assert not is_closed(OBJECT | {"anyOf": [{"properties": {"b": {}}}]})
    assert not is_closed(OBJECT | {"patternProperties": {"^b": {}}})
    assert not is_closed({"type": "object"})
    assert checked(json.dumps(OBJECT | {"additionalProperties": True})).narrowed == OBJECT | {
        "additionalProperties": True
    }


def test_choices_are_told_apart_by_types_and_constants():
    cat = {"type": "object", "properties": {"k": {"const": "cat"}}, "required": ["k"]}
    dog = {"type": "object", "properties": {"k": {"enum": ["dog", "wolf"]}}, "required": ["k"]}
    root = {"$defs": {"cat": cat, "again": {"$ref": "#/$defs/cat"}}}
    reference = {"$ref": "#/$defs/again"}
    assert is_exclusive([cat, dog, {"type": "string"}, {"type": ["array", "null"]}], root)
    assert is_exclusive([reference, dog], root)
    assert not is_exclusive([reference, cat], root)
    assert not is_exclusive([{"type": "integer"}, {"type": "number"}], root)
    assert not is_exclusive([cat | {"required": []}, dog], root)
    assert not is_exclusive([cat, {}], root)
    loop = {"$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert not is_exclusive([{"$ref": "#/$defs/a"}, cat], loop)
    assert "oneOf" not in narrowed({"oneOf": [cat, dog]}, is_closed=True)


@pytest.mark.parametrize(
    "text", ["[]", "5", '"a"', "null", "[" * 70 + "]" * 70, '{"a":' * 70 + "1" + "}" * 70]
)
def test_what_is_no_object_or_too_deep_is_refused(text):
    with pytest.raises(InvalidParameter):
        checked(text)


@pytest.fixture(scope="module")
async def engine(stories: Path) -> AsyncIterator[EngineClient]:
    config = EngineConfig(
        model_id="stories", path=str(stories), n_ctx=4096, n_seq=N_AT_ONCE, n_threads=N_THREADS
    )
    client = await EngineClient.start(config, timeout_s=60)
    yield client
    await client.close()


async def answer(
    engine: EngineClient, schema: dict[str, Any], temperature: float, max_tokens: int = 150
) -> tuple[str, str]:
    """Finish reason and text."""
    generation = engine.generate(
        GenerateSpec(
            prompts=[Prompt(text="Once upon a time")],
            max_tokens=max_tokens,
            sampling=Sampling(temperature=temperature, seed=7),
            form=Form(kind="json_schema", text=json.dumps(schema), is_strict=True),
        )
    )
    text, finish = "", ""
    async for chunk in generation:
        text += chunk.text
        finish = chunk.finish or finish
        assert chunk.error is None, chunk.error
    return finish, text


async def outcomes(engine: EngineClient, schemas: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Of each schema, the most probable answer and a sampled one in turn, `N_AT_ONCE` at a time.

    A step of many sequences costs little more than a step of one.
    """
    places = asyncio.Semaphore(N_AT_ONCE)

    async def one(number: int, schema: dict[str, Any]) -> tuple[str, str]:
        async with places:
            return await answer(engine, schema, temperature=number % 2)

    answers = await asyncio.gather(*(one(*pair) for pair in enumerate(schemas.values())))
    return dict(zip(schemas, answers, strict=True))


async def test_every_finished_answer_satisfies_its_schema(engine):
    schemas = good()
    assert len(schemas) >= 150
    if EXAMPLES < 1:  # half of them are as hard on the worker as ten other modules
        schemas = dict(list(schemas.items())[::2])
    found = await outcomes(engine, schemas)
    n_stopped = 0
    for name, (finish, text) in found.items():
        assert finish in ("stop", "length"), name
        if finish == "stop":
            n_stopped += 1
            jsonschema.validate(json.loads(text), schemas[name])
    assert n_stopped > 0.9 * len(schemas)


async def test_functions_of_the_leaderboard_get_arguments_that_satisfy_them(engine):
    folder = SHARED / "data" / "bfcl"
    if not folder.is_dir():
        pytest.skip("the BFCL files are not beside this checkout")
    schemas = dict(list(bfcl(folder).items())[::24])
    found = await outcomes(engine, schemas)
    for name, (finish, text) in found.items():
        if finish == "stop":
            jsonschema.validate(json.loads(text), schemas[name])
    assert sum(finish == "stop" for finish, _ in found.values()) > len(schemas) // 4


async def test_bad_schemas_are_refused_by_name_and_hurt_nobody(engine):
    schemas = bad()
    assert len(schemas) >= 300
    for name, schema in schemas.items():
        with pytest.raises(BadRequest) as caught:
            await answer(engine, schema, 0, max_tokens=4)
        assert caught.value.code in (
            "invalid_parameter",
            "unsupported_parameter",
            "schema_unsatisfiable",
        ), name
        assert caught.value.param == "response_format"
    assert engine.is_alive
    finish, text = await answer(engine, {"const": "still here"}, 0)
    assert (finish, text) == ("stop", '"still here"')


async def test_a_schema_that_compiles_for_ever_costs_its_own_request_only(engine):
    bomb = {"allOf": [{"type": "string", "pattern": f".*b{{{i}}}c.*"} for i in range(1, 20)]}
    known = {"const": "still here"}
    await answer(engine, known, 0)
    began_s = time.monotonic()
    slow = asyncio.ensure_future(answer(engine, bomb, 0))
    async for chunk in engine.generate(GenerateSpec(prompts=[Prompt(text="Once")], max_tokens=4)):
        assert chunk.error is None
    assert (await answer(engine, known, 0))[0] == "stop"
    # The bomb takes its 2 s; a machine that needs them for two short answers shows nothing here.
    assert not slow.done() or time.monotonic() - began_s > 2, "nobody waited for the bomb"
    with pytest.raises(InvalidParameter, match="takes more than 2 s"):
        await slow
    async with asyncio.timeout(30):
        for _ in range(20):  # remembered: compiling it each time would take 40 s
            with pytest.raises(InvalidParameter):
                await answer(engine, bomb, 0)

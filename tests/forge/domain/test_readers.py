"""Examples of a domain from every format, and what is said of wrong files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.domain.checks import check
from edgeagent.forge.domain.example import MAX_TEXT, Domain
from edgeagent.forge.domain.readers import text_lines
from edgeagent.forge.domain.readers.source import read_domain
from edgeagent.forge.domain.workspace import to_lines
from edgeagent.types.spreadsheet_cell import as_text_cell

RASA = """\
version: "3.1"
nlu:
- intent: book_table
  examples: |
    - book a table for [two](party_size)
    - a table in [Rome]{"entity": "city", "role": "place"} please
- intent: chitchat/greet
  examples:
  - text: hello there
- synonym: Rome
  examples: |
    - roma
responses:
  utter_book_table:
  - text: Your table is booked.
"""
HOME = """\
language: en
intents:
  TurnOn:
    data:
      - sentences:
          - "<turn> on [the] {name:device}[ now]"
          - "(lights|lamps);please"
  SetLevel:
    data:
      - sentences: ["dim to {level}%"]
lists:
  name:
    values: [kitchen lamp, {in: "fan[s]", out: fan}]
  level:
    range: {from: 1, to: 3}
expansion_rules:
  turn: "(turn|switch)"
"""


def read(path: Path, name: str, text: str | bytes, **others: str) -> Domain:
    target = path / name
    target.write_bytes(text if isinstance(text, bytes) else text.encode())
    for other, body in others.items():
        (path / f"{other}.yaml").write_text(body)
    return read_domain(path if others else target, seed=1)


def found(domain: Domain) -> list[tuple[str, str, dict[str, str]]]:
    return [(e.intent, e.text, {s.name: s.value for s in e.slots}) for e in domain.examples]


def test_csv_has_a_header_slots_and_answers(tmp_path: Path):
    text = 'Utterance;Label;answer\nbook for [two](n) now;Book a table;Done.\n"a ""b""\nc";oos;\n\n'
    domain = read(tmp_path, "a.csv", "\ufeff" + text)
    assert found(domain) == [
        ("Book_a_table", "book for two now", {"n": "two"}), (OUT_OF_SCOPE, 'a "b"\nc', {}),
    ]  # fmt: skip
    assert domain.answers == {"Book_a_table": "Done."}
    assert [e.place.line for e in domain.examples] == [2, 3]


def test_json_lines_have_slots_answers_and_schemas(tmp_path: Path):
    lines = """\
{"text": "wake me at Seven", "intent": "alarm", "slots": {"time": "seven"}}
{"intent": "alarm", "answer": "Set.", "description": "Set an alarm", "parameters": {"type": "object"}}
{"intent": "stop", "examples": ["stop it", "[enough](what)"]}
"""
    domain = read(tmp_path, "a.jsonl", lines)
    assert found(domain) == [
        ("alarm", "wake me at Seven", {"time": "Seven"}),
        ("stop", "stop it", {}), ("stop", "enough", {"what": "enough"}),
    ]  # fmt: skip
    assert domain.answers == {"alarm": "Set."}
    assert domain.tools["alarm"]["description"] == "Set an alarm"
    again = tmp_path / "again.jsonl"
    again.write_text(to_lines(domain))
    same = read_domain(again, seed=1)
    assert (found(same), same.answers, same.tools) == (found(domain), domain.answers, domain.tools)


def test_rasa_files_have_entities_and_responses(tmp_path: Path):
    domain = read(tmp_path, "nlu.yml", RASA)
    assert found(domain) == [
        ("book_table", "book a table for two", {"party_size": "two"}),
        ("book_table", "a table in Rome please", {"city": "Rome"}),
        ("chitchat_greet", "hello there", {}),
    ]  # fmt: skip
    assert [e.place.line for e in domain.examples] == [5, 6, 9]
    assert domain.answers == {"book_table": "Your table is booked."}


def test_templates_of_home_assistant_are_expanded(tmp_path: Path):
    domain = read(tmp_path, "en.yaml", HOME)
    texts = {text for _, text, _ in found(domain)}
    assert {"turn on the kitchen lamp", "switch on fans now", "dim to 3%"} <= texts
    assert texts & {"please lights", "lights please"}
    assert ("TurnOn", "turn on kitchen lamp", {"device": "kitchen lamp"}) in found(domain)
    assert ("SetLevel", "dim to 2%", {"level": "2"}) in found(domain)
    assert found(domain) == found(read_domain(tmp_path / "en.yaml", seed=1))


def test_sentence_files_may_have_intents_without_sentences(tmp_path: Path):
    intents = "intents: {A: {data: [{sentences: []}]}, B: {data: [{sentences: ['', ' ', hello]}]}}"
    assert found(read(tmp_path, "en.yaml", intents)) == [("B", "hello", {})]


def test_other_yaml_in_a_directory_is_not_read(tmp_path: Path):
    others = {"configuration": "a: !include b.yaml\n", "compose": "x: &a 1\ny: *a\n", "odd": "[\t"}
    domain = read(tmp_path, "nlu.yml", RASA, **others)
    assert len(domain.examples) == 3
    (tmp_path / "odd.yaml").write_text('"intents": [\n')
    with pytest.raises(ForgeFailed, match=r"odd\.yaml:2: not YAML"):
        read_domain(tmp_path, seed=1)


def test_a_directory_is_read_whole(tmp_path: Path):
    (tmp_path / "greet.txt").write_text("hello\n# a remark\n\ngood day\n")
    domain = read(tmp_path, "a.csv", "text,intent\nbye,leave\n", lists="lists: {name: [x]}\n")
    assert [(i, t) for i, t, _ in found(domain)] == [
        ("leave", "bye"), ("greet", "hello"), ("greet", "good day"),
    ]  # fmt: skip


TABLE = "text,intent\nein Café bitte,bestellen\ntschüs,gehen\n"
READ = [("bestellen", "ein Café bitte", {}), ("gehen", "tschüs", {})]


@pytest.mark.parametrize(
    ("name", "raw", "noted"),
    [
        ("a.csv", TABLE.encode("utf-8-sig"), ""),
        ("a.csv", TABLE.replace("\n", "\r\n").encode(), ""),
        ("a.csv", TABLE.replace("\n", "\r").encode(), ""),
        ("a.csv", TABLE.encode("utf-16"), ""),
        ("a.csv", TABLE.encode("cp1252"), "a.csv:2: byte 0xe9 is not UTF-8: the file is read as"),
        ("a.csv", ("sep=;\r\n" + TABLE.replace(",", ";").replace("\n", "\r\n")).encode(), ""),
        ("a.tsv", TABLE.replace(",", "\t").encode(), ""),
        ("a.csv", TABLE.replace(",", "|").encode(), ""),
        ("a.csv", TABLE.replace("text,intent", "Training Phrases,Intent Name").encode(), ""),
        ("a.csv", TABLE.replace("text,intent", "MESSAGE,Department").encode(), "'Department' is taken"),
        ("a.csv", TABLE.replace("text,intent", "said,label").encode(), "'said' is taken for the text"),
        ("a.csv", TABLE.replace("text,intent", '"text","category"').encode(), ""),
        ("a.csv", TABLE.replace(",", ', "').replace("\n", '"\n').encode(), ""),
        ("a.csv", TABLE.replace(",", ";").replace("intent", "intent;a,b,c,d", 1).encode(), ""),
    ],
)  # fmt: skip
def test_tables_as_programs_write_them_are_read(tmp_path: Path, name: str, raw: bytes, noted: str):
    domain = read(tmp_path, name, raw)
    assert found(domain) == READ
    assert noted in str([str(finding) for finding in check(domain)])
    assert len(domain.notes) == bool(noted)


def test_of_many_columns_the_named_label_counts(tmp_path: Path):
    domain = read(tmp_path, "a.csv", "id,label,label_text,utterance\n1,7,greet,hello\n")
    assert found(domain) == [("greet", "hello", {})]


def test_what_a_data_set_has_beside_is_left_out_with_a_note(tmp_path: Path):
    rows = (
        f"\n,leave,Bye!\n{'x' * 600},greet\n,greet\nhi,reverted_card_payment?\nhey,Grüße an alle\n"
    )
    domain = read(tmp_path, "a.csv", f"text,intent,answer{rows}")
    assert found(domain) == [
        ("greet", "x" * MAX_TEXT, {}), ("reverted_card_payment", "hi", {}), ("Gruesse_an_alle", "hey", {}),
    ]  # fmt: skip
    assert domain.answers == {"leave": "Bye!"}
    assert [note.place.line for note in domain.notes] == [3, 4, 5, 6]
    lines = (
        '{"utterance": "hi", "label": 3, "id": 1}\n{"query": "[x](a)", "category": "b", "id": 2}\n'
    )
    domain = read(tmp_path, "a.ndjson", lines)
    assert found(domain) == [("3", "hi", {}), ("b", "x", {"a": "x"})]
    assert [note.text for note in domain.notes] == ["the field 'id' is not read."]


def test_lookup_tables_patterns_and_remarks_of_rasa_are_no_examples(tmp_path: Path):
    text = """\
# our assistant
version: "3.1"
nlu:
- lookup: city
  examples: |
    - Rome
- regex: number
  examples: |
    - \\d+
- intent: travel  # by ferry
  examples: |
    # the usual ones
    - to [Rome](city)

    -to [Oslo]{"entity": "city", "value": "oslo"}
rules: []
"""
    domain = read(tmp_path, "nlu.yml", text)
    assert [(t, s) for _, t, s in found(domain)] == [
        ("to Rome", {"city": "Rome"}), ("to Oslo", {"city": "Oslo"}),
    ]  # fmt: skip


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nnlu: [*b, *b]\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "text,intent\n", "has no examples"),
        ("a.csv", "id,text,what\n1,x,y\n", "needs 'text' and 'intent'"),
        ("a.csv", "hello,greet\nbye,leave\n", "needs 'text' and 'intent'"),
        ("a.csv", "text,intent\nhello\n", ":2: the row has 1 columns"),
        ("a.csv", "text,intent\n,greet\n", "has no examples"),
        ("a.csv", 'text,intent\nhello,"greet\n', "not CSV"),
        ("a.csv", b"text,intent\nhello,greet\ncaf\xe9 \x81,order\n", ":3: byte 0xe9 is not UTF-8"),
        ("a.csv", b"\xff\xfet\x00e\x00x", "is not UTF-16"),
        ("a.csv", b"text,intent\n\x00\xff\x13\x07,a\n", ":2: byte 0xff is not UTF-8"),
        ("a.csv", "text,intent\nhello,挨拶\n", "is not the name of an intent"),
        ("a.csv", "text,intent\nhello,?!\n", "is not the name of an intent"),
        ("a.csv", f"text,intent\nhello,{'x' * 65}\n", "is not the name of an intent"),
        ("a.csv", "text,intent\na,pay?\nb,pay\n", ":3: the intents 'pay?' and 'pay' would both be"),
        ("a.csv", "text,intent\nhi [you](a b),greet\nhi [you](../x),greet\n", ":3: '../x' is not"),
        ("a.jsonl", "{}\n", "'intent' is missing"),
        ("a.jsonl", "[" * 100_000, "not JSON"),
        ("a.jsonl", '{"text": "x", "intent": "y", "slot": {}}', "'slot' is not known: 'slots' is meant?"),
        ("a.jsonl", '{"text": "x", "intent": "y", "slots": {"a": "z"}}', "which is not in the text"),
        ("a.jsonl", '{"text": "x", "intent": "y", "spans": [["a", 0, 9]]}', "'spans' is not a list"),
        ("a.yml", BOMB, "anchors (&) and aliases (*) are not read"),
        ("a.yml", "nlu: !!python/object:os.system {}", "tags (!) are not read"),
        ("a.yml", "nlu: " + "[" * 60 + "]" * 60, "levels"),
        ("a.yml", "nlu: [", "not YAML"),
        ("a.yml", "x: 1", "neither `nlu` (Rasa) nor `intents`"),
        ("a.yml", "nlu:\n- intent: a\n  examples: |\n    hello\n", "does not begin with '- '"),
        ("a.yml", HOME.replace("<turn>", "<tern>"), "there is no rule <tern>"),
        ("a.yml", HOME.replace("{name:", "{mane:"), "the list {mane} has no values"),
        ("a.yml", HOME.replace("[the]", "[the"), "not a sentence template"),
        ("a.yml", HOME.replace('"(turn|switch)"', '"<turn>"'), "refer to each other"),
        ("a.pdf", "x", "ends with none of"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_with_a_way_out(tmp_path: Path, name: str, text: str, said: str):
    with pytest.raises(ForgeFailed) as caught:
        read(tmp_path, name, text)
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_large_and_missing_files_are_refused(tmp_path: Path):
    huge = tmp_path / "a.csv"
    with huge.open("wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(ForgeFailed, match="has 200 MB, and 17 MB is the most"):
        read_domain(huge, seed=1)
    with pytest.raises(ForgeFailed, match="does not exist"):
        read_domain(tmp_path / "b.csv", seed=1)
    with pytest.raises(ForgeFailed, match="is not a file"):
        text_lines.read_text(tmp_path)


def test_formulas_are_texts_and_come_back_as_they_were(tmp_path: Path):
    said = ["=HYPERLINK(1)", "+1 please", "-x", "@all", "'quoted'", "'=1", "plain"]
    cells = [as_text_cell(text) for text in said]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    body = "".join(f'"{cell}",{"ab"[n % 2]}\n' for n, cell in enumerate(cells))
    found = [one.text for one in read(tmp_path, "a.csv", f"text,intent\n{body}").examples]
    assert found == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (r'{"text": "half \ud800", "intent": "a"}', "surrogates not allowed"),
        ('{"intent": "a", "parameters": {"x": NaN}}', "NaN is no JSON number"),
        ('{"intent": "a", "parameters": {"x": -Infinity}}', "-Infinity is no JSON number"),
    ],
)
def test_what_json_cannot_carry_on_is_refused(tmp_path: Path, line: str, said: str):
    with pytest.raises(ForgeFailed, match=rf"a\.jsonl:1: not JSON .*{said}"):
        read(tmp_path, "a.jsonl", line)


def test_separators_of_unicode_end_no_line(tmp_path: Path):
    domain = read(tmp_path, "a.csv", "text,intent\none\u2028two,a\nthree\x85four,b\n")
    again = read(tmp_path, "b.jsonl", to_lines(domain))
    assert [e.text for e in again.examples] == ["one\u2028two", "three\x85four"]

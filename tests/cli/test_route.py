"""`edgeagent route`: rules are checked and explained without a daemon and without a model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.catalog.install_record import read_record
from edgeagent.routing.training.scope_training import write_scope
from edgeagent.settings import Settings
from edgeagent.settings.store import StoreSettings
from edgeagent.store.database import open_store
from edgeagent.store.requests import RequestRow, insert
from edgeagent.store.sql import now_ms
from tests.cli.conftest import one_line
from tests.conftest import KEY_FILE, SHIPPED
from tests.routing.scopes import closed_scope

SMALL = "edge-assistant-s"
RULES = """
[routing]
candidates = ["edge-assistant-s", "absent"]
[[routing.rules]]
id = "code"
match = { keywords_any = ["python"], not = { has_tools = true } }
route_to = "absent"
[[routing.rules]]
id = "bank"
match = { domain = ["banking"] }
route_to = "edge-assistant-s"
[[routing.routes]]
name = "ward"
candidates = ["edge-assistant-s"]
keys = ["key_ann"]
"""


@pytest.fixture
def route(edgeagent, shipped_assistant: Path, tmp_path: Path):
    config = tmp_path / "edgeagent.toml"
    config.write_text(RULES)
    env = {SHIPPED: str(shipped_assistant)}

    def run(*words: str, text: str | None = None):
        if text is not None:
            config.write_text(text)
        state = tmp_path / "state"
        return edgeagent("route", *words, "--config", config, "--state-dir", state, env=env)

    return run


def test_a_scope_gate_is_fitted_to_other_texts_and_taken_back(
    route, shipped_assistant: Path, tmp_path: Path
):
    record = read_record(shipped_assistant / SMALL)
    assert record is not None and record.sha256 is not None
    path = tmp_path / "state" / "scope" / f"{SMALL}.scope"
    write_scope(closed_scope(record.sha256, ALL), path)
    forms = ("{}", "please {}", "{} now", "can you {}", "{} please", "hey {}")
    inside = {
        "timer": ["set a timer", "start a timer", "set a timer for ten minutes"],
        "weather": ["is it raining", "tell me the weather", "what is the weather like"],
        "card_arrival": ["where is my card", "when does my card arrive", "track my new card"],
        "lost_or_stolen_card": ["i lost my card", "my card was stolen", "my card is gone"],
        "GetWeather": [f"show the weather in {city}" for city in ("rome", "paris", "oslo", "lima")],
        "PlayMusic": [f"play {artist}" for artist in ("bach", "adele", "nina simone")],
    }
    others = ["name the tallest king", "why do cats purr", "solve this riddle", "bake me a pie"]
    rows = [
        (form.format(one), name)
        for name, texts in inside.items()
        for one in texts
        for form in forms
    ]
    rows += [(form.format(one), "oos") for one in others for form in forms]
    data = tmp_path / "own.csv"
    data.write_text("text,intent\n" + "".join(f"{text},{intent}\n" for text, intent in rows))
    done = route("calibrate", "--scope", SMALL, "--data", data, "--json")
    told = json.loads(done.stdout)
    assert (told["revision"], told["n_outside"], told["found_before"]) == (2, 24, 1.0)
    assert told["n_inside"] >= 100 and told["lost_before"] == 1.0 and told["lost"] < 0.1
    assert route("calibrate", "--scope", SMALL, "--rollback").stdout.endswith("revision 1\n")
    assert "is removed" in route("calibrate", "--scope", SMALL, "--rollback").stdout
    assert not path.exists()
    assert "no scope gate was calibrated" in one_line(
        route("calibrate", "--scope", SMALL, "--rollback")
    )
    assert "has no scope gate" in one_line(route("calibrate", "--scope", SMALL, "--data", data))
    wrong = route("calibrate", "--scope", SMALL, "--data", data, "--share", "0.2")
    assert wrong.returncode == 2 and "either --data or --rollback" in wrong.stderr


def test_check_names_the_models_that_are_missing(route):
    done = route("check")
    assert done.returncode == 1
    assert "[routing] candidates: Model 'absent'" in done.stderr
    assert "2 rules and 1 named routes are valid, 1 models are missing" in done.stdout
    done = route("check", text=RULES.replace('"absent"', f'"{SMALL}"'))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("keywords_any", "keyword", "routing.rules[0].match.keyword (from"),
        ('["python"]', '"python"', "routing.rules[0].match.keywords_any = 'python'"),
        ('"bank"', '"code"', "the id 'code'"),
        ('"bank"', '"a b"', "routing.rules[1].id = 'a b'"),
        ('keywords_any = ["python"]', "regex = '('", "unclosed group"),
        ("has_tools = true", "", "without conditions"),
        ('["python"]', "not = " * 2000 + "1", "Configuration"),
        ('["banking"]', "[" * 5000 + "]" * 5000, "too deeply"),
    ],
)
def test_rules_that_cannot_be_used_are_one_line_with_a_way_out(route, old, new, why):
    line = one_line(route("check", text=RULES.replace(old, new, 1)))
    assert why in line and len(line) < 600


def test_too_many_rules_are_one_line(route):
    rule = '[[routing.rules]]\nid = "r{}"\nmatch = {{ min_chars = 1 }}\nroute_to = "a"\n'
    line = one_line(route("check", text="".join(rule.format(n) for n in range(10_000))))
    assert "at most 1000 items" in line and len(line) < 600


def test_explain_tells_model_reason_and_what_was_looked_at(route):
    done = route("explain", "what is a bank", "--metadata", "domain=banking")
    assert done.stdout.splitlines()[0] == f"{SMALL} (rule bank)"
    told = json.loads(route("explain", "my python program", "--json").stdout)
    assert (told["model"], told["reason"], told["rule"]) == (SMALL, "fallback", "code")
    assert {"subject": "model absent", "outcome": "excluded", "detail": "is not installed"} in told[
        "trace"
    ]
    told = json.loads(route("explain", "my python program", "--tools", "--json").stdout)
    assert (told["model"], told["reason"], told["rule"]) == (SMALL, "default", None)


def test_explain_honours_keys_and_names_the_routes(route):
    assert "may not use the route 'ward'" in one_line(route("explain", "x", "--route", "ward"))
    assert SMALL in route("explain", "x", "--route", "ward", "--key", "key_ann").stdout
    assert "auto:quality" in one_line(route("explain", "x", "--route", "nowhere"))
    assert "NAME=VALUE" in one_line(route("explain", "x", "--metadata", "domain"))
    assert "metadata.privacy" in one_line(route("explain", "x", "--metadata", "privacy=x"))


UPSTREAM = """
[routing]
candidates = ["edge-assistant-s", "big"]
default_model = "big"
[[routing.upstreams]]
name = "basement"
url = "https://10.0.0.5/v1"
models = { big = "x" }
keys = ["ann"]
key_file = "/nowhere"
"""


def test_models_of_upstreams_are_known_and_explained_and_nothing_is_opened(route):
    assert "0 models are missing" in route("check", text=UPSTREAM).stdout
    sent = route("explain", "x", "--key", "ann", text=UPSTREAM).stdout
    assert sent.splitlines()[0] == "big (default)"
    for more in (("--key", "bob"), ("--key", "ann", "--metadata", "privacy=local")):
        kept = route("explain", "x", *more, text=UPSTREAM).stdout
        assert kept.splitlines()[0] == f"{SMALL} (fallback)" and "may not be sent" in kept
    taken = UPSTREAM.replace("big", "auto:fast").replace("{ auto:fast", '{ "auto:fast"')
    assert "name of a route" in one_line(route("check", text=taken))


def test_stats_counts_by_route_rule_and_model(route, tmp_path: Path):
    key = StoreSettings(key_file=Path(os.environ[KEY_FILE]))
    settings = Settings(state_dir=tmp_path / "state", store=key)
    row = RequestRow(
        id="req_1", owner="a", key_id=None, endpoint="/v1/chat/completions", model=SMALL, route="rule",
        status=200, finish="stop", n_prompt=3, n_cached=0, n_generated=2, queue_ms=1.0, ttft_ms=5.0,
        tpot_ms=1.0, total_ms=9.0, created_ms=now_ms(), route_name="auto", rule="bank",
    )  # fmt: skip
    with open_store(settings) as database:
        database.write(lambda db: insert(db, [row]))
    (found,) = json.loads(route("stats", "--json").stdout)
    assert (found["route_name"], found["rule"], found["reason"]) == ("auto", "bank", "rule")
    assert (found["n_requests"], found["n_failed"], found["n_prompt"]) == (1, 0, 3)
    assert "bank" in route("stats").stdout

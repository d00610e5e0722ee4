"""`edgeagent route replay`, and training on the log of a device, with a store as a daemon leaves it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgeagent.routing.feature_record import packed
from edgeagent.settings import Settings
from edgeagent.settings.store import StoreSettings
from edgeagent.store import decisions, feedback
from edgeagent.store.database import open_store
from tests.cli.conftest import one_line
from tests.conftest import KEY_FILE
from tests.routing.routes import LARGE, SMALL
from tests.routing.training.logs import log
from tests.routing.training.texts import outcomes, write
from tests.store.rows import NOW, request

N = 700


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with rated decisions, a tenth of them drawn, and one by a rule."""
    folder = tmp_path_factory.mktemp("logged") / "state"
    key = StoreSettings(key_file=Path(os.environ[KEY_FILE]))

    def fill(db: Any) -> None:
        for n, one in enumerate(log(N, 0.4)):
            request(db, n, at=NOW + n)
            record = packed(one.features)
            row = decisions.DecisionRow(
                request_id=f"req_{n}", owner="ann", route="auto", reason="default", chosen=one.chosen,
                answered=one.answered, default_model=SMALL, created_ms=NOW + n, began_s=0.0,
                chances=one.chances, features=lambda record=record: record, domain=one.domain,
            )  # fmt: skip
            decisions.insert(db, row)
            rating = 1 if one.outcome else -1
            feedback.add(db, "ann", f"req_{n}", rating=rating, comment=None, now_ms=NOW)
        row = decisions.DecisionRow(
            request_id="req_rule", owner="ann", route="auto", reason="rule", chosen=LARGE, answered=LARGE,
            default_model=SMALL, created_ms=NOW, began_s=0.0,
        )  # fmt: skip
        decisions.insert(db, row)

    with open_store(Settings(state_dir=folder, store=key)) as database:
        database.write(fill)
    return folder


@pytest.fixture(scope="module")
def policy(edgeagent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    data = write(folder / "d.csv", outcomes(400, 5), small=SMALL, large=LARGE)
    done = edgeagent(
        "route", "train", "--data", data, "--share", "0.5", "--out", folder / "new.policy"
    )
    assert done.returncode == 0, done.stderr
    return folder / "new.policy"


def test_replay_estimates_quality_and_cost(edgeagent, state, policy):
    options = ("route", "replay", "--policy", policy, "--state-dir", state)
    done = edgeagent(*options, "--format", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["small"], told["large"], told["n"], told["n_rated"]) == (SMALL, LARGE, N, N)
    assert told["logged"]["value"] < told["snips"]["low"] < told["snips"]["high"]
    assert 0 < told["ips"]["std_error"] < 0.1 and told["snips"]["n_effective"] < N
    assert told["costs"]["latency_ms"]["value"] == pytest.approx(12.5)
    assert told["left_out"] == {"decided by a rule, the route or a failure": 1}
    table = edgeagent(*options)
    assert "quality" in table.stdout and f"{N} decisions, {N} rated" in table.stdout


def test_replay_without_a_log_that_can_tell_is_refused(edgeagent, policy, state, tmp_path):
    later = edgeagent(
        "route", "replay", "--policy", policy, "--since", "2100-01-01", "--state-dir", state,
        "--format", "json",
    )  # fmt: skip
    assert later.returncode == 1 and "No decision" in json.loads(later.stdout)["refused"]
    empty = edgeagent("route", "replay", "--policy", policy, "--state-dir", tmp_path / "none")
    assert empty.returncode == 1 and "Traceback" not in empty.stderr


WRONG = [
    (("--policy", "absent.policy"), "absent.policy"),
    ((), "--policy"),
    (("--policy", "absent.policy", "--since", "yesterday"), "yesterday"),
    (("--policy", "absent.policy", "--format", "xml"), "xml"),
]


@pytest.mark.parametrize(("words", "why"), WRONG)
def test_wrong_inputs_are_one_line(edgeagent, state, words, why):
    done = edgeagent("route", "replay", *words, "--state-dir", state)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert why in done.stderr


def test_a_spoilt_policy_is_one_line(edgeagent, state, tmp_path):
    (tmp_path / "spoilt").write_bytes(b"spoilt")
    done = edgeagent("route", "replay", "--policy", tmp_path / "spoilt", "--state-dir", state)
    assert "cannot be used" in one_line(done)


def test_a_policy_is_trained_and_calibrated_on_the_log(edgeagent, state, tmp_path):
    policy = tmp_path / "own.policy"
    place = ("--state-dir", state)
    pair = ("--small", SMALL, "--large", LARGE, "--share", "0.5")
    done = edgeagent("route", "train", "--from-log", *pair, "--out", policy, "--json", *place)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert (first["n"], first["revision"], first["kept"]) == (N, 1, None)
    done = edgeagent("route", "replay", "--policy", policy, "--format", "json", *place)
    told = json.loads(done.stdout)
    assert told["logged"]["high"] < told["snips"]["value"], "it is better than what it learnt from"

    def calibrate(*options: object):
        return edgeagent("route", "calibrate", "--policy", policy, "--json", *options, *place)

    second = json.loads(calibrate("--from-log", "--quality", "0.7").stdout)
    assert (second["revision"], second["domains"]) == (2, ["home", "maths"])
    assert second["ece_after"] < 0.1
    none = json.loads(calibrate("--from-log", "--share", "0").stdout)
    assert none["threshold"] > second["threshold"]
    assert json.loads(calibrate("--rollback").stdout)["revision"] == 2
    again = edgeagent("route", "train", "--from-log", *pair, "--out", policy, "--json", *place)
    assert json.loads(again.stdout)["revision"] == 3
    assert json.loads(calibrate("--rollback").stdout)["threshold"] == second["threshold"]
    assert "No threshold reaches" in one_line(calibrate("--from-log", "--quality", "1"))


USES = [
    (("train", "--from-log"), "Which two models"),
    (("train", "--from-log", "--small", "a", "--large", "b"), "no decision between a and b"),
    (("train",), "either --data with files, or --from-log"),
    (("train", "--from-log", "--data", "x.csv"), "either --data with files, or --from-log"),
    (("train", "--data", "x.csv", "--since", "2026-01-01"), "give it with --from-log"),
    (("train", "--data", "x.csv", "--owner", "ann"), "give it with --from-log"),
    (
        ("train", "--from-log", "--small", "a", "--large", "b", "--owner", "eve"),
        "no decision for keys of 'eve'",
    ),
    (("train", "--from-log", "--since", "soon"), "soon"),
    (("calibrate", "--from-log", "--rollback"), "either --rollback"),
    (("calibrate", "--from-log", "--quality", "0.5", "--share", "0.5"), "at most one of"),
    (("calibrate", "--from-log", "--policy", "absent.policy"), "absent.policy"),
]


@pytest.mark.parametrize(("words", "why"), USES, ids=lambda value: " ".join(value)[:40])
def test_wrong_uses_of_the_log_say_what_to_do(edgeagent, state, words, why):
    done = edgeagent("route", *words, "--state-dir", state)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert why in " ".join(done.stderr.split())

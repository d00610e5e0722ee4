"""`edgeagent route evaluate` and `train` with files as people have them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from edgeagent.cli.route_learning import spread
from tests.cli.conftest import one_line
from tests.conftest import SHIPPED
from tests.routing.training.texts import outcomes, write


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("outcomes")
    return [write(folder / f"{n}.csv", outcomes(200, n)) for n in range(3)]


@pytest.mark.process  # matplotlib asks fc-list for fonts the first time
def test_evaluate_prints_the_measures_of_every_policy(edgeagent, files, tmp_path):
    plot = tmp_path / "curves.png"
    done = edgeagent("route", "evaluate", "--data", *files, "--format", "json", "--plot", plot)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["small"], told["large"], told["n"]) == ("small", "large", 600)
    learned = told["policies"]["learned"]
    assert learned["apgr"] > 0.65 and learned["cpt50"] < 35 and learned["cpt80"] < 60
    assert learned["ece"] < 0.1
    low, high = learned["apgr_ci"]
    assert low < learned["apgr"] < high
    assert 0.4 < told["policies"]["random"]["apgr"] < 0.6
    assert told["policies"]["oracle"]["apgr"] >= learned["apgr"]
    assert learned["oracle_gap"] == pytest.approx(
        told["policies"]["oracle"]["apgr"] - learned["apgr"]
    )
    assert set(told["policies"]) >= {"length", "always_small", "always_large"}
    width, height = struct.unpack(">II", plot.read_bytes()[16:24])
    assert plot.read_bytes()[:4] == b"\x89PNG" and width > 500 < height + 200


def test_data_may_be_scored_by_what_other_data_taught(edgeagent, files):
    done = edgeagent(
        "route", "evaluate", "--data", files[0], "--train", *files[1:], "--format", "json"
    )
    told = json.loads(done.stdout)
    assert told["folds"] == "train" and told["policies"]["learned"]["apgr"] > 0.65
    again = edgeagent(
        "route", "evaluate", "--data", files[0], "--train", *files[1:], "--format", "json"
    )
    assert again.stdout == done.stdout, "the same files and seed give the same figures"
    table = edgeagent("route", "evaluate", "--data", *files, "--folds", "files").stdout
    assert "learned" in table and "600 texts; small" in table


def test_train_writes_a_policy_that_explain_uses(edgeagent, tmp_path, shipped_assistant):
    small = "edge-assistant-s"
    data = write(tmp_path / "d.csv", outcomes(400), small=small, large="absent")
    state = tmp_path / "state"
    done = edgeagent("route", "train", "--data", data, "--state-dir", state, "--json")
    told = json.loads(done.stdout)
    assert (told["small"], told["large"], told["n"]) == (small, "absent", 400)
    config = tmp_path / "edgeagent.toml"
    config.write_text(f'[routing]\ncandidates = ["{small}", "absent"]\npolicy = "{told["file"]}"\n')
    options = ("--json", "--config", config, "--state-dir", state)
    env = {SHIPPED: str(shipped_assistant)}
    done = edgeagent("route", "explain", "set a timer please, number 7", *options, env=env)
    easy = json.loads(done.stdout)
    assert (easy["model"], easy["reason"]) == (small, "learned")
    done = edgeagent("route", "explain", "prove the theorem please, number 7", *options, env=env)
    hard = json.loads(done.stdout)
    assert (hard["model"], hard["reason"]) == (small, "fallback"), "the larger one is not installed"
    assert hard["scores"]["benefit"] > easy["scores"]["benefit"]
    Path(told["file"]).write_bytes(b"spoilt")
    assert "route train" in one_line(
        edgeagent("route", "check", "--config", config, "--state-dir", state)
    )


def test_calibrate_fits_a_policy_to_other_outcomes_and_takes_it_back(edgeagent, files, tmp_path):
    policy = tmp_path / "p"
    state = ("--state-dir", tmp_path / "state")
    done = edgeagent("route", "train", "--data", files[0], "--out", policy, "--json", *state)
    first = json.loads(done.stdout)
    before = policy.read_bytes()

    def calibrate(*options: object):
        return edgeagent("route", "calibrate", "--policy", policy, *options, "--json", *state)

    reversed_ = write(tmp_path / "r.csv", [(t, 1 - a, 1) for t, a, _ in outcomes(300, 9)])
    second = json.loads(calibrate("--data", reversed_, "--share", "0.1").stdout)
    assert (second["revision"], second["threshold"] > first["threshold"]) == (2, True)
    assert second["ece_after"] < second["ece_before"] and second["ece_before"] > 0.4
    third = json.loads(calibrate("--data", *files[1:], "--quality", "0.8").stdout)
    assert third["revision"] == 3 and third["threshold"] < second["threshold"]
    assert json.loads(calibrate("--rollback").stdout)["revision"] == 2
    assert json.loads(calibrate("--rollback").stdout)["threshold"] == first["threshold"]
    assert policy.read_bytes() == before
    assert "no earlier revision" in one_line(calibrate("--rollback"))
    assert "No threshold reaches" in one_line(calibrate("--data", files[0], "--quality", "1"))
    assert "either --rollback" in one_line(calibrate())
    other = write(tmp_path / "o.csv", outcomes(100), small="a", large="b")
    assert "No column for the model" in one_line(calibrate("--data", other))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no rows"),
        ("prompt,a,b\n", "no rows"),
        ("a,b\n1,0\n", "no column prompt"),
        ("prompt,a\nx,1\n", "1 models in common"),
        ("prompt,a,b\nx,1,hello\n", "1 models in common"),
        ("prompt,a,b\nx,1,1\n", "not better"),
        ("prompt,a,b\nx,0,1\n", "50 are needed"),
        ("\x00\x01", "no rows"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(edgeagent, tmp_path, text, why):
    path = tmp_path / "d.csv"
    path.write_text(text)
    assert why in one_line(edgeagent("route", "evaluate", "--data", path))


def test_lines_of_json_and_columns_by_name(edgeagent, tmp_path):
    rows = outcomes(200)
    path = tmp_path / "d.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": text, "m": 0.5, "s": a, "l": bool(b), "answer": "x"}) + "\n"
            for text, a, b in rows
        )
    )
    options = ("--small", "s", "--large", "l", "--middle", "m", "--format", "json")
    told = json.loads(edgeagent("route", "evaluate", "--data", path, *options).stdout)
    assert told["policies"]["middle"]["quality"] == 0.5
    assert "No column for the model 'q'" in one_line(
        edgeagent("route", "evaluate", "--data", path, "--small", "q")
    )
    path.write_text('{"text": "x"}\n[1]\n')
    assert ":2 is no JSON object" in one_line(edgeagent("route", "evaluate", "--data", path))


def test_an_option_may_have_several_values():
    many = {"--data", "--train"}
    assert spread(["--data", "a", "b", "--seed", "1"], many) == [
        "--data", "a", "--data", "b", "--seed", "1",
    ]  # fmt: skip
    assert spread(["--data", "a", "--data", "b"], many) == ["--data", "a", "--data", "b"]
    assert spread(["x", "--train", "a", "b"], many) == ["x", "--train", "a", "--train", "b"]

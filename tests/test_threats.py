"""The table of threats: complete, and everything that it names is there."""

from __future__ import annotations

from pathlib import Path

from scripts.faults.campaign import (
    Result,
    keep_results,
    left,
    missing,
    read_report,
    read_results,
    table,
)
from scripts.faults.threats import HARNESSES, THREATS

ROOT = Path(__file__).resolve().parents[1]
FAULTS = ROOT / "scripts" / "faults"
# Not for one threat: of what the assistant's tools are made of, and parts of other harnesses.
OTHERS = {
    "hostile_audio.py",
    "tools.py",
    "shapes.py",
    "playground.py",
    "valid_requests.py",
    "mutations.py",
    "service_trial.py",
    "upstream_server.py",
    # With a llama-server of the user's own.
    "llama_server.py",
    "llama_pair.py",
    "llama_answers.py",
}
OURS = {"campaign.py", "threats.py"}


def test_every_threat_has_a_test_that_is_there():
    assert [threat.number for threat in THREATS] == list(range(1, 56))
    for threat in THREATS:
        assert threat.tests, threat
        for file in threat.tests:
            assert (ROOT / "tests" / file).is_file(), file


def test_every_harness_belongs_to_the_table():
    scripts = {path.name for path in FAULTS.glob("*.py")} - OTHERS - OURS
    assert {harness.script for harness in HARNESSES.values()} == scripts
    used = {name for threat in THREATS for name in threat.harnesses}
    assert used == set(HARNESSES)


def test_a_report_is_counted_by_file_and_skipped_cases_are_none():
    text = """<testsuites><testsuite>
      <testcase file="tests/a/test_x.py" time="1.5"/>
      <testcase file="tests/a/test_x.py" time="0.5"><failure/></testcase>
      <testcase file="tests/a/test_x.py"><skipped/></testcase>
      <testcase file="tests/b/test_y.py"><skipped/></testcase>
      <testcase file="tests/other.py"><error/></testcase>
    </testsuite></testsuites>"""
    found = read_report(text, ["a/test_x.py", "b/test_y.py"])
    assert found["a/test_x.py"] == Result(2, 1, 2.0)
    assert found["b/test_y.py"].reason and not found["b/test_y.py"].n


def test_the_table_sums_what_was_counted_and_names_what_did_not_run():
    threat = next(threat for threat in THREATS if threat.harnesses == ("worker_reach",))
    results = {file: Result(3, 1) for file in threat.tests}
    results["worker_reach"] = Result(reason="needs root")
    line = table([threat], results)[-1]
    n = 3 * len(threat.tests)
    assert line.endswith(f"| {n} | {len(threat.tests)} |") and "not run: needs root" in line
    assert table([threat], {})[-1].endswith("|  |  |")


def test_what_was_counted_is_kept_for_the_next_piece(tmp_path: Path):
    file = tmp_path / "results.json"
    counted = {"a/test_x.py": Result(2, 1, 2.0), "proxies": Result(reason="needs proxies")}
    assert not read_results(None) and not read_results(file)
    keep_results(file, counted)
    assert read_results(file) == counted


def test_a_campaign_that_goes_on_runs_what_has_not_run():
    results = {"done": Result(3, 1), "lacking": Result(reason="needs root")}
    assert left(["done", "lacking", "new"], results) == ["lacking", "new"]


def test_what_a_machine_lacks_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert missing(("containers", "proxies")) == "containers, proxies"
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert not missing(("containers",))

"""`edgeagent data` and `edgeagent audit`, also while something else has the store open."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeagent.cli.main import main
from edgeagent.settings import Settings
from edgeagent.settings.store import StoreSettings
from edgeagent.store import audit
from edgeagent.store.database import open_store
from tests.cli.conftest import one_line
from tests.conftest import KEY_FILE
from tests.store.rows import conversation, feedback, n_rows, request, transcript

SECRET_TEXT = "what the patient said to nobody else"


@pytest.fixture
def state(tmp_path):
    """A state directory with ann's data about patient-17 and bob's about nobody."""
    state = tmp_path / "state"
    with opened(state) as store:

        def fill(db):
            conversation(db, "c", subject="patient-17", text=SECRET_TEXT)
            transcript(db, "c", subject="patient-17", text="dictated words of the ward")
            feedback(db, "msg_c_0")
            request(db, "c")
            conversation(db, "d", owner="bob", text="weather talk of somebody else")

        store.write(fill).result()
    return state


@contextmanager
def opened(state):
    with open_store(
        Settings(state_dir=state, store=StoreSettings(key_file=Path(os.environ[KEY_FILE])))
    ) as store:
        yield store


@pytest.fixture
def run(state, capsys, monkeypatch):
    """`edgeagent ... --state-dir` in this process: each new one takes seconds to begin."""

    def run(*arguments):
        command = [*map(str, arguments), "--state-dir", str(state)]
        monkeypatch.setattr(sys, "argv", ["edgeagent", *command])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(command, ended.value.code or 0, out, err)

    return run


def test_stats_show_counts_and_ages(run):
    out = run("data", "stats").stdout
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines() if line.strip()}
    assert rows["content"] == "6"
    assert rows["transcripts"] == rows["feedback"] == rows["requests"] == "1"
    assert "owners 2" in out
    assert "90 days" in out
    assert SECRET_TEXT not in out


def test_commands_work_in_a_process_of_their_own(edgeagent_process, state):
    with opened(state):
        done = edgeagent_process("data", "erase", "--owner", "bob", "--yes", "--state-dir", state)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["is_gone"] is True


def test_a_life_of_data_beside_a_running_process(run, state, tmp_path):
    out = tmp_path / "export.json"
    receipt = tmp_path / "receipt.json"
    with opened(state) as store:  # as a daemon has it
        assert run("data", "backup").returncode == 0

        done = run("data", "export", "--subject", "patient-17", "--out", out)
        assert done.returncode == 0, done.stderr
        document = json.loads(out.read_text())
        assert document["item"][0]["plain"] == f"{SECRET_TEXT} 0"
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert "is not overwritten" in one_line(
            run("data", "export", "--owner", "ann", "--out", out)
        )

        assert "1 of conversation" in run("data", "hold", "--conversation", "conv_c").stdout
        refused = one_line(run("data", "erase", "--subject", "patient-17", "--yes"))
        assert "legal hold" in refused
        assert run("data", "release", "--subject", "patient-17").returncode == 0

        assert "give --yes" in one_line(run("data", "erase", "--subject", "patient-17"))
        done = run("data", "erase", "--subject", "patient-17", "--yes", "--receipt", receipt)
        assert done.returncode == 0, done.stderr
        assert "Erased: none of" in done.stderr
        assert "still contains the data" in done.stderr
        body = json.loads(receipt.read_text())
        assert body["is_gone"] is True
        assert body["erased"]["segment"] == 2
        assert len(body["backups_holding"]) == 1
        assert SECRET_TEXT not in receipt.read_text()

        assert store.read(n_rows) == {
            "conversation": 1, "response": 1, "response_content": 1, "item": 2, "item_content": 2,
            "item_fts": 2, "request": 1,
        }  # fmt: skip
        actions = [row.action for row in store.read(lambda db: audit.page(db, 0, 20))]
        assert actions == [
            "data.export", "data.hold", "data.release", "data.erase.begin", "data.erase",
        ]  # fmt: skip
        for command in ("export", "erase"):
            assert "Nothing is stored" in one_line(run("data", command, "--owner", "nobody"))


def test_restore_needs_the_store_alone_and_brings_the_backup_back(run, state):
    run("data", "backup")
    assert "There is no file" in one_line(run("data", "restore", "--yes", state / "absent"))
    assert "give --yes" in one_line(run("data", "restore"))
    with opened(state) as store:
        store.write(lambda db: db.execute("delete from conversation").rowcount).result()
        assert "stop the daemon first" in one_line(run("data", "restore", "--yes"))
    done = run("data", "restore", "--yes")
    assert done.returncode == 0, done.stderr
    assert "has become the database" in done.stdout
    with opened(state) as store:
        assert store.read(n_rows)["conversation"] == 2
    assert run("audit", "verify").returncode == 0


def test_the_audit_is_shown_exported_and_verified(run, state, tmp_path):
    run("data", "hold", "--owner", "ann")
    run("data", "release", "--owner", "ann")
    assert "data.release" in run("audit", "show").stdout
    lines = run("audit", "export").stdout.splitlines()
    assert [json.loads(line)["action"] for line in lines[:-1]] == ["data.hold", "data.release"]
    head = json.loads(lines[-1])["head"]
    done = run("audit", "verify", "--anchor", head)
    assert (done.returncode, done.stdout.splitlines()[1]) == (0, f"head {head}")
    with opened(state) as store:
        store.write(lambda db: db.execute("delete from audit where seq = 2").rowcount).result()
        store.write(
            lambda db: db.execute("delete from checkpoint where name = 'audit_head'").rowcount
        ).result()
    done = run("audit", "verify")
    assert done.returncode == 1
    assert "an anchor says 2: the tail was cut off" in done.stderr


def test_whose_data_must_be_said(run):
    for command in ("export", "erase", "hold", "release"):
        done = run("data", command)
        assert done.returncode == 2
        assert "to select the data" in done.stderr

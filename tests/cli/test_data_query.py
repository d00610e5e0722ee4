"""`edgeagent data` with SQL: what can be read and copied, and nothing else."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from edgeagent.cli.main import main
from edgeagent.settings import Settings
from edgeagent.settings.store import StoreSettings
from edgeagent.store import audit, keys
from edgeagent.store.database import open_store
from edgeagent.store.key_record import KeySpec, scopes_from
from tests.cli.conftest import one_line
from tests.conftest import KEY_FILE, clean_environment, wait_for
from tests.store.rows import conversation, feedback, request, transcript

SAID = "what the patient said \x1b[31m\u202e to nobody else"


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state directory with ann's data about patient-17, bob's about nobody, and a key of ann's."""
    state = tmp_path_factory.mktemp("state")
    with opened(state) as store:

        def fill(db):
            conversation(db, "c", subject="patient-17", text=SAID)
            transcript(db, "c", subject="patient-17", text="dictated words of the ward")
            feedback(db, "msg_c_0")
            request(db, "c")
            conversation(db, "d", owner="bob", text="weather talk of somebody else")
            keys.create(db, KeySpec(name="ward", owner="ann", scopes=scopes_from(["chat"])), 1)

        store.write(fill).result()
    return state


def opened(state):
    return open_store(
        Settings(state_dir=state, store=StoreSettings(key_file=Path(os.environ[KEY_FILE])))
    )


@pytest.fixture
def run(state, capsys, monkeypatch):
    """`edgeagent data ... --state-dir` in this process: each new one takes seconds to begin."""

    def run(*arguments, stdin="", state=state):
        command = ["data", *map(str, arguments), "--state-dir", str(state)]
        monkeypatch.setattr(sys, "argv", ["edgeagent", *command])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(command, ended.value.code or 0, out, err)

    return run


def rows_of(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tables_are_counted_and_explained(run):
    found = {row["table"]: row for row in rows_of(run("tables", "--json"))}
    assert (found["item"]["n_rows"], found["request"]["n_rows"], found["key"]["n_rows"]) == (
        4,
        1,
        1,
    )
    assert "plain" in found["item_content"]["columns"].split()
    of_bob = {
        row["table"]: row["n_rows"] for row in rows_of(run("tables", "--owner", "bob", "--json"))
    }
    assert (of_bob["item"], of_bob["request"], of_bob["key"]) == (2, 0, 0)
    assert "audit" not in of_bob
    assert "item_content" in run("tables").stdout


def test_rows_are_shown_in_every_format(run):
    as_json = rows_of(run("rows", "item_content", "--subject", "patient-17", "--json"))
    assert [row["plain"] for row in as_json] == [f"{SAID} 0", f"{SAID} 1"]
    lines = run("rows", "item_content", "--subject", "patient-17", "--nl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == as_json
    text = run("rows", "item_content", "--subject", "patient-17", "--csv").stdout
    assert [row["plain"] for row in csv.DictReader(io.StringIO(text))] == [f"{SAID} 0", f"{SAID} 1"]
    table = run("rows", "item_content", "--subject", "patient-17")
    assert "what the patient said \\x1b[31m\\u202e to nobody else 0" in table.stdout
    assert "2 rows of subject 'patient-17'" in table.stderr
    assert "every owner and subject" in run("rows", "item", "-n", "1").stderr
    assert len(run("rows", "item", "-n", 1, "--nl").stdout.splitlines()) == 1
    assert "use conversation, response" in one_line(run("rows", "itm"))
    assert "no table 'item" in one_line(run("rows", 'item" union select 1 --'))


def test_a_query_gives_the_rows_of_a_selection(run):
    sql = "select owner, count(*) as n from item join item_content on item_rowid = rowid group by 1"
    assert rows_of(run("query", sql, "--json")) == [
        {"owner": "ann", "n": 2}, {"owner": "bob", "n": 2},
    ]  # fmt: skip
    for selection in (
        ("--owner", "ann"),
        ("--subject", "patient-17"),
        ("--conversation", "conv_c"),
    ):
        assert rows_of(run("query", sql, *selection, "--json")) == [{"owner": "ann", "n": 2}]
    # A name and a text that a spreadsheet would compute.
    shown = run("query", "select '=1+1' as \"@a\", -1 as b", "--csv").stdout
    assert shown.split() == ["'@a,b", "'=1+1,-1"]
    given = run("query", "-", "-p", "a", "it's", "--json", stdin="select :a as x, 2 as x")
    assert rows_of(given) == [{"x": "it's", "x_2": 2}]
    odd = "select 9e999 as i, x'0001' as b, null as n, cast(x'ff' as text) as t"
    assert rows_of(run("query", odd, "--json")) == [
        {"i": float("inf"), "b": {"$base64": True, "encoded": "AAE="}, "n": None, "t": "\ufffd"}
    ]
    assert run("query", "select 1 where 0", "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("selct 1", 'near "selct": syntax error'),
        ("select colour from item", "no such column: colour"),
        ("select digest from key", "no such column: digest"),
        ("select hint from key", "no such column: hint"),
        ("select :a", "did not supply a value"),
        ("select 1; select 2", "one statement at a time"),
        ("select abs(-9223372036854775808)", "integer overflow"),
        ("select hex(zeroblob(900000000))", "more than 256 MiB"),
        ("select \x1b[31m", r"\x1b"),
        ("select '\udcff'", "not UTF-8"),
        ("", "is empty"),
        ("/* nothing */", "returns no rows"),
        ("x" * 1_000_001, "more than 1000000 characters"),
    ],
    ids=lambda text: text[:30],
)
def test_a_wrong_statement_is_one_line(run, sql, said):
    line = one_line(run("query", sql))
    assert said in line
    assert len(line) < 400
    assert line.isprintable()


@pytest.mark.parametrize(
    "sql",
    [
        "insert into item (id) values (1)",
        "insert into main.item (id) values (1) returning id",
        "update key set revoked_ms = 1",
        "update main.key set revoked_ms = 1",
        "delete from main.item",
        "with x as (select 1) delete from main.item",
        "replace into main.measurement values (1, 2, 3)",
        "drop table main.item",
        "create table x (y)",
        "create temp table x as select 1",
        "create temp view x as select * from main.key",
        "create virtual table temp.x using fts5vocab(main, item_fts, row)",
        "alter table main.item add column x",
        "pragma rekey = 'x'",
        "pragma key",
        "pragma query_only = off",
        "pragma wal_checkpoint(truncate)",
        "/* comment */ pragma table_info(key)",
        "select * from pragma_table_info('key')",
        "select count(*) from pragma_table_info('key')",
        "attach 'OUT' as x",
        "detach main",
        "vacuum",
        "vacuum into 'OUT'",
        "begin",
        "commit",
        "savepoint x",
        "release sqlite_utils_query",
        "analyze",
        "reindex",
        "select load_extension('OUT')",
        "select sqlcipher_export('main')",
        "select fts3_tokenizer('simple')",
        "select rtreecheck('item')",
        "select digest from main.key",
        "select * from main.item",
        "select count(*) from main.item",
        "select (select max(owner) from main.conversation)",
        "with item as (select * from main.item) select * from item",
        "with item as (select count(*) from main.item) select * from item",
        "select 1 from item where exists (select 1 from main.key)",
        "select * from checkpoint",
        "select count(*) from CHECKPOINT",
        "select key from prefix",
        "select * from erasure",
        "select * from properties",
        "select * from item_fts where item_fts match 'patient'",
        "select * from item_fts_data",
        "select sql from sqlite_master",
        "select count(*) from sqlite_schema",
        "select sql from sqlite_temp_master",
    ],
)
def test_nothing_but_reading_the_tables_is_done(run, state, tmp_path, sql):
    with opened(state) as store:
        before = store.read(contents)
    line = one_line(run("query", sql.replace("OUT", str(tmp_path / "out.db"))))
    assert "The statement is refused" in line
    assert not list(tmp_path.iterdir())
    with opened(state) as store:
        assert store.read(contents) == before


def contents(db):
    tables = ("conversation", "item", "item_content", "key", "measurement", "sqlite_master")
    return {name: db.execute(f"select * from {name}").fetchall() for name in tables}


def test_a_selection_that_says_nothing_or_too_much_is_one_line(run, tmp_path):
    for name in ("nobody", "x' or '1'='1", "ann' --"):
        assert "Nothing is stored for owner" in one_line(run("query", "select 1", "--owner", name))
    assert "is not UTF-8" in one_line(run("query", "select 1", "--owner", "\udcff"))
    assert "Nothing is stored for subject" in one_line(run("rows", "item", "--subject", "ann"))
    # The owner's tables, and of the audit, which is of no owner, nothing.
    assert "refused" in one_line(run("query", "select * from audit", "--owner", "ann"))
    assert "no table 'audit'" in one_line(run("rows", "audit", "--owner", "ann"))
    found = rows_of(run("query", "select distinct owner from request", "--owner", "ann", "--json"))
    assert found == [{"owner": "ann"}]
    assert rows_of(run("query", "select * from request", "--subject", "patient-17", "--json")) == []
    assert "There is no store" in one_line(run("tables", state=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_the_key_of_another_store_opens_nothing(run, tmp_path, monkeypatch):
    other = tmp_path / "other.key"
    other.write_bytes(bytes(32))
    other.chmod(0o600)
    monkeypatch.setenv(KEY_FILE, str(other))
    for command in (
        ("query", "select 1"),
        ("tables",),
        ("copy", "--owner", "ann", tmp_path / "x.db"),
    ):
        assert "does not open store" in one_line(run(*command))
    other.chmod(0o644)
    assert "others may read it" in one_line(run("query", "select 1"))
    assert not (tmp_path / "x.db").exists()


def test_the_schema_is_that_of_the_tables_and_tells_of_no_secret(run):
    shown = run("schema").stdout
    made = sqlite3.connect(":memory:")
    made.executescript(shown)
    for row in rows_of(run("tables", "--json")):
        names = [column[1] for column in made.execute(f"pragma table_info({row['table']})")]
        assert names == row["columns"].split()
    made.close()
    assert "digest blob" not in shown and "hint" not in shown
    assert "-- of a message" in run("schema", "item").stdout
    assert "CREATE TABLE key" not in run("schema", "item").stdout
    assert "no table 'checkpoint'" in one_line(run("schema", "checkpoint"))


def test_every_command_leaves_a_row_in_the_audit_that_names_nobody(run, state, tmp_path):
    sql = "select * from item where owner = 'patient-17'"
    commands = [
        ("tables",), ("rows", "item", "--subject", "patient-17"), ("query", sql), ("query", sql),
        ("schema", "item"), ("copy", "--subject", "patient-17", tmp_path / "x.db"),
        ("query", "delete from main.item"),
    ]  # fmt: skip
    with opened(state) as store:
        n_before = store.read(lambda db: len(list(audit.rows(db))))
    for command in commands:
        run(*command)
    with opened(state) as store:
        found = store.read(lambda db: list(audit.rows(db)))[n_before:]
        key = audit.key_of(store.secret)
        assert store.read(lambda db: audit.verify(db, key)).is_sound
    assert [row.action for row in found] == [f"data.{command[0]}" for command in commands]
    assert all(row.actor.startswith("cli:") for row in found)
    assert "patient-17" not in json.dumps([row.shown() for row in found])
    assert found[1].object.endswith(" table:item")
    assert found[2].object == found[3].object != found[6].object


def test_a_copy_is_a_plain_file_of_the_selection_alone(run, tmp_path):
    out = tmp_path / "copy.db"
    old = os.umask(0)
    try:
        done = run("copy", "--owner", "ann", out)
    finally:
        os.umask(old)
    assert done.returncode == 0, done.stderr
    assert "NOT ENCRYPTED" in done.stderr
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]
    copied = sqlite3.connect(out)
    assert copied.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert copied.execute("pragma foreign_key_check").fetchall() == []
    assert copied.execute("select plain from item_content").fetchall() == [
        (f"{SAID} 0",), (f"{SAID} 1",),
    ]  # fmt: skip
    assert copied.execute("select owner, n_rows > 9 from edgeagent_copy").fetchall() == [("ann", 1)]
    for row in rows_of(run("tables", "--owner", "ann", "--json")):
        assert copied.execute(f"select count(*) from {row['table']}").fetchone()[0] == row["n_rows"]
        names = [column[1] for column in copied.execute(f"pragma table_info({row['table']})")]
        assert names == row["columns"].split()
    copied.close()
    data = out.read_bytes()
    assert b"weather talk" not in data and b"bob" not in data


def test_a_copy_that_cannot_be_made_leaves_nothing(run, tmp_path):
    (tmp_path / "there.db").write_text("mine")
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere")
    assert "to select the data" in one_line(run("copy", tmp_path / "x.db"))
    assert "is not overwritten" in one_line(run("copy", "--owner", "ann", tmp_path / "there.db"))
    assert "is not overwritten" in one_line(run("copy", "--owner", "ann", tmp_path / "link.db"))
    assert "cannot be written" in one_line(run("copy", "--owner", "ann", tmp_path / "no" / "x.db"))
    assert "cannot be written" in one_line(run("copy", "--owner", "ann", tmp_path / ("x" * 254)))
    assert "Nothing is stored" in one_line(run("copy", "--owner", "nobody", tmp_path / "x.db"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.db", "there.db"]
    assert (tmp_path / "there.db").read_text() == "mine"


def test_a_copy_to_a_full_disk_is_one_line(state, tmp_path):
    limit = ["bash", "-c", 'ulimit -f 16; exec "$@"', "bash"]
    done = subprocess.run(
        [*limit, sys.executable, "-m", "edgeagent", "data", "copy", "--owner", "ann",
         str(tmp_path / "x.db"), "--state-dir", str(state)],
        capture_output=True, text=True, timeout=60, env=clean_environment(), check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert one_line(done)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_a_statement_that_gives_no_row_for_long(state):
    with opened(state) as store:
        n_before = store.read(lambda db: len(list(audit.rows(db))))
    sql = "with recursive c(x) as (select 1 union all select x + 1 from c) select max(x) from c"
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeagent", "data", "query", sql, "--state-dir", str(state)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    with opened(state) as store:
        wait_for(lambda: store.read(lambda db: len(list(audit.rows(db)))) > n_before)
    began_s = cpu_s(process.pid)
    wait_for(lambda: cpu_s(process.pid) > began_s + 0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def cpu_s(pid):
    return psutil.Process(pid).cpu_times().user


def test_a_running_daemon_that_writes_is_read_beside(edgeagent, tales_daemon):
    """Each query sees everything acknowledged before it, and the daemon goes on writing meanwhile."""
    state_dir, acknowledged, is_done = tales_daemon.state_dir, [], threading.Event()
    subject = f"patient-{os.getpid()}"

    def write():
        with tales_daemon.client() as client:
            while not is_done.is_set():
                items = [{"role": "user", "content": "said by somebody"}]
                made = client.conversations.create(metadata={"subject": subject}, items=items)
                acknowledged.append(made.id)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: acknowledged)
        seen = []
        for _ in range(2):
            known = set(acknowledged)
            sql = "select id from conversation where subject = :who"
            done = edgeagent(
                "data", "query", sql, "-p", "who", subject, "--nl", "--state-dir", state_dir
            )
            assert done.returncode == 0, done.stderr
            seen.append({json.loads(line)["id"] for line in done.stdout.splitlines()})
            assert known <= seen[-1]
        refused = edgeagent("data", "query", "delete from item", "--state-dir", state_dir)
        assert "The statement is refused" in one_line(refused)
        out = state_dir.parent / f"{subject}.db"
        done = edgeagent("data", "copy", "--subject", subject, out, "--state-dir", state_dir)
        assert done.returncode == 0, done.stderr
    finally:
        is_done.set()
        writer.join()
    assert seen[0] < seen[1] < set(acknowledged)
    copied = sqlite3.connect(out)
    ids = {row[0] for row in copied.execute("select id from conversation")}
    n_items = copied.execute("select count(*) from item_content").fetchone()[0]
    copied.close()
    assert seen[1] < ids
    assert n_items == len(ids), "one state: each conversation came with its item"

"""Who may send what to an upstream, and what settings of an upstream may say."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgeagent.errors import SettingsError
from edgeagent.routing.upstreams.upstream_access import Access, Sender
from edgeagent.serving.upstreams.connection import read_key
from edgeagent.serving.upstreams.upstreams import Upstreams
from edgeagent.settings.upstreams import UpstreamSettings


def table(**more):
    given = {"name": "a", "url": "https://h/v1", "models": {"big": "x"}, "keys": ["ann", "key_1"]}
    return UpstreamSettings(**(given | more))


CASES = [
    (["any"], Sender("key_9", "ann", "any"), True),
    (["any"], Sender("key_1", "bob", "any"), True),
    (["any"], Sender("key_9", "bob", "any"), False),
    (["any"], Sender("key_1", "ann", "site"), False),
    (["site"], Sender("key_1", "ann", "any"), False),
    (["site", "any"], Sender("key_1", "ann", "site"), True),
    (["site", "any"], Sender("key_1", "ann", "local"), False),
    (["site", "any"], Sender("key_1", "ann"), False),
]


@pytest.mark.parametrize(("privacy", "sender", "may"), CASES)
def test_key_and_privacy_both_count(privacy, sender, may):
    assert Access.of(table(privacy=privacy)).admits(sender) is may


def test_a_star_admits_every_key_and_nothing_admits_local():
    everybody = Access.of(table(keys=["*"], privacy=["site", "any"]))
    assert everybody.admits(Sender("key_x", "x", "any"))
    assert not everybody.admits(Sender("key_x", "x", "local"))


WRONG = [
    ({"url": "ftp://h/v1"}, "https"),
    ({"url": "https:///v1"}, "host"),
    ({"url": "https://me:secret@h/v1"}, "password"),
    ({"url": "https://h/v1?key=1"}, "path"),
    ({"url": "https://h:99999/v1"}, "ort"),
    ({"url": "http://10.0.0.5/v1"}, "allow_plain_http"),
    ({"privacy": ["local"]}, "site"),
    ({"keys": []}, "keys"),
    ({"models": {}}, "models"),
    ({"key_file": "/a", "credential": "b"}, "keep one"),
    ({"credential": "../b"}, "pattern"),
    ({"timeout_s": float("nan")}, "timeout_s"),
]


@pytest.mark.parametrize(("given", "why"), WRONG)
def test_tables_that_cannot_be_used_are_refused(given, why):
    with pytest.raises(ValidationError, match=why):
        table(**given)


def test_plain_http_is_for_this_machine_or_for_those_who_say_so():
    for url in ("http://127.0.0.1:1/v1", "http://[::1]:1/v1", "http://localhost:1/v1"):
        assert table(url=url).is_on_this_machine
    assert table(url="http://10.0.0.5/v1/", allow_plain_http=True).url == "http://10.0.0.5/v1"


def test_names_are_unique_and_offline_means_this_machine():
    with pytest.raises(SettingsError, match="Two"):
        Upstreams([table(), table()])
    with pytest.raises(SettingsError, match="offline"):
        Upstreams([table()], is_offline=True)
    assert Upstreams([table(url="http://localhost/v1")], is_offline=True).models


def test_the_key_comes_from_a_file_that_others_cannot_read_or_a_credential(tmp_path, monkeypatch):
    path = tmp_path / "key"
    assert read_key(table()) == ""
    with pytest.raises(SettingsError, match="cannot be read"):
        read_key(table(key_file=path))
    for text in ("", "a b", "a\r\nX-Injected: b", "x" * 5000):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(SettingsError, match="printable"):
            read_key(table(key_file=path))
    path.write_text("sk-1\n")
    assert read_key(table(key_file=path)) == "sk-1"
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_key(table(key_file=path))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_key(table(credential="key")) == "sk-1"
    with pytest.raises(SettingsError, match="LoadCredential"):
        read_key(table(credential="other"))
    assert "sk-1" not in repr(table(key_file=path))

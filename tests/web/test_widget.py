"""A published bot in a web page: its key, its pages, and the script in a real browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from edgeagent.api.bots.bots import WIDGET
from edgeagent.errors import InvalidParameter
from edgeagent.serving.bots.published import PublishedBots
from tests.commands import run_here
from tests.conftest import DaemonProcess, serving
from tests.web.browser import CHROMIUM, Tab, browser

MARKUP = "<img src=x onerror=globalThis.hacked=1><script>globalThis.hacked=2</script>"
BOT = """
name = "Skerry Ferries"
greeting = "Welcome <b>aboard</b>."
[knowledge]
bases = ["ferries"]
documents = ["docs"]
answers = "quotes"
[handover]
on_thin_evidence = "human"
phrases = ["a person"]
text = "Please call us."
[web]
origins = ["{origin}"]
"""
LARGEST = 15_000  # bytes of the script


class Pages(BaseHTTPRequestHandler):
    """The page of an operator, under a policy that allows nothing but the daemon."""

    daemon = ""
    body = b""

    def do_GET(self) -> None:
        policy = (
            f"default-src 'none'; script-src {self.daemon}; connect-src {self.daemon}; "
            "require-trusted-types-for 'script'"
        )
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-security-policy", policy)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_args: object) -> None:
        pass


class Site(NamedTuple):
    daemon: DaemonProcess
    origin: str
    foreign: str
    key: str
    other_key: str

    def post(self, text: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}", "origin": self.origin}
        return httpx.post(
            f"{self.daemon.url}/v1/bots/skerry-ferries/messages", timeout=60,
            json={"text": text} | more.pop("body", {}), headers=headers | more.pop("headers", {}),
        )  # fmt: skip


@pytest.fixture(scope="module")
def site(tales_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A daemon with a published bot, and two web servers, one of which may show it."""
    folder = tmp_path_factory.mktemp("bot")
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Pages) for _ in range(2)]
    own, foreign = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, name="pages", daemon=True).start()
    (folder / "docs").mkdir()
    (folder / "docs" / "dogs.txt").write_text(f"Dogs on a lead travel free {MARKUP} on deck.\n")
    (folder / "bot.toml").write_text(BOT.format(origin=own))
    settings = {"preload": False, "allowed_origins": [own]}
    with serving(tales_dir, tmp_path_factory.mktemp("state"), **settings) as daemon:
        port = daemon.url.rpartition(":")[2]
        flags = ("--state-dir", daemon.state_dir, "--config", daemon.config)
        done = run_here("bot", "publish", folder / "bot.toml", "--port", port, *flags)
        assert done.returncode == 0, done.stderr
        other = run_here("keys", "create", "--name", "other", *flags)
        Pages.daemon = daemon.url
        Pages.body = f"<!DOCTYPE html><html lang=en><title>x</title><body>{done.stdout}".encode()
        key = re.search(r'data-key="([^"]+)"', done.stdout)
        assert key is not None
        yield Site(daemon, own, foreign, key[1], other.stdout.strip())
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_page_talks_to_its_bot_and_the_dialogue_goes_on(site: Site) -> None:
    first = site.post("Do dogs on a lead travel free?")
    assert first.status_code == 200, first.text
    assert first.headers["access-control-allow-origin"] == site.origin
    told = first.json()
    assert told["basis"] == "quotes" and told["citations"] == ["dogs.txt"]
    again = site.post("I want a person", body={"conversation": told["conversation"]}).json()
    assert (again["text"], again["handover"]) == ("Please call us.", "human")
    assert again["conversation"] == told["conversation"]
    unknown = site.post("A person", body={"conversation": "x" * 24}).json()
    assert unknown["conversation"] not in ("x" * 24, told["conversation"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"), ("GET", "/v1/responses/resp_1"), ("GET", "/v1/vector_stores"),
        ("GET", "/v1/files"), ("POST", "/v1/chat/completions"), ("POST", "/v1/responses"),
        ("GET", "/admin/keys"), ("POST", "/admin/export"), ("GET", "/v1/usage"), ("GET", "/ready"),
        ("GET", "/schema"), ("POST", "/tokenize"), ("POST", "/v1/feedback"), ("GET", "/metrics"),
    ],
)  # fmt: skip
def test_the_key_of_a_page_can_do_nothing_else(site: Site, method: str, path: str) -> None:
    headers = {"authorization": f"Bearer {site.key}", "origin": site.origin}
    body = {} if method == "POST" else None
    got = httpx.request(method, f"{site.daemon.url}{path}", headers=headers, json=body)
    assert got.status_code == 403, got.text
    assert "pages of a bot" in got.text


def test_other_pages_other_bots_and_other_owners_are_refused(site: Site) -> None:
    foreign = site.post("Hello", headers={"origin": site.foreign})
    assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers
    # The daemon's own pages are allowed as such, and are not pages of the bot.
    assert site.post("Hello", headers={"origin": site.daemon.url}).status_code == 403
    headers = {"authorization": f"Bearer {site.key}"}
    place = f"{site.daemon.url}/v1/bots"
    no_page = httpx.post(f"{place}/skerry-ferries/messages", json={"text": "Hi"}, headers=headers)
    assert no_page.status_code == 403 and "no page" in no_page.text
    headers["origin"] = site.origin
    for name in ("other", "..%2fbots%2fskerry-ferries"):
        assert httpx.get(f"{place}/{name}", headers=headers).status_code in (403, 404)
    other = {"authorization": f"Bearer {site.other_key}"}
    assert httpx.get(f"{place}/skerry-ferries", headers=other).status_code == 403  # its scopes
    assert httpx.get(f"{place}/skerry-ferries").status_code == 401


def test_a_page_that_the_file_no_longer_names_is_refused_with_the_key_it_had(site: Site) -> None:
    bots = PublishedBots(site.daemon.state_dir)
    before = bots.read("skerry-ferries")
    web = msgspec.structs.replace(before.bot.web, origins=["https://new.example"])
    bots.write(
        "skerry-ferries",
        msgspec.structs.replace(before, bot=msgspec.structs.replace(before.bot, web=web)),
    )
    try:
        got = site.post("Hello")
        assert got.status_code == 403 and "no origin any more" in got.text
        assert site.post("Hello", headers={"origin": "https://new.example"}).status_code == 403
    finally:
        bots.write("skerry-ferries", before)
    assert site.post("Hello").status_code == 200


def test_an_id_of_another_owner_and_one_that_is_none_are_refused(site: Site) -> None:
    bots = PublishedBots(site.daemon.state_dir)
    theirs = bots.read("skerry-ferries")
    mine = msgspec.structs.replace(theirs, owner="somebody")
    with pytest.raises(InvalidParameter, match="of a bot of the owner 'local'"):
        bots.write("skerry-ferries", mine)
    assert bots.read("skerry-ferries").owner == "local"
    for name in ("Bad Id", "../x", "-a", "a" * 41, ""):
        with pytest.raises(InvalidParameter, match="is no id of a bot"):
            bots.write(name, mine)


@pytest.mark.parametrize(
    "body", [{"text": ""}, {"text": "x" * 2001}, {"text": 1}, {"text": "a", "model": "b"}, {}]
)
def test_bad_messages_are_refused(site: Site, body: dict[str, Any]) -> None:
    headers = {"authorization": f"Bearer {site.key}", "origin": site.origin}
    got = httpx.post(
        f"{site.daemon.url}/v1/bots/skerry-ferries/messages", json=body, headers=headers
    )
    assert got.status_code == 400, got.text


def test_quotes_need_no_model(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "models", tmp_path / "state", preload=False) as daemon,
        httpx.Client(base_url=daemon.url, timeout=60) as client,
    ):
        file = {"file": ("dogs.txt", b"Dogs on a lead travel free.\n")}
        made = client.post("/v1/files", data={"purpose": "assistants"}, files=file).json()
        store = client.post("/v1/vector_stores", json={"file_ids": [made["id"]]}).json()["id"]
        while client.get(f"/v1/vector_stores/{store}").json()["status"] != "completed":
            pass
        tool = {"type": "file_search", "vector_store_ids": [store]}

        def ask(question: str, **more: object) -> httpx.Response:
            body = {"model": "default", "input": question, "tools": [tool | more]}
            return client.post("/v1/responses", json=body)

        told = ask("Do dogs travel free?", answers="quotes")
        assert told.status_code == 200, told.text
        assert told.json()["output"][-1]["content"][0]["text"] == "Dogs on a lead travel free."
        assert told.json()["edgeagent"]["knowledge"]["is_sure"] is True
        doubtful = ask(
            "Do dogs and horses travel?", answers="quotes", sure_evidence=1.0, not_sure="Perhaps:"
        ).json()
        (part,) = doubtful["output"][-1]["content"]
        assert part["text"] == "Perhaps: Dogs on a lead travel free."
        assert [note["index"] for note in part["annotations"]] == [len(part["text"])]
        own = doubtful["edgeagent"]["knowledge"]
        assert (own["is_sure"], own["n_preface"], own["unsupported"]) == (False, 9, [])
        missing = ask("Who paints elephants?", answers="quotes").json()
        assert missing["edgeagent"]["knowledge"]["basis"] == "nothing"
        assert ask("Do dogs travel free?").status_code == 503  # which a model writes


def test_the_script_is_small_and_fetched_without_a_key(site: Site) -> None:
    got = httpx.get(f"{site.daemon.url}/web/widget.js", headers={"sec-fetch-site": "cross-site"})
    assert got.status_code == 200 and got.content == WIDGET.read_bytes()
    assert len(got.content) < LARGEST
    assert got.headers["content-type"].startswith("text/javascript")
    assert got.headers["cross-origin-resource-policy"] == "cross-origin"
    known = httpx.get(
        f"{site.daemon.url}/web/widget.js", headers={"if-none-match": got.headers["etag"]}
    )
    assert (known.status_code, known.content) == (304, b"")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: install chromium-headless-shell")
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


ROOT = "document.getElementById('edgeagent-widget').shadowRoot"
BOT_LINES = f"[...{ROOT}.querySelectorAll('.bot, .error')].map(one => one.textContent)"


@pytest.mark.process
def test_a_person_chats_by_keyboard_and_markup_stays_text(site: Site, tab: Tab) -> None:
    tab.open(site.origin)
    tab.wait(f"document.getElementById('edgeagent-widget') && {ROOT}.querySelector('button')")
    tab.key("Tab", code=9)
    assert tab.run(f"{ROOT}.activeElement.textContent") == "Skerry Ferries"
    tab.key("Enter", "\r", 13)
    tab.wait(f"{ROOT}.querySelectorAll('.bot').length === 1")
    assert tab.run(f"{ROOT}.activeElement.tagName") == "TEXTAREA"
    tab.write("Do dogs on a lead travel free?")
    tab.key("Enter", "\r", 13)
    tab.wait(f"{ROOT}.querySelectorAll('.bot').length === 2")
    greeting, answer = tab.run(BOT_LINES)
    assert "Welcome <b>aboard</b>." in greeting
    assert MARKUP in answer and "Source: dogs.txt" in answer
    assert tab.run(f"globalThis.hacked === undefined && !{ROOT}.querySelector('img, script, b')")
    tab.write(MARKUP)
    tab.key("Enter", "\r", 13)
    tab.wait(f"{ROOT}.querySelectorAll('.bot').length === 3")
    assert tab.run("globalThis.hacked === undefined")
    tab.key("Escape", code=27)
    assert tab.run(f"{ROOT}.querySelector('.panel').hidden")
    assert tab.run(f"{ROOT}.activeElement.textContent") == "Skerry Ferries"
    places = {address.rpartition("/v1/")[0] or address for address in tab.asked}
    own = {f"{site.origin}/", f"{site.daemon.url}/web/widget.js", site.daemon.url}
    assert {place for place in places if not place.endswith("/favicon.ico")} <= own
    assert not [
        line for line in tab.said if "Content Security Policy" in line and "icon" not in line
    ]
    assert tab.run("document.cookie + localStorage.length + sessionStorage.length") == "00"


@pytest.mark.process
def test_a_screen_reader_is_told_what_there_is(site: Site, tab: Tab) -> None:
    tab.open(site.origin)
    tab.wait(f"document.getElementById('edgeagent-widget') && {ROOT}.querySelector('button')")
    tab.run(f"{ROOT}.querySelector('button').click()")
    tab.wait(f"{ROOT}.querySelectorAll('.bot').length === 1")
    told = tab.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in told
        if not node["ignored"]
    }
    expected = {("dialog", "Skerry Ferries"), ("log", "Messages"), ("textbox", "Your question"),
                ("button", "Send"), ("button", "Close the chat")}  # fmt: skip
    assert expected <= named
    log = f"{ROOT}.querySelector('[role=log]')"
    assert tab.run(f"{log}.getAttribute('aria-live')") == "polite"
    # WCAG AA: text has a contrast of 4.5 to what it is on.
    contrast = f"""(() => {{
        const light = text => {{
            const parts = text.match(/[0-9.]+/g).slice(0, 3).map(one => one / 255)
                .map(one => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        }};
        const ground = one => {{
            for (let at = one; at; at = at.parentElement) {{
                const color = getComputedStyle(at).backgroundColor;
                if (!color.startsWith('rgba(0, 0, 0, 0')) return color;
            }}
            return 'rgb(255, 255, 255)';
        }};
        return [...{ROOT}.querySelectorAll('h2, button, .bot, textarea, .note')].map(one => {{
            const pair = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => b - a);
            return (pair[0] + 0.05) / (pair[1] + 0.05);
        }});
    }})()"""
    assert min(tab.run(contrast)) >= 4.5


@pytest.mark.process
def test_a_page_of_a_foreign_origin_gets_no_answer(site: Site, tab: Tab) -> None:
    tab.open(site.foreign)
    tab.wait(f"document.getElementById('edgeagent-widget') && {ROOT}.querySelector('button')")
    tab.run(f"{ROOT}.querySelector('button').click()")
    tab.wait(f"{ROOT}.querySelectorAll('.error').length === 1")
    assert "cannot be reached" in tab.run(BOT_LINES)[0]
    assert tab.run(f"{ROOT}.querySelectorAll('.bot').length") == 0

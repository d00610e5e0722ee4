"""What a web page can make a browser send, and what `curl -d` sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeagent.api.http.csrf import check_site, is_from_browser, may_be_untyped
from edgeagent.errors import Forbidden
from tests.api.wire import exchange, request
from tests.conftest import TALES_CHAT, DaemonProcess

OWN = b"http://localhost:8484"
FORM = "application/x-www-form-urlencoded"


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", "surprise", ""])
def test_a_change_from_another_site_needs_an_origin_that_is_allowed(site):
    found = headers(sec_fetch_site=site)
    with pytest.raises(Forbidden, match="another site"):
        check_site("POST", found, None)
    check_site("POST", found, OWN)
    check_site("GET", found, None)


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_a_page_of_our_own_may_change_things(site):
    check_site("DELETE", headers(sec_fetch_site=site), None)


def scope(path: str = "/api/chat", client: Any = ("127.0.0.1", 5), **values: str) -> Any:
    return {"path": path, "client": client, "headers": headers(**values)}


@pytest.mark.parametrize(
    ("found", "origin", "wanted"),
    [
        (scope(user_agent="curl/8.5", content_type=FORM), None, True),
        (scope(), None, True), (scope(client=("::1", 5)), None, True),
        (scope(client=("::ffff:127.0.0.1", 5)), None, True),
        (scope(user_agent="python-requests/2.32"), None, True), (scope(path="/api/embed"), None, True),
        (scope(user_agent="Mozilla/5.0", origin="x"), OWN, True),
        # not from here, or not Ollama's
        (scope(client=("192.168.1.5", 5)), None, False), (scope(client=None), None, False),
        (scope(client=("socket", 0)), None, False), (scope(path="/v1/chat/completions"), None, False),
        (scope(path="/v1/messages"), None, False), (scope(path="/apis/chat"), None, False),
        (scope(client=("192.168.1.5", 5)), OWN, False),
        # forms, beacons and images of browsers, old ones too
        (scope(user_agent="Mozilla/5.0 (X11; Linux) Firefox/52.0"), None, False),
        (scope(user_agent=" mozilla/4.0 (compatible; MSIE 8.0)"), None, False),
        (scope(user_agent="Opera/9.80 Presto/2.12"), None, False),
        (scope(user_agent="x", referer="http://evil.example/"), None, False),
        (scope(user_agent="x", cookie="a=b"), None, False),
        (scope(user_agent="x", accept_language="en"), None, False),
        (scope(user_agent="x", sec_fetch_mode="no-cors"), None, False),
        (scope(user_agent="x", sec_ch_ua="x"), None, False),
    ],
)  # fmt: skip
def test_a_body_need_not_say_that_it_is_json_only_where_no_page_can_have_sent_it(
    found, origin, wanted
):
    assert may_be_untyped(found, origin) == wanted


def test_a_name_within_another_is_no_browser():
    assert not is_from_browser(headers(user_agent="curl/8.5 (not Mozilla/5.0)"))


ASK = {
    "model": TALES_CHAT, "stream": False, "options": {"num_predict": 1},
    "messages": [{"role": "user", "content": "hi"}],
}  # fmt: skip


def sent(daemon: DaemonProcess, *lines: str, path: str = "/api/chat") -> int:
    return exchange(daemon.url, request("POST", path, *lines, body=json.dumps(ASK).encode())).status


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"Content-Type: {FORM}", "User-Agent: curl/8.5", "Accept: */*"], 200),
        (["Content-Type: text/plain"], 200), ([], 200),
        ([f"Content-Type: {FORM}", "User-Agent: Mozilla/5.0", "Accept: text/html"], 415),
        (["Content-Type: text/plain", "Origin: http://evil.example"], 403),
        (["Content-Type: text/plain", "Origin: null"], 403),
        (["Content-Type: text/plain", "Sec-Fetch-Site: cross-site"], 403),
        (["Content-Type: application/json", "Sec-Fetch-Site: cross-site"], 403),
        (["Content-Type: application/json", "Sec-Fetch-Site: same-site"], 403),
        (["Content-Type: application/json", "Origin: http://evil.example"], 403),
        (["Content-Type: text/plain", "Origin: http://localhost"], 200),
    ],
)  # fmt: skip
def test_curl_is_answered_and_a_page_is_not(tales_daemon: DaemonProcess, lines, status):
    assert sent(tales_daemon, *lines) == status


def test_elsewhere_json_must_be_said(tales_daemon: DaemonProcess):
    for path in ("/v1/chat/completions", "/v1/messages", "/tokenize"):
        assert sent(tales_daemon, f"Content-Type: {FORM}", path=path) == 415

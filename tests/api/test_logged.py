"""What clients send, in the log and in errors: no forged line, no content, and no folder of the device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.wire import exchange, request
from tests.conftest import DaemonProcess, serving, wait_for

CANARY = "CANARY-patient-name"
FORGED = "2026-11-28 00:00:00,000 WARNING edgeagent.api.http.auth break_glass_used key=key_FORGED"
NASTY = [
    f"x\n{FORGED} {CANARY}",
    f"x\r\n{FORGED} {CANARY}",
    f"\x1b[2J\x1b]0;owned\x07 {CANARY}",
    f"x\u2028{FORGED} {CANARY}",
    f"x\x85{FORGED} {CANARY}",
    f"\u202e\u2066 {CANARY}",
    f"../../etc/{CANARY}",
    CANARY,
]
SAID = [{"role": "user", "content": CANARY}]
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID},
    "/v1/chat/completions/input_tokens": {"messages": SAID},
    "/v1/completions": {"prompt": CANARY},
    "/v1/responses": {"input": CANARY},
    "/v1/responses/input_tokens": {"input": CANARY},
    "/v1/messages": {"max_tokens": 5, "messages": SAID},
    "/v1/messages/count_tokens": {"messages": SAID},
    "/api/chat": {"messages": SAID},
    "/api/generate": {"prompt": CANARY},
    "/api/embed": {"input": CANARY},
    "/api/show": {},
    "/tokenize": {"content": CANARY},
    "/detokenize": {"tokens": [1]},
    "/v1/embeddings": {"input": CANARY},
    "/v1/rerank": {"query": CANARY, "documents": [CANARY]},
}
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+ .*")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    directory: Path = tmp_path_factory.mktemp("logged")
    (directory / "models").mkdir()
    (directory / "models" / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with serving(
        directory / "models",
        directory / "state",
        preload=False,
        request_flush_s=0,
        log_level="debug",
    ) as daemon:
        yield daemon


def test_no_model_name_of_a_client_reaches_the_log_or_the_counts(daemon: DaemonProcess):
    with httpx.Client(base_url=daemon.url) as client:
        for path, body in ASKED.items():
            for name in NASTY:
                reply = client.post(path, json=body | {"model": name})
                assert reply.status_code in (400, 404, 503), (path, reply.text)
        n_asked = 'endpoint="/v1/chat/completions"'.replace('"', "")
        wait_for(lambda: n_asked in daemon.log.read_text())
        counted = client.get("/v1/usage").json()["data"]
    assert {row["model"] for row in counted} <= {"unknown", "broken"}
    assert "model=unknown" in daemon.log.read_text()


def test_no_path_header_or_method_of_a_client_forges_a_line(daemon: DaemonProcess):
    for name in NASTY:
        quoted = "".join(f"%{byte:02x}" for byte in name.encode())
        for data in (
            request("GET", f"/v1/models/{quoted}"),
            request("POST", f"/v1//chat//completions?x={quoted}"),
            request("GET", f"/{quoted}"),
            request("DELETE", f"/v1/responses/{quoted}"),
            request(
                "GET", "/v1/models", f"Authorization: Bearer {CANARY}", f"anthropic-beta: {CANARY}"
            ),
            request("GET", "/v1/models", f"Origin: http://{CANARY}", f"User-Agent: {CANARY}"),
            request("GET", "/v1/models", host=CANARY),
            request("POST", "/v1/completions", f"Content-Type: {CANARY}", body=b"x"),
            request("POST", "/v1/completions", f"Content-Encoding: {CANARY}", body=b"x"),
            request(CANARY, "/v1/models"),
        ):
            assert exchange(daemon.url, data).status < 500


def test_the_log_is_lines_of_ours_and_has_no_content(daemon: DaemonProcess):
    """After the two before it, at the most talkative level."""
    log = daemon.log.read_bytes().decode()
    assert CANARY not in log and "FORGED" not in log and "\x1b" not in log
    wrong = [line for line in log.split("\n") if line and not LINE.fullmatch(line)]
    assert wrong == []


def test_errors_name_no_folder_of_the_device(daemon: DaemonProcess):
    directory = str(daemon.state_dir.parent)
    with httpx.Client(base_url=daemon.url) as client:
        replies = [client.get(path) for path in ("/ready", "/v1/models/absent", "/v1/models")]
        for path, body in ASKED.items():
            replies += [
                client.post(path, json=body | {"model": name}) for name in ("absent", "broken")
            ]
        replies += [client.post(f"/v1/models/broken/{what}") for what in ("load", "unload")]
    assert [reply.text for reply in replies if directory in reply.text] == []
    assert any(reply.status_code == 404 for reply in replies)

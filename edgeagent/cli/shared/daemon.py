"""Connect to the running daemon, or start one for the duration of a command."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import httpx

from edgeagent.errors import BodyTooLarge, EdgeAgentError, PreviousNotFound, StartFailed
from edgeagent.settings import Settings
from edgeagent.settings.environment import client_api_key
from edgeagent.worker.spawn import command, end, environment_of_ours

START_TIMEOUT_S = 120.0


def base_url(settings: Settings) -> str:
    host = f"[{settings.http.host}]" if ":" in settings.http.host else settings.http.host
    return f"http://{host}:{settings.http.port}"


def is_running(url: str) -> bool:
    """Whether an edgeagent daemon answers there. Raises: StartFailed if something else answers."""
    try:
        body = _get(f"{url}/health")
    except (httpx.TransportError, ValueError):
        return False
    if isinstance(body, dict) and "version" in body:
        return True
    raise StartFailed(f"Another program answers at {url}: choose another --port.")


def _get(url: str) -> Any:
    # No proxy: the daemon is on this machine.
    return httpx.get(url, timeout=5, trust_env=False, headers=authorization()).json()


def authorization() -> dict[str, str]:
    """The header with the API key of the environment, if there is one."""
    key = client_api_key()
    return {"Authorization": f"Bearer {key}"} if key is not None else {}


def explained(status: int, message: str) -> str:
    """The daemon's message, with a hint for users of the command line."""
    hint = " Set EDGEAGENT_API_KEY for this command." if status == 401 else ""
    return f"{message}{hint}"


def call(settings: Settings, method: str, path: str) -> dict[str, Any]:
    """The body of the running daemon's answer.

    Raises: StartFailed if no daemon runs; EdgeAgentError with the daemon's message.
    """
    url = base_url(settings)
    try:
        response = httpx.request(
            method, f"{url}{path}", timeout=300, trust_env=False, headers=authorization()
        )
        body = response.json()
    except (httpx.TransportError, ValueError) as exc:
        raise StartFailed(
            f"No daemon answers at {url}: start one with `edgeagent serve`, or give its --port."
        ) from exc
    if response.status_code != 200:
        raise EdgeAgentError(explained(response.status_code, body["error"]["message"]))
    return dict(body)


@contextmanager
def running_daemon(settings: Settings, arguments: list[str]) -> Iterator[str]:
    """The URL of a daemon: the running one, or one started with `arguments` that ends with the block.

    Raises: StartFailed.
    """
    url = base_url(settings)
    if is_running(url):
        # Its model may be loaded with the first message, or differ from the default one.
        yield url
        return
    click.echo("No daemon is running; starting one for this chat ...", err=True)
    process = subprocess.Popen(
        command("edgeagent", "serve", "--log-level", "error", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment_of_ours(),
        start_new_session=True,  # Ctrl-C stops an answer here, not the daemon
    )
    try:
        _wait_until_up(url, process)
        yield url
    finally:
        end(process)


def _wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the daemon answers; a model that is still loading delays only the first answer."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartFailed("The daemon failed to start; its message is above.")
        try:
            body = _get(f"{url}/ready")
        except (httpx.TransportError, ValueError):
            body = {}
        if body.get("status") in ("ready", "loading"):
            return
        if "error" in body:  # it is up; the first question reports that a key is needed
            return
        if body.get("status") == "unavailable":
            raise StartFailed(f"The daemon at {url} cannot answer: {body.get('reason')}")
        time.sleep(0.05)
    raise StartFailed(
        f"The daemon at {url} did not answer within {START_TIMEOUT_S:g} s: see what uses its port."
    )


def refusal_of(status: int, body: bytes) -> EdgeAgentError:
    """The daemon's error answer."""
    code = None
    try:
        error = json.loads(body)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message = f"the daemon answered {status}"
    kind: type[EdgeAgentError] = BodyTooLarge if status == 413 else EdgeAgentError
    if code == PreviousNotFound.code:
        kind = PreviousNotFound
    return kind(explained(status, message))

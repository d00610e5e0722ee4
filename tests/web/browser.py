"""A real browser without a screen, driven through its debugging protocol."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._n_sent = 0
        self._session: str | None = None
        self.said: list[str] = []  # what the page wrote on its console
        self.asked: list[str] = []  # addresses that the page asked for

    def open(self, url: str) -> None:
        """Begin anew at an address, with scripts and network watched."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.said, self.asked = [], []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, its result."""
        got = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in got:
            raise AssertionError(got["exceptionDetails"])
        return got["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression is true."""
        is_true = f"""new Promise((done, fail) => {{
            const end = Date.now() + 30000;
            const look = () => ({expression}) ? done(true)
                : Date.now() > end ? fail(new Error("never")) : setTimeout(look, 20);
            look();
        }})"""
        self.run(is_true)

    def key(self, key: str, text: str = "", code: int = 0) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            own = {"text": text} if text and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **own
            )

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._n_sent += 1
        own = {"sessionId": self._session} if self._session else {}
        self._socket.send(
            json.dumps({"id": self._n_sent, "method": method, "params": params} | own)
        )
        while True:
            got = json.loads(self._socket.recv(timeout=60))
            if got.get("id") == self._n_sent:
                if "error" in got:
                    raise AssertionError(got["error"])
                return dict(got["result"])
            self._note(got)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(one.get("value")) for one in params["args"]))
        elif event.get("method") == "Log.entryAdded":
            self.said.append(params["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a browser with a profile of its own in `folder`."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={folder}",
        "about:blank",
    ]  # fmt: skip
    # Debian's command is a script that waits for the browser: all of them end together.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"ws://\S+", line):
                break
        else:
            raise AssertionError("the browser said no address")
        with connect(found.group(), max_size=None, proxy=None) as socket:
            yield Tab(socket)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()

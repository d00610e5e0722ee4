"""Runs in the container of `service.py`, with the standard library: a line ROW {json} for each check."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

EDGEAGENT = "/opt/edgeagent/bin/edgeagent"
URL = "http://127.0.0.1:8484/v1/chat/completions"
QUESTION = {
    "model": "default",
    "messages": [{"role": "user", "content": "set a timer for 5 minutes"}],
}
BACKUPS = Path("/var/lib/private/edgeagent/store/backups")


def call(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def ask(key: str | None = None) -> int | str:
    """The status of one chat, or the name of what went wrong before there was one."""
    head = {"content-type": "application/json"}
    if key:
        head["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(URL, json.dumps(QUESTION).encode(), head)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(getattr(error, "reason", error)).__name__


def daemon() -> int:
    return int(call("systemctl", "show", "-p", "MainPID", "--value", "edgeagent.service"))


def workers() -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b".worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def row(what: str, n: int, failures: int, note: str = "") -> None:
    print("ROW", json.dumps({"what": what, "n": n, "failures": failures, "note": note}), flush=True)


def begin() -> str:
    """Install, start, make a key; returns the key."""
    begun = time.monotonic()
    call(EDGEAGENT, "service", "install", "--yes")
    n_bad = int(not wait_until(lambda: ask() == 200))  # 503 while the model is being loaded
    row("install, start, first answer", 1, n_bad, f"{time.monotonic() - begun:.1f} s")
    made = call(EDGEAGENT, "service", "run", "--", "keys", "create", "--name", "trial")
    key = next(word for word in made.split() if word.startswith("ea_"))
    n_bad = int(ask() != 401) + int(ask(key) != 200)
    row("without the key refused, with it answered", 2, n_bad)
    call("systemctl", "start", "edgeagent-maintenance.service")
    row("maintenance: audit verified, backup made", 1, int(not list(BACKUPS.glob("*.db"))))
    doctor = call(EDGEAGENT, "service", "run", "--", "doctor", check=False)
    tried = next((line for line in doctor.splitlines() if "tested as" in line), doctor[-300:])
    row("doctor in the sandbox", 1, int("No problems found" not in doctor), " ".join(tried.split()))
    return key


def kill(key: str, n: int) -> None:
    n_bad, longest_s = 0, 0.0
    for _ in range(n):
        os.kill(daemon(), signal.SIGKILL)
        begun = time.monotonic()
        n_bad += ask(key) != 200
        longest_s = max(longest_s, time.monotonic() - begun)
    row("daemon killed: next request answered", n, n_bad, f"longest wait {longest_s:.1f} s")
    n_bad = 0
    for _ in range(n):
        n_bad += not wait_until(workers)
        os.kill(workers()[0], signal.SIGKILL)
        n_bad += ask(key) not in (200, 503)
        n_bad += not wait_until(lambda: ask(key) == 200, 30)
    row("worker killed: 200 or 503, then 200", n, n_bad)


def restart(key: str, n: int) -> None:
    codes: list[int | str] = []
    is_over = threading.Event()

    def client() -> None:
        while not is_over.is_set():
            codes.append(ask(key))

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(n):
        call("systemctl", "restart", "edgeagent.service")
        n_before = codes.count(200)
        wait_until(lambda n=n_before: codes.count(200) >= n + 2)
    is_over.set()
    for thread in threads:
        thread.join()
    others = sorted({str(code) for code in codes if code != 200})
    note = f"{len(codes)} requests, {codes.count(200)} answered, others: {others or 'none'}"
    row("restarts under load: connections refused", n, codes.count("ConnectionRefusedError"), note)


def stand_still(key: str) -> None:
    """The watchdog ends a daemon that is stopped. Its interval is shortened for this."""
    drop_in = Path("/run/systemd/system/edgeagent.service.d/watchdog.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nWatchdogSec=5\n")
    call("systemctl", "daemon-reload")
    call("systemctl", "restart", "edgeagent.service")
    pid = daemon()
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    is_bad = ask(key) != 200 or daemon() == pid
    row(
        "daemon stopped: replaced",
        1,
        int(is_bad),
        f"{time.monotonic() - begun:.1f} s, WatchdogSec=5",
    )


def end() -> None:
    call(EDGEAGENT, "service", "uninstall", "--purge", "--yes")
    left = [str(path) for base in ("/etc", "/var/lib") for path in Path(base).rglob("*edgeagent*")]
    row("uninstall --purge leaves nothing", 1, len(left), " ".join(left)[:200])


def main(n_kills: int, n_restarts: int) -> None:
    key = begin()
    kill(key, n_kills)
    restart(key, n_restarts)
    stand_still(key)
    end()


main(int(sys.argv[1]), int(sys.argv[2]))

"""`edgeagent chat`, one-shot and in a real terminal."""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli.conftest import one_line
from tests.cli.terminal import Terminal
from tests.conftest import DaemonProcess, approve_dropped, serving


def port_of(daemon: DaemonProcess) -> str:
    return daemon.url.rpartition(":")[2]


@pytest.fixture(scope="module")
def free_port() -> int:
    """Below the ports that the kernel gives to clients: none of them takes it before it is used."""
    for port in random.sample(range(20_000, 32_000), 50):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


@contextmanager
def chatting(daemon: DaemonProcess, state_dir: Path) -> Iterator[Terminal]:
    terminal = Terminal(
        [sys.executable, "-m", "edgeagent", "chat", "--port", port_of(daemon), "--temperature", "0",
         "--state-dir", str(state_dir)]
    )  # fmt: skip
    with terminal:
        terminal.wait_for("> ")
        yield terminal


def test_one_message_prints_one_answer_and_its_speed(
    edgeagent_process, tales_daemon: DaemonProcess
):
    done = edgeagent_process(
        "chat", "Count to five.", "--port", port_of(tales_daemon), "--max-tokens", 20
    )
    assert done.returncode == 0
    assert done.stdout.strip()
    assert re.search(r"\[\d+ tokens, [\d.]+ tokens/s, first after \d+ ms", done.stderr)


@pytest.fixture(scope="module")
def assistant(
    shipped_assistant: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """Nothing is installed: all there is comes with edgeagent."""
    empty, state = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("state")
    with serving(empty, state, shipped_models_dir=str(shipped_assistant)) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("message", "domain", "shown", "sure"),
    [
        ("play homework by adele", "skills", 'PlayMusic(album: "homework", artist: "adele")', ""),
        ("set a timer", "assistant", "timer()", ""),
        (
            "why do cats purr",
            "assistant",
            "Out of scope: this asks for none of the 3",
            "below the threshold",
        ),
    ],
    ids=["slots", "no slots", "out of scope"],
)
def test_calls_of_an_assistant_are_readable(edgeagent, assistant, message, domain, shown, sure):
    done = edgeagent("chat", message, "--domain", domain, "--port", port_of(assistant))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(shown)
    assert re.search(rf"\[\w+ [\d.]+% probable, {sure}.*first after \d+ ms", done.stderr)


def test_an_unknown_domain_is_one_line(edgeagent, assistant):
    done = edgeagent("chat", "Hi", "--domain", "kitchen", "--port", port_of(assistant))
    assert "assistant, service, skills" in one_line(done)


def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    edgeagent, tales_daemon: DaemonProcess
):
    proxy = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    done = edgeagent("chat", "Hi", "--port", port_of(tales_daemon), "--max-tokens", 2, env=proxy)
    assert done.returncode == 0, done.stderr


def test_an_error_of_the_daemon_is_one_line(edgeagent, tales_daemon: DaemonProcess):
    done = edgeagent("chat", "Hi", "--port", port_of(tales_daemon), "--model", "nobody")
    assert "nobody" in one_line(done)


def test_a_daemon_that_loads_its_model_late_is_chatted_with(
    edgeagent, tales_dir: Path, tmp_path: Path
):
    with serving(tales_dir, tmp_path, preload=False) as daemon:
        done = edgeagent("chat", "Hi", "--port", port_of(daemon), "--max-tokens", 2)
    assert done.returncode == 0 and done.stdout.strip()


def test_without_a_daemon_one_is_started_and_ended(
    edgeagent_process, tales_dir: Path, tmp_path: Path, free_port
):
    approve_dropped(tales_dir, tmp_path)
    where = ("--port", free_port, "--models-dir", tales_dir, "--state-dir", tmp_path)
    done = edgeagent_process("chat", "Hi", *where, "--max-tokens", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "starting one" in done.stderr
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", free_port)) != 0, "it ended with the chat"


def test_without_a_daemon_and_without_a_model_the_way_out_is_named(
    edgeagent_process, tmp_path: Path, free_port
):
    done = edgeagent_process(
        "chat", "Hi", "--port", free_port, "--models-dir", tmp_path, "--state-dir", tmp_path
    )
    assert done.returncode == 2
    assert "models install" in done.stderr


def test_something_else_on_the_port_is_not_talked_to(edgeagent, tmp_path: Path):
    import http.server
    import threading

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return None

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        done = edgeagent("chat", "Hi", "--port", other.server_address[1], "--state-dir", tmp_path)
        other.shutdown()
        thread.join()
    assert "Another program" in one_line(done)


def test_a_conversation_in_a_terminal(tales_daemon: DaemonProcess, tmp_path: Path):
    with chatting(tales_daemon, tmp_path) as terminal:
        terminal.type("/help\n")
        assert "/clear" in terminal.wait_for("Ctrl-C +stop the answer")
        terminal.wait_for("> ")

        terminal.type("Say hi.\n")
        terminal.wait_for(r"\d+ tokens")
        terminal.wait_for("> ")
        terminal.type("/history\n")
        terminal.wait_for("user: Say hi.")
        terminal.wait_for("assistant: ")
        terminal.wait_for("> ")

        terminal.type("/clear\n")
        terminal.wait_for("> ")
        terminal.type("/history\n")
        assert "Say hi" not in terminal.wait_for("> ").replace("/history", "")

        terminal.type("/nonsense\n")
        terminal.wait_for("Unknown command /nonsense")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.process.wait(timeout=20) == 0
    for path in tmp_path.rglob("*"):  # what people type is written nowhere
        assert not path.is_file() or b"Say hi." not in path.read_bytes(), path


def test_an_answer_to_one_message_that_was_stopped_is_no_success(tales_daemon: DaemonProcess):
    command = [
        sys.executable,
        "-m",
        "edgeagent",
        "chat",
        "Write a very long story.",
        "--port",
        port_of(tales_daemon),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as chat:
        assert chat.stdout is not None and chat.stdout.read(1)
        chat.send_signal(signal.SIGINT)
        assert chat.stdout.read().endswith(b" [stopped]\n")
    assert chat.returncode == 130


def test_ctrl_c_stops_the_answer_and_not_the_program(tales_daemon: DaemonProcess, tmp_path: Path):
    with chatting(tales_daemon, tmp_path) as terminal:
        terminal.type("Write a very long story about a king and his three sons.\n")
        terminal.wait_for(r"sons\.\s+\S+ \S+ \S+")
        terminal.type("\x03")
        terminal.wait_for(r"\[stopped\]")
        terminal.wait_for("> ")
        assert terminal.process.poll() is None
        terminal.type("\x03")
        terminal.wait_for("> ")
        terminal.type("/history\n")
        terminal.wait_for(r"assistant: \S+")
        terminal.wait_for("> ")
        terminal.type(
            "/clear\n"
        )  # a small model goes on with its story when it is asked for something else
        terminal.wait_for("> ")
        terminal.type("Say hi.\n")
        terminal.wait_for(r"tokens/s|\d+ tokens")
        terminal.wait_for("> ")
        terminal.type("/quit\n")
        assert terminal.process.wait(timeout=20) == 0

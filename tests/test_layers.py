"""The floors: imports go down only, and the daemon has no engine in it."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgeagent"

MOST_LINES = 400  # of a file
# Files that are still longer. Split them and take them out; add none.
STILL_LONGER = {
    "catalog/install/installation.py",
    "serving/answer.py",
    "store/keyring.py",
}
# Modules beside the rooms.
LOOSE = {"__init__", "__main__", "durable", "errors"}
MOST_ROOM_IMPORTS = 100

# Each outside library has one home.
HOMES = {
    "llama_cpp": {"engine/llama/bindings.py"},
    "faster_whisper": {"speech/short_encoder.py", "speech/vad.py", "speech/whisper.py"},
    "av": {"speech/audio.py", "speech/pcm.py"},
    "onnxruntime": {"speech/vad.py"},
    "multipart": {"api/http/forms.py"},
    "sqlite_vec": {"store/chunks.py"},
    "pypdf": {"knowledge/formats/pdf.py"},
    "yaml": {"cli/shared/bot_dialogues.py", "forge/domain/readers/yaml_document.py"},
    "hassil": {"forge/domain/readers/home_assistant_reader.py"},
    "markdown_it": {"knowledge/formats/markdown.py"},
    "prometheus_client": {"serving/metrics.py", "serving/gauges.py", "cli/shared/top_figures.py"},
    "textual": {"cli/shared/top_screen.py"},
    "opentelemetry": {"daemon/request_traces.py"},
    "huggingface_hub": {"catalog/install/huggingface.py"},
    "cryptography": {
        "catalog/bundles/signing.py",
        "serving/remembered_answers.py",
        "store/journal.py",
        "store/database_pages.py",
        "store/prefix_files.py",
        "store/recording_files.py",
        "store/store_key.py",
    },
    "argon2": {"store/store_key.py"},
    "sqlcipher3": {"store/connection.py"},
    "sqlite_utils": {"cli/data_copy.py", "cli/shared/read_only_store.py"},
    "tomli_w": {"catalog/toml_text.py"},
    "jinja2": {"engine/prompt/template_process.py"},
    "uvicorn": {"api/http/server.py", "api/http/connection.py", "api/http/websocket.py"},
    "websockets": {"cli/shared/live_transcribers.py"},
    "sounddevice": {"cli/shared/audio_source.py"},
    "h11": {"api/http/connection.py", "api/http/bounded_h11.py"},
    "gguf": {
        "catalog/install/convert.py",
        "forge/adapters/base_model.py",
        "forge/adapters/lora.py",
        "forge/domain/encoder_trunk.py",
        "forge/domain/trunk.py",
        "forge/domain/trunk_file.py",
        "forge/export.py",
        "forge/pretrained_weights.py",
        "forge/sentence/gguf_file.py",
        "optimize/imatrix_file.py",
        "optimize/surgery.py",
    },
    "tokenizers": {
        "forge/tokenizer.py",
        "forge/encoder.py",
        "forge/pretrained_weights.py",
        "forge/sentence/training.py",
    },
    "llguidance": {"engine/structured/grammar.py"},
    "jsonschema_rs": {"optimize/task_scores.py", "engine/structured/answer_checks.py"},
}


def test_import_linter_finds_every_contract_kept():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(lint)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout


def test_no_file_has_outgrown_its_noun():
    longer = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert longer <= STILL_LONGER


def test_few_modules_stand_beside_the_rooms():
    assert {path.stem for path in PACKAGE.glob("*.py")} <= LOOSE


def test_rooms_import_few_others():
    """Counted as pairs of rooms, one of which imports the other."""
    graph = grimp.build_graph("edgeagent", cache_dir=None)

    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else module

    pairs = {
        (room(module), room(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    }
    assert len({pair for pair in pairs if pair[0] != pair[1]}) <= MOST_ROOM_IMPORTS


@cache
def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("library", sorted(HOMES))
def test_each_outside_library_is_imported_in_its_home_only(library):
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if library in imports(path)
    }
    assert users <= HOMES[library]


def test_the_environment_is_read_in_two_places_only():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "os.environ" in path.read_text(encoding="utf-8")
    }
    assert users == {"settings/environment.py", "worker/process_environment.py"}


def test_little_is_imported_before_the_first_worker_starts():
    """It imports its own modules while the daemon imports the rest."""
    program = """
import sys
import edgeagent.cli.main, edgeagent.cli.serve
late = {"pydantic", "asyncio", "numpy", "rich", "edgeagent.settings", "edgeagent.device", "edgeagent.catalog"}
print(late & set(sys.modules) or "")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""


def test_the_modules_of_a_daemon_bring_no_tools_for_terminals_and_tables():
    """`edgeagent data query` imports them in a process of its own: a daemon would keep them for ever."""
    program = """
import sys
import edgeagent.cli.main, edgeagent.cli.serve_daemon, edgeagent.daemon.app
from edgeagent.api.http.litestar_app import Application
Application([])
unwanted = {"sqlite_utils", "click_default_group", "dateutil", "tabulate", "pip", "attr", "pydantic.v1"}
unwanted |= {"httpx", "httpcore", "difflib", "numpy"}
unwanted |= {"edgeagent." + name for name in (
    "api.wyoming.server", "device.microbenchmarks", "serving.upstreams.connection",
    "serving.upstreams.upstream_answer", "routing.upstreams.answer_reader",
)}
print(unwanted & set(sys.modules) or "")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""

"""What llama.cpp writes past its log stays away from standard error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# As in a worker, where AMX tiles are refused (`worker/seccomp.py`), or in a tool that loads a model.
LOAD = """
import sys
from edgeagent.worker import confinement, seccomp
path, is_confined = sys.argv[1], sys.argv[2] == "worker"
confinement.enter(read=[path]) if is_confined else seccomp.refuse_tiles()
from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import EngineConfig
Llama(EngineConfig(path=path, model_id="m", n_ctx=128, n_seq=1, n_threads=1, task="generate")).close()
Llama(EngineConfig(path=path, model_id="m", n_ctx=128, n_seq=1, n_threads=1, task="generate")).close()
print("after", file=sys.stderr)
"""


@pytest.mark.parametrize("process", ["worker", "tool"])
def test_loading_a_model_writes_nothing_to_standard_error(stories: Path, process: str):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(stories), process],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "after\n")

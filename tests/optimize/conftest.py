"""llama.cpp quantizes in the process of the tests, except where the child process is what is tested."""

from __future__ import annotations

import pytest

from edgeagent.errors import EdgeAgentError, ModelUnusable
from edgeagent.optimize import quantize
from edgeagent.optimize.quantize_process import run


@pytest.fixture(autouse=True, scope="module")
def quantized_here():
    """Half a second of a core less for each file."""

    def child(source, target, recipes, importance, n_threads=1, columns=None):
        job = quantize.QuantizeJob(
            str(source), str(target) if target else None, recipes, str(importance) if importance else None,
            n_threads, dict(columns or {}),
        )  # fmt: skip
        try:
            return run(job)
        except EdgeAgentError as exc:
            raise ModelUnusable(exc.message) from exc

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "_child", child)
        yield


@pytest.fixture
def quantized_apart(quantized_here):
    """As in production: in a child process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "_child", CHILD)
        yield


CHILD = quantize._child

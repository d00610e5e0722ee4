"""What a process that runs tests tells the one that counts them.

Each report is written, sent, read and shown, for half a millisecond of a core, and most tests take less than
that. Of a test that passed, its call says everything; how long its fixtures took is told where it matters.
"""

from __future__ import annotations

import pytest
from _pytest.runner import runtestprotocol

LONG_S = 0.05


class WorkerReports:
    """A plugin of the processes that pytest-xdist starts."""

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.when == "call" or not report.passed or report.duration >= LONG_S:
                item.ihook.pytest_runtest_logreport(report=report)
        return True

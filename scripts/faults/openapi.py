"""Schemathesis over the OpenAPI document of a running daemon, for a time. Prints one table.

    scripts/faults/openapi.py [--minutes N] [--seed N]

Requests of every operation in turn, made from the document's schemas, good ones and such that break them.
An answer is bad if it is a 5xx that is not planned (501, 503 and 507 in the shape of an error of ours are),
if an error has another shape than its path has, if its status is not one that the document gives, or if a
body that is JSON is not what the document says. The exit status is 1 if one was, if the daemon ended, if a
worker died, or if the log has an unforeseen error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from rich.console import Console
from rich.table import Table
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.faults.playground import MODEL, Playground, playground
from scripts.faults.shapes import PLANNED, has_shape

BAD = (
    "5xx not planned", "errors of another shape", "statuses not in the document",
    "bodies not as in the document", "without an answer", "daemon exits",
    "workers that died, unforeseen errors",
)  # fmt: skip
EXAMPLES = 12  # of an operation, before it is the next one's turn
TIMEOUT_S = 30


class Survey:
    """The requests of one run; `counts` and `notes` are what it found."""

    def __init__(self, place: Playground, first_seed: int, n_examples: int = EXAMPLES) -> None:
        self._place = place
        self._n_examples = n_examples
        self._seed = first_seed
        schema = schemathesis.openapi.from_dict(place.document)
        self.operations = [found.ok() for found in schema.get_all_operations()]
        self.statuses: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        self._noted: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        """Every operation at least once, and again while the time lasts."""
        deadline = time.monotonic() + seconds
        n_rounds = 0
        while n_rounds == 0 or time.monotonic() < deadline:
            for operation in self.operations:
                if not self._place.is_alive or (n_rounds and time.monotonic() > deadline):
                    break
                self._ask(operation, f"{self._seed}:{n_rounds}")
            n_rounds += 1
            if not self._place.is_alive:
                self.counts["daemon exits"] += 1
                break
        for line in self._place.complaints():
            self.counts[BAD[-1]] += 1
            self.notes.append(f"log: {line}")

    def _ask(self, operation: Any, name: str) -> None:
        @seed(name)
        @settings(
            max_examples=self._n_examples, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def each(case: Any) -> None:
            self._send(operation.label, case)

        each()

    def _send(self, label: str, case: Any) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            # Nobody guesses the name of a model.
            case.body["model"] = MODEL if len(case.body["model"]) % 4 else case.body["model"]
        try:
            answer = case.call(
                base_url=self._place.daemon.url, headers=self._place.headers, timeout=TIMEOUT_S
            )
        except Exception as exc:  # whatever its client makes of a connection that ends
            self.statuses[type(exc).__name__] += 1
            if not self._place.is_well():
                self._note("without an answer", label, case, repr(exc))
            return
        status, body = answer.status_code, answer.content
        self.statuses[str(status)] += 1
        if status >= 500 and (status not in PLANNED or not has_shape(case.path, status, body)):
            self._note("5xx not planned", label, case, f"{status} {body[:300]!r}")
        elif status >= 400 and case.method != "HEAD" and not has_shape(case.path, status, body):
            self._note("errors of another shape", label, case, f"{status} {body[:300]!r}")
        self._compare(label, case, answer)

    def _compare(self, label: str, case: Any, answer: Any) -> None:
        checks = {
            "statuses not in the document": status_code_conformance,
            "bodies not as in the document": response_schema_conformance,
        }
        for what, check in checks.items():
            try:
                case.validate_response(answer, checks=[check])
            except (FailureGroup, Failure) as exc:
                found = exc.exceptions[0] if isinstance(exc, FailureGroup) else exc
                self._note(what, label, case, f"{answer.status_code} {str(found)[:400]}")

    def _note(self, what: str, label: str, case: Any, text: str) -> None:
        self.counts[what] += 1
        self._noted[f"{what} {label}"] += 1
        if self._noted[f"{what} {label}"] <= 2:  # one would do, a second shows what they share
            self.notes.append(f"{what}: {label}: {case.as_curl_command()[:1200]} -> {text}")

    @property
    def is_bad(self) -> bool:
        return any(self.counts[what] for what in BAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    options = parser.parse_args()
    with playground() as place:
        survey = Survey(place, options.seed)
        survey.run(60 * options.minutes)
    table = Table("", box=None, pad_edge=False)
    table.add_column("requests", justify="right")
    table.add_row("operations", str(len(survey.operations)))
    table.add_row("sent", str(sum(survey.statuses.values())))
    for status in sorted(survey.statuses):
        table.add_row(status, str(survey.statuses[status]))
    for what in BAD:
        table.add_row(what, str(survey.counts[what]))
    Console().print(table)
    print(*survey.notes[:60], sep="\n")
    sys.exit(survey.is_bad)


if __name__ == "__main__":
    main()

"""Hundreds of lying GGUF files, through every door that a model has. Prints one table.

    scripts/faults/gguf_mutants.py MODEL.gguf ... [--every N] [--refused-every N] [--scratch DIR]

    header    each mutant is shown to the header reader, which describes or refuses it
    install   each that passes is installed with a trial load in a real worker; one that fails its
              trial must not be registered
    serve     each that passes, and every Nth that does not, is dropped as *.gguf beside a running
              daemon, which is asked to complete a sentence with it; workers may die, the daemon
              must not end

The exit status is 1 if the reader raised anything but a refusal, if a model was registered whose
trial failed, if the daemon ended, did not answer, or gave a status that is not 200, 4xx,
503 or 507 (a model that says it needs more memory than there is).
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeagent.catalog.approvals import Approvals
from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.install.installer import install_file
from edgeagent.catalog.model_library import Library
from edgeagent.cli.shared.trial_load import trial_load
from edgeagent.errors import GGUFRefused, InstallFailed
from tests.catalog.mutants import Parts, lies, take_apart
from tests.conftest import DaemonProcess, serving

COUNTS = (
    "mutants", "header refused", "header passed", "header failed", "tried", "trial good",
    "trial refused", "worker died", "registered although failed", "asked", "answered 200",
    "answered 4xx", "answered 503", "answered 507", "header refused, yet 200", "workers died under it",
    "other answers", "daemon exits",
)  # fmt: skip
BAD = ("header failed", "registered although failed", "other answers", "daemon exits")
SETTINGS = {
    "preload": False,
    "ram_budget_bytes": 300_000_000,
    "n_ctx": 256,
    "n_seq": 1,
    "n_threads": 1,
}
REQUEST_TIMEOUT_S = 120.0


class Run:
    """The mutants of one model; `counts` is its column of the table."""

    def __init__(self, model: Path, scratch: Path, refused_every: int) -> None:
        self.model, self.refused_every = model, refused_every
        self.source = take_apart(model)
        self.dropped = scratch / "dropped"
        self.dropped.mkdir(parents=True)
        self.library = Library(scratch / "installed", scratch / "absent")
        self.state_dir = scratch / "state"
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []

    def run(self, every: int) -> None:
        """Show every mutant to the reader, and every Nth of those that pass to the rest."""
        chosen, approvals = self._choose(every), Approvals(self.state_dir)
        with serving(self.dropped, self.state_dir, **SETTINGS) as daemon:
            for i, (name, lie, has_passed) in enumerate(chosen):
                path = self.dropped / f"m{i:04}.gguf"
                path.write_bytes(lie.encode())
                # As an administrator would: what is shown here is that not even approved ones do harm.
                approvals.approve(path.stem, sha256_of(path), None, "approved")
                if has_passed:
                    self._install(path, name)
                status = self._ask(daemon, path.stem, name)
                if status == 200 and not has_passed:
                    self._note("header refused, yet 200", name)
                path.unlink()
                if daemon.process.poll() is not None:
                    self._note("daemon exits", name)
                    return
            self._answers(daemon)
        self._count_deaths()

    def _choose(self, every: int) -> Iterator[tuple[str, Parts, bool]]:
        path = self.dropped.parent / "mutant.gguf"
        for name, lie in lies(self.source):
            self.counts["mutants"] += 1
            # The reader looks at the header and at the file's size: the data may be a hole.
            with path.open("wb") as file:
                file.write(lie.head())
                file.truncate(file.tell() + len(lie.data))
            try:
                inspect(path)
            except GGUFRefused:
                self.counts["header refused"] += 1
                if self.refused_every and self.counts["header refused"] % self.refused_every == 0:
                    yield name, lie, False
            except Exception as error:
                self._note("header failed", f"{name}: {error!r}")
            else:
                self.counts["header passed"] += 1
                if self.counts["header passed"] % every == 0:
                    yield name, lie, True
        path.unlink()

    def _install(self, path: Path, name: str) -> None:
        self.counts["tried"] += 1
        try:
            install_file(path, self.library, trial=trial_load)
        except InstallFailed as error:
            died = re.search(r"ended \((signal|status) [^)]*\)", error.message)
            self._note("worker died" if died else "trial refused", f"{name}: {error.message}")
            if self.library.installed():
                self._note("registered although failed", name)
        else:
            self.counts["trial good"] += 1
        for model in self.library.installed():
            self.library.remove(model.id)

    def _ask(self, daemon: DaemonProcess, model_id: str, name: str) -> int | None:
        """The status of a completion with that model; None where none came."""
        self.counts["asked"] += 1
        body = {"model": model_id, "prompt": "Once upon", "max_tokens": 4, "temperature": 0}
        try:
            answer = httpx.post(
                f"{daemon.url}/v1/completions", json=body, timeout=REQUEST_TIMEOUT_S
            )
        except httpx.HTTPError as error:
            self._note("other answers", f"{name}: {error!r}")
            return None
        status = answer.status_code
        if status in (200, 503, 507):
            self.counts[f"answered {status}"] += 1
        elif 400 <= status < 500:
            self.counts["answered 4xx"] += 1
        else:
            self._note("other answers", f"{name}: {status} {answer.text[:200]}")
        return status

    def _answers(self, daemon: DaemonProcess) -> None:
        if httpx.get(f"{daemon.url}/health", timeout=30).status_code != 200:
            self._note("other answers", "health")

    def _count_deaths(self) -> None:
        """Workers that ended without a word, as the daemon's log has them."""
        log = (self.state_dir / "daemon.log").read_text(errors="replace")
        for line in re.findall(r"worker_died .*", log):
            self._note("workers died under it", line)

    def _note(self, what: str, text: str) -> None:
        self.counts[what] += 1
        self.notes.append(f"{what}: {text}".encode("unicode_escape").decode()[:300])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.gguf")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="install and serve every Nth mutant that passes (default: all)",
    )
    parser.add_argument(
        "--refused-every",
        type=int,
        default=20,
        metavar="N",
        help="serve every Nth refused mutant too (default: 20; 0: none)",
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="where mutants are written (default: a temporary directory)",
    )
    parser.add_argument("--notes", action="store_true", help="print each failure")
    options = parser.parse_args()
    table = Table("", box=None, pad_edge=False)
    runs = []
    for model in options.models:
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            run = Run(model, Path(scratch), options.refused_every)
            run.run(options.every)
        runs.append(run)
        print(f"{model.name}: {time.monotonic() - started_s:.0f} s", file=sys.stderr)
        table.add_column(model.name, justify="right")
    for what in COUNTS:
        table.add_row(what, *(str(run.counts[what]) for run in runs))
    Console().print(table)
    for run in runs:
        for note in run.notes:
            if options.notes or note.startswith(BAD):
                print(f"{run.model.name}: {note}")
    sys.exit(any(run.counts[what] for run in runs for what in BAD))


if __name__ == "__main__":
    main()

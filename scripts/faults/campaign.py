"""Every threat with its tests and harnesses, run and counted: `scripts/faults/all`.

    scripts/faults/all [--list] [--long] [--rows N ...] [--no-tests] [--no-harnesses] [--results FILE]
                       [--go-on] [--output FILE]

A short run takes a while on two cores, a long one hours. `--results` keeps what was counted in a file; the
table is of all that it holds. With `--go-on`, what it has is not run again: a campaign in pieces, or one that
was ended. Each test file and harness runs once, whatever the number of threats that it is for. Prints a table
of the threats, which `--output` writes as Markdown, and what could not run here. The exit status is 1 if
something failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.faults.threats import HARNESSES, THREATS, Harness, Threat

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 6 * 3600.0


@dataclass(frozen=True)
class Result:
    """Of a test file or a harness; `n` cases of a file, 1 of a harness. `reason`: why it did not run."""

    n: int = 0
    n_failed: int = 0
    took_s: float = 0.0
    reason: str = ""


def missing(needs: Iterable[str]) -> str:
    """What this machine lacks of what a harness needs; empty if nothing."""
    checks: dict[str, Callable[[], object]] = {
        "root": lambda: os.geteuid() == 0,
        "containers": lambda: all(map(shutil.which, ("mmdebstrap", "systemd-nspawn"))),
        "disks": lambda: shutil.which("mkfs.ext4") and Path("/dev/loop-control").exists(),
        "proxies": lambda: all(map(shutil.which, ("caddy", "nginx"))),
        "models": lambda: (ROOT / ".cache" / "models").is_dir(),
    }
    return ", ".join(need for need in needs if not checks[need]())


def run_harness(harness: Harness, *, is_long: bool) -> Result:
    if lacking := missing(harness.needs):
        return Result(reason=f"needs {lacking}")
    arguments = harness.long if is_long else harness.short
    if files := [path for path in arguments if path.endswith(".gguf") and not Path(path).exists()]:
        return Result(reason=f"needs {files[0]}")
    command = [sys.executable, str(ROOT / "scripts" / "faults" / harness.script), *arguments]
    started_s = time.monotonic()
    try:
        status = subprocess.run(command, cwd=ROOT, timeout=LIMIT_S, check=False).returncode
    except subprocess.TimeoutExpired:
        status = 1
    return Result(1, int(status != 0), time.monotonic() - started_s)


def run_tests(files: Sequence[str]) -> dict[str, Result]:
    """The results of test files, by their path below tests/."""
    with tempfile.TemporaryDirectory(prefix="edgeagent-campaign-") as folder:
        report = Path(folder, "report.xml")
        command = [str(ROOT / "scripts" / "test"), "-q", f"--junitxml={report}"]
        command += ["-o", "junit_family=xunit1", *(f"tests/{file}" for file in files)]
        environment = os.environ | {"TEST_ONCE": "1"}
        subprocess.run(command, cwd=ROOT, check=False, env=environment)
        if not report.exists():
            return {file: Result(1, 1) for file in files}
        return read_report(report.read_text(), files)


def read_report(text: str, files: Sequence[str]) -> dict[str, Result]:
    """Counts by file from pytest's XML report. Skipped cases do not count."""
    counts = {file: [0, 0, 0.0] for file in files}
    for case in ElementTree.fromstring(text).iter("testcase"):
        file = (case.get("file") or "").removeprefix("tests/")
        if file not in counts or case.find("skipped") is not None:
            continue
        is_bad = case.find("failure") is not None or case.find("error") is not None
        counts[file][0] += 1
        counts[file][1] += is_bad
        counts[file][2] += float(case.get("time") or 0)
    return {
        file: Result(int(n), int(bad), took) if n else Result(reason="all cases were skipped")
        for file, (n, bad, took) in counts.items()
    }


def table(threats: Sequence[Threat], results: dict[str, Result]) -> list[str]:
    """The lines of a Markdown table; without results only what belongs to each threat."""
    lines = ["| # | threat | tests and harnesses | N | failed |", "|---|---|---|---|---|"]
    for threat in threats:
        names = (*threat.tests, *threat.harnesses)
        done = [results[name] for name in names if name in results]
        shown = [f"`tests/{file}`" for file in threat.tests]
        for name in threat.harnesses:
            reason = results[name].reason if name in results else ""
            shown.append(
                f"`{HARNESSES[name].script}`" + (f" (not run: {reason})" if reason else "")
            )
        n, n_failed = sum(result.n for result in done), sum(result.n_failed for result in done)
        counted = (str(n), str(n_failed)) if done else ("", "")
        told = ", ".join(shown) + (f"; {threat.open}" if threat.open else "")
        lines.append(f"| {threat.number} | {threat.name} | {told} | {counted[0]} | {counted[1]} |")
    return lines


def read_results(path: Path | None) -> dict[str, Result]:
    """What earlier runs have counted."""
    if path is None or not path.exists():
        return {}
    return {name: Result(**fields) for name, fields in json.loads(path.read_text()).items()}


def left(names: Iterable[str], results: dict[str, Result]) -> list[str]:
    """Those that have not run yet, and those that lacked something then."""
    return [name for name in names if name not in results or results[name].reason]


def keep_results(path: Path | None, results: dict[str, Result]) -> None:
    if path is not None:
        path.write_text(json.dumps({name: asdict(result) for name, result in results.items()}))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/faults/all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="show the table, run nothing")
    parser.add_argument("--long", action="store_true", help="the long form of each harness")
    parser.add_argument("--rows", type=int, nargs="+", metavar="N", help="these threats only")
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--no-harnesses", action="store_true")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep what was counted here")
    parser.add_argument(
        "--go-on", action="store_true", help="leave out what FILE of --results has already"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table here, too")
    args = parser.parse_args()
    threats = [threat for threat in THREATS if args.rows is None or threat.number in args.rows]
    results = read_results(args.results)
    if not args.list:
        files = list(dict.fromkeys(file for threat in threats for file in threat.tests))
        names = list(dict.fromkeys(name for threat in threats for name in threat.harnesses))
        if args.go_on:
            files, names = left(files, results), left(names, results)
        if files and not args.no_tests:
            results |= run_tests(files)
            keep_results(args.results, results)
        for name in [] if args.no_harnesses else names:
            print(f"\n=== {name}", flush=True)
            results[name] = run_harness(HARNESSES[name], is_long=args.long)
            keep_results(args.results, results)
        keep_results(args.results, results)
    lines = table(threats, results)
    print("\n" + "\n".join(lines))
    if args.output is not None:
        args.output.write_text("\n".join(lines) + "\n")
    for name, result in results.items():
        if result.reason:
            print(f"not run: {name} ({result.reason})")
    return 1 if any(result.n_failed for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

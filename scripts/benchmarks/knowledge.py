"""`scripts/bench knowledge`: what of a knowledge base is found, how fast, and what answers cite.

Questions and documents are those of two Debian packages, fetched with `apt-get download` and never kept in
the repository: the entries of the FAQs of Python (python3.11-doc, PSF licence) and Debian (debian-faq, GPL)
are documents of their own without their titles, which are the questions. The rest of Python's documentation
lies beside them, until there are as many chunks as wanted.

    recall     the entry of a question is among the first 5 documents found
    declined   Debian's questions asked of a store that has Python's documentation only
    cited      sentences of generated answers that cite a passage, or are marked as unsupported
"""

from __future__ import annotations

import argparse
import html
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from edgeagent.knowledge.document import ChunkSizes, ParserLimits
from edgeagent.knowledge.parsing import parse
from edgeagent.knowledge.sentences import sentence_spans
from edgeagent.knowledge.words import content_words
from scripts.benchmarks import machine
from scripts.benchmarks.served import serving

PACKAGES = ("python3.11-doc", "debian-faq")
RST_TITLE = re.compile(r"^(\S.*)\n([-=])\2{3,}\n", re.MULTILINE)
HTML_TITLE = re.compile(r"<h[2-4][^>]*class=\"title\"[^>]*>(.*?)</h[2-4]>", re.DOTALL)
LEAST_CHARS = 80  # of an entry
ATTACHED_AT_ONCE = 500
METHODS = ("words", "vectors", "hybrid")


@dataclass
class Entry:
    """A question and the document that answers it. `corpus`: python or debian."""

    question: str
    text: str
    corpus: str
    file_id: str = ""


@dataclass
class Found:
    recall: dict[str, float] = field(default_factory=dict)
    p50_ms: dict[str, float] = field(default_factory=dict)
    p95_ms: dict[str, float] = field(default_factory=dict)


def unpacked(cache: Path) -> Path:
    """The directory with the packages' files."""
    root = cache / "root"
    if not (root / "done").exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", *PACKAGES], cwd=cache, check=True)
        for package in cache.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
        (root / "done").touch()
    return root


def entries(root: Path) -> list[Entry]:
    found = []
    for path in sorted((root / "usr/share/doc/python3.11/html/_sources/faq").glob("*.rst.txt")):
        text = path.read_text(encoding="utf-8")
        titles = list(RST_TITLE.finditer(text))
        for n, title in enumerate(titles):
            end = titles[n + 1].start() if n + 1 < len(titles) else len(text)
            found.append(Entry(re.sub(r"[`*]", "", title[1]), text[title.end() : end], "python"))
    for path in sorted((root / "usr/share/doc/debian/FAQ").glob("*.en.html")):
        text = path.read_text(encoding="utf-8")
        titles = list(HTML_TITLE.finditer(text))
        for n, title in enumerate(titles):
            end = (
                titles[n + 1].start()
                if n + 1 < len(titles)
                else text.find('<div class="navfooter"')
            )
            question = re.sub(r"^[\d.\s]+", "", plain(title[1]))
            found.append(Entry(question, plain(text[title.end() : end]), "debian"))
    return [e for e in found if len(e.text.strip()) >= LEAST_CHARS and len(e.question) > 8]


def plain(markup: str) -> str:
    return re.sub(r"[ \t]+", " ", html.unescape(re.sub(r"<[^>]+>", " ", markup))).strip()


def others(root: Path) -> Iterator[tuple[str, bytes]]:
    """The rest of Python's documentation."""
    folder = root / "usr/share/doc/python3.11/html/_sources"
    for path in sorted(folder.rglob("*.rst.txt")):
        if "faq" not in path.parts:
            yield str(path.relative_to(folder)), path.read_bytes()


def n_chunks(name: str, data: bytes) -> int:
    return len(parse(name, data, ChunkSizes(), ParserLimits()))


class Client:
    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=600)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        reply = self.http.post(path, json=body)
        if reply.status_code != 200:
            raise SystemExit(f"{path}: {reply.text}")
        return reply.json()

    def upload(self, name: str, data: bytes) -> str:
        reply = self.http.post(
            "/v1/files", data={"purpose": "assistants"}, files={"file": (name, data)}
        )
        return str(reply.json()["id"])

    def store(self, name: str, files: list[str]) -> tuple[str, float]:
        """A store and the seconds until it was indexed."""
        store = self.post("/v1/vector_stores", {"name": name})["id"]
        started = time.perf_counter()
        for at in range(0, len(files), ATTACHED_AT_ONCE):
            batch = {"file_ids": files[at : at + ATTACHED_AT_ONCE]}
            self.post(f"/v1/vector_stores/{store}/file_batches", batch)
        self.wait(store)
        return store, time.perf_counter() - started

    def wait(self, store: str) -> None:
        """Until a store is indexed."""
        while (row := self.http.get(f"/v1/vector_stores/{store}").json())["status"] != "completed":
            time.sleep(0.25)
        if row["file_counts"]["failed"]:
            raise SystemExit(f"{row['file_counts']['failed']} documents were not indexed")

    def search(self, store: str, question: str, **more: Any) -> list[dict[str, Any]]:
        body = {"query": question, "max_num_results": 10, **more}
        return list(self.post(f"/v1/vector_stores/{store}/search", body)["data"])


def recall(client: Client, store: str, asked: list[Entry], *, is_reranked: bool) -> Found:
    found = Found()
    kinds: list[tuple[str, dict[str, Any]]] = [
        (method, {"search_method": method, "ranking_options": {"ranker": "none"}})
        for method in METHODS
    ]
    if is_reranked:
        kinds.append(("hybrid, reranked", {}))
    for name, options in kinds:
        client.search(store, asked[0].question, **options)
        n_found, times = 0, []
        for entry in asked:
            started = time.perf_counter()
            rows = client.search(store, entry.question, **options)
            times.append(1e3 * (time.perf_counter() - started))
            first = list(dict.fromkeys(row["file_id"] for row in rows))[:5]
            n_found += entry.file_id in first
        found.recall[name] = n_found / len(asked)
        found.p50_ms[name] = statistics.median(times)
        found.p95_ms[name] = statistics.quantiles(times, n=20)[-1]
    return found


def evidence(client: Client, store: str, asked: list[Entry]) -> list[float]:
    """The evidence of the best passage for each question."""
    found = []
    for entry in asked:
        rows = client.search(store, entry.question, ranking_options={"ranker": "none"})
        found.append(max((row["score"] for row in rows), default=0.0))
    return sorted(found)


def answers(client: Client, store: str, asked: list[Entry], model: str) -> dict[str, Any]:
    """Each sentence of an answer cites a passage that has its words, or is marked."""
    n_cited = n_marked = n_wrong = n_neither = n_declined = 0
    for entry in asked:
        body = {
            "model": model, "input": entry.question, "max_output_tokens": 80, "temperature": 0,
            "store": False, "include": ["file_search_call.results"],
            "tools": [{"type": "file_search", "vector_store_ids": [store], "max_num_results": 4}],
        }  # fmt: skip
        got = client.post("/v1/responses", body)
        told = got["edgeagent"]["knowledge"]
        if told["basis"] == "nothing":
            n_declined += 1
            continue
        part = got["output"][-1]["content"][0]
        texts: dict[str, str] = {}
        for row in got["output"][0]["results"]:
            texts[row["file_id"]] = f"{texts.get(row['file_id'], '')}\n{row['text']}"
        ends = {note["index"]: note["file_id"] for note in part["annotations"]}
        marked = {span["end"] for span in told["unsupported"]}
        for span in sentence_spans(part["text"]):
            words = content_words(re.sub(r"\[\d+\]", "", part["text"][span.start : span.end]))
            if span.end in ends:
                held = content_words(texts[ends[span.end]])
                n_cited += 1
                n_wrong += 2 * len(words & held) < len(words)
            elif span.end in marked:
                n_marked += 1
            elif words:
                n_neither += 1
    return {
        "answers": len(asked) - n_declined, "declined": n_declined, "sentences cited": n_cited,
        "sentences marked": n_marked, "cited without the words": n_wrong, "neither": n_neither,
    }  # fmt: skip


def measure(args: argparse.Namespace) -> dict[str, Any]:
    root = unpacked(args.cache)
    asked = entries(root)
    settings: dict[str, Any] = {"preload": False, "n_threads": args.threads}
    if args.embedding_model is not None:
        settings["knowledge.embedding_model"] = args.embedding_model
    settings["engine.int8_encoders"] = args.int8_encoders
    if args.rerank:
        settings["knowledge.judge_model"] = ""  # so that edge-judge may rank, too
    with serving(args.models_dir, **settings) as daemon:
        process = psutil.Process(daemon.process.pid)
        before_mb = process.memory_info().rss / 1e6
        client = Client(daemon.url)
        total, n_bytes = 0, 0
        for n, entry in enumerate(asked):
            data = entry.text.encode()
            entry.file_id = client.upload(f"{entry.corpus}-{n}.txt", data)
            total += n_chunks("a.txt", data)
            n_bytes += len(data)
        files = [entry.file_id for entry in asked]
        python = [entry.file_id for entry in asked if entry.corpus == "python"]
        for name, data in others(root):
            if total >= args.chunks:
                break
            one = client.upload(name, data)
            files.append(one)
            python.append(one)
            total += n_chunks(name, data)
            n_bytes += len(data)
        note(f"{len(files)} documents are stored, {total} chunks are expected")
        store, took_s = client.store("all", files)
        note(f"indexed in {took_s:.0f} s")
        found = recall(client, store, asked, is_reranked=args.rerank)
        note(f"recall@5: {found.recall}; p95 ms: {found.p95_ms}")
        after_mb = process.memory_info().rss / 1e6
        result: dict[str, Any] = {
            "questions": len(asked), "documents": len(files), "megabytes": round(n_bytes / 1e6, 2),
            "chunks": total, "chunks/s": round(total / took_s, 1), "daemon MB before": round(before_mb, 1),
            "daemon MB after": round(after_mb, 1), "recall@5": found.recall, "p50 ms": found.p50_ms,
            "p95 ms": found.p95_ms,
        }  # fmt: skip
        if args.unanswerable:
            debian = [entry for entry in asked if entry.corpus == "debian"]
            mine = [entry for entry in asked if entry.corpus == "python"]
            small, _ = client.store("python", python[: args.unanswerable])
            both = evidence(client, small, mine), evidence(client, small, debian)
            result["evidence of answerable, others"] = [quantiles(values) for values in both]
            for least in (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6):
                shares = [sum(value < least for value in values) / len(values) for values in both]
                result[f"declined at {least}"] = [round(share, 3) for share in shares]
        if args.answers:
            result["answers"] = answers(client, store, asked[: args.answers], args.model)
        return result


def note(text: str) -> None:
    """For whoever waits."""
    print(text, file=sys.stderr, flush=True)


def quantiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=20)
    return {"p5": round(cuts[0], 3), "p50": round(cuts[9], 3), "p95": round(cuts[-1], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench knowledge", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/knowledge"))
    parser.add_argument("--chunks", type=int, default=10_000, help="at least so many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--embedding-model", help="default: the installed one")
    parser.add_argument("--int8-encoders", choices=("auto", "on", "off"), default="auto")
    parser.add_argument(
        "--rerank", action="store_true", help="also by the rank model of --models-dir"
    )
    parser.add_argument("--unanswerable", type=int, default=250, metavar="DOCUMENTS",
                        help="documents of the store without the answers; 0: leave this out")  # fmt: skip
    parser.add_argument("--answers", type=int, default=0, help="questions that a model answers")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = {"machine": machine.describe()} | measure(args)
    if args.json:
        print(json.dumps(result))
        return
    table = Table("figure", "value")
    for name, value in result.items():
        shown = json.dumps(value) if isinstance(value, dict | list) else str(value)
        table.add_row(name, shown)
    Console().print(table)


if __name__ == "__main__":
    main()

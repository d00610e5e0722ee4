"""`scripts/bench bot-answers`: what is answered from documents, what is declined, and what answers cite.

Three sets, each in a store of its own: the example bot's documents with the questions of
`ferry_questions.toml`, and the FAQs of `scripts/bench knowledge`.

    answerable   the documents have the answer
    missing      same subject, and no document has it (of a FAQ: asked of a store without its entry)
    foreign      asked of a store about something else
    uncertain    answers of quotes that begin by saying that they may not answer the question
    cited        sentences that cite a passage which has their content words and numbers, or are marked
"""

from __future__ import annotations

import argparse
import json
import re
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edgeagent.cli.bot import EXAMPLE
from edgeagent.knowledge.citations import LEAST, bare
from edgeagent.knowledge.sentences import sentence_spans
from edgeagent.knowledge.words import content_words
from edgeagent.settings.knowledge import KnowledgeSettings
from scripts.benchmarks import machine
from scripts.benchmarks.knowledge import Client, Entry, entries, note, unpacked
from scripts.benchmarks.served import serving

QUESTIONS = Path(__file__).parent / "ferry_questions.toml"
JUDGED = (0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85)
THRESHOLDS = (0.0, 0.5, 0.55, 0.58, 0.61, 0.65, 0.7, 0.75, 0.8)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass
class Case:
    """A question to a store; what a right answer cites and has, where that is known."""

    kind: str
    store: str
    question: str
    cites: str | None = None
    has: str | None = None
    besides: int | None = None  # the entry that is left out


def cases(client: Client, args: argparse.Namespace) -> list[Case]:
    asked = tomllib.loads(QUESTIONS.read_text(encoding="utf-8"))
    known = {row["name"]: row["id"] for row in client.http.get("/v1/vector_stores").json()["data"]}
    for store in known.values():
        client.wait(store)
    if (ferry := known.get("ferry")) is None:
        docs = sorted(EXAMPLE.glob("docs/**/*.md"))
        ferry, _ = client.store("ferry", [client.upload(p.name, p.read_bytes()) for p in docs])
    found = [Case("answerable", ferry, q, cites, has) for q, cites, has in asked["answerable"]]
    found += [Case("missing", ferry, q) for q in asked["missing"]]
    if args.faq:
        faq = entries(unpacked(args.cache))[:: args.every]
        stores = {}
        for corpus in ("python", "debian"):
            name = f"{corpus}, each {args.every}"
            stores[corpus] = known.get(name) or faq_store(client, name, corpus, faq)
        for n, entry in enumerate(faq):
            cites = f"{entry.corpus}-{n}.txt"
            found.append(Case("FAQ, answerable", stores[entry.corpus], entry.question, cites))
            found.append(Case("FAQ, missing", stores[entry.corpus], entry.question, besides=n))
            found.append(Case("FAQ, foreign", ferry, entry.question))
    return found[: args.limit] if args.limit else found


def faq_store(client: Client, name: str, corpus: str, faq: list[Entry]) -> str:
    """A store of one FAQ; each document has the number of its entry."""
    files = []
    for n, entry in enumerate(faq):
        if entry.corpus == corpus:
            document = client.upload(f"{corpus}-{n}.txt", entry.text.encode())
            files.append({"file_id": document, "attributes": {"entry": n}})
    store, _ = client.store(name, [])
    client.post(f"/v1/vector_stores/{store}/file_batches", {"files": files})
    client.wait(store)
    return store


def answered(client: Client, case: Case, args: argparse.Namespace) -> dict[str, Any]:
    body = {
        "model": args.model, "input": case.question, "max_output_tokens": 80, "temperature": 0,
        "store": False, "include": ["file_search_call.results"],
        "tools": [
            {
                "type": "file_search", "vector_store_ids": [case.store], "max_num_results": 4,
                "answers": args.answers,
                "sure_evidence": args.sure,
                "sure_answerability": args.sure,
                "least_answerability": args.least_answerability,
                "filters": None
                if case.besides is None
                else {"type": "ne", "key": "entry", "value": case.besides},
            }
        ],
    }  # fmt: skip
    return dict(client.post("/v1/responses", body))


def is_certain(told: dict[str, Any], least: float | None) -> bool:
    """Whether an answer does not say that it may be none; `least` None: as the settings say. Quotes are
    judged anew, since they may be kept."""
    usual = KnowledgeSettings()
    if (said := told.get("answerability")) is not None:
        return bool(said >= (usual.sure_answerability if least is None else least))
    evidence = told.get("quote_evidence", 1.0)
    return bool(evidence >= (usual.sure_evidence if least is None else least))


def count(got: dict[str, Any], case: Case, n: Counter[str], least: float | None) -> None:
    told = got["edgeagent"]["knowledge"]
    n["questions"] += 1
    if told["basis"] == "nothing":
        n["declined"] += 1
        return
    part = got["output"][-1]["content"][0]
    n["answers"] += 1
    notes = part["annotations"]
    is_sure = is_certain(told, least)
    n["told as uncertain"] += not is_sure
    if case.cites is not None:
        is_right = case.cites in [one["filename"] for one in notes]
        n["right document cited"] += is_right
        n["right document cited, certain"] += is_right and is_sure
    if case.has is not None:
        is_right = case.has.casefold() in part["text"].casefold()
        n["right text told"] += is_right
        n["right text told, certain"] += is_right and is_sure
    texts: dict[str, str] = defaultdict(str)
    for row in got["output"][0]["results"]:
        texts[row["file_id"]] += f"\n{row['text']}"
    ends = {one["index"]: one["file_id"] for one in notes}
    marked = {span["end"] for span in told["unsupported"]}
    for span in sentence_spans(part["text"]):
        if span.end <= told["n_preface"]:
            continue
        sentence = bare(part["text"][span.start : span.end])
        words = content_words(sentence)
        if not words:
            continue
        n["sentences"] += 1
        if span.end in ends:
            passage = texts[ends[span.end]]
            held = sum(min(len(w), 8) for w in words & content_words(passage))
            total = sum(min(len(w), 8) for w in words)
            is_held = held >= LEAST * total and {*_NUMBER.findall(sentence)} <= {
                *_NUMBER.findall(passage)
            }
            n["cited"] += 1
            n["cited without the words"] += not is_held
        elif span.end in marked:
            n["marked"] += 1
        else:
            n["neither cited nor marked"] += 1


def answers_of(path: Path | None) -> dict[tuple[str, str], dict[str, Any]]:
    """Kept answers by the kind and the text of their questions."""
    if path is None or not path.is_file():
        return {}
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(row["kind"], row["question"]): row["answer"] for row in rows}


def keep(path: Path | None, case: Case, got: dict[str, Any]) -> None:
    if path is not None:
        row = {"kind": case.kind, "question": case.question, "answer": got}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def by_threshold(all_told: dict[str, list[dict[str, Any]]]) -> Table:
    """The shares that are declined or told as uncertain, of every second question of a FAQ apart."""
    parts = dict(all_told)
    for kind in [kind for kind in parts if kind.startswith("FAQ")]:
        told = parts.pop(kind)
        if kind.endswith("foreign"):
            continue
        parts |= {f"{kind}, half {n + 1}": told[n::2] for n in (0, 1)}
    table = Table("declined or uncertain below", *parts)
    for least in THRESHOLDS:
        shares = [
            sum(t["basis"] == "nothing" or not is_certain(t, least) for t in told) / len(told)
            for told in parts.values()
        ]
        table.add_row(f"{least:g}", *(f"{share:.0%}" for share in shares))
    return table


def by_judge(all_told: dict[str, list[dict[str, Any]]], thresholds: Sequence[float]) -> Table:
    """The shares that a judge declines below each threshold."""
    table = Table("declined below", *all_told)
    for least in thresholds:
        shares = [
            sum(t.get("answerability", 0) < least for t in told) for told in all_told.values()
        ]
        counts = map(len, all_told.values())
        table.add_row(f"{least:g}", *(f"{n / k:.0%}" for n, k in zip(shares, counts, strict=True)))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench bot-answers", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/knowledge"))
    parser.add_argument("--answers", choices=["quotes", "model"], default="quotes")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--faq", action="store_true", help="with the two FAQs")
    parser.add_argument(
        "--sure", type=float, help="below it quotes are uncertain; default: as the settings say"
    )
    parser.add_argument(
        "--least-answerability", type=float, help="default: as the settings say; 0: ask no judge"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth entry of them")
    parser.add_argument(
        "--kind", help="only questions whose kind has this word, such as answerable"
    )
    parser.add_argument("--limit", type=int, default=0, help="questions; 0: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--kept", type=Path, help="file of answers, JSON lines; those in it are not asked again"
    )
    parser.add_argument("--state", type=Path, help="folder that keeps the indexed documents")
    parser.add_argument("--shown", action="store_true", help="print what went wrong")
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    all_told: dict[str, list[dict[str, Any]]] = defaultdict(list)
    kept = answers_of(args.kept)
    started = time.monotonic()
    own: dict[str, Any] = {"preload": False, "n_threads": args.threads}
    if args.state is not None:
        args.state.mkdir(parents=True, exist_ok=True)
        key = args.state.with_name(f"{args.state.name}.key")
        own |= {"state_dir": str(args.state), "store_key_file": str(key)}
    with serving(args.models_dir, **own) as daemon:
        client = Client(daemon.url)
        found = [one for one in cases(client, args) if args.kind is None or args.kind in one.kind]
        note(f"indexed in {time.monotonic() - started:.0f} s")
        for case in found:
            got = kept.get((case.kind, case.question))
            if got is None:
                got = answered(client, case, args)
                keep(args.kept, case, got)
            count(got, case, counts[case.kind], args.sure)
            all_told[case.kind].append(got["edgeagent"]["knowledge"])
            text = got["output"][-1]["content"][0]["text"]
            is_declined = got["edgeagent"]["knowledge"]["basis"] == "nothing"
            is_wrong = is_declined == case.kind.endswith("answerable") or (
                case.has is not None and case.has.casefold() not in text.casefold()
            )
            if args.shown and is_wrong:
                note(json.dumps([case.kind, case.question, case.has, text[:160]]))
    names = list(dict.fromkeys(name for one in counts.values() for name in one))
    table = Table("", *counts, title=f"{machine.describe()}, answers: {args.answers}")
    for name in names:
        table.add_row(name, *(str(one[name]) for one in counts.values()))
    Console().print(table)
    if args.answers == "quotes":
        Console(width=120).print(by_threshold(all_told))
    if any("answerability" in told for rows in all_told.values() for told in rows):
        usual_least = KnowledgeSettings().least_answerability
        thresholds = sorted({*JUDGED, usual_least, args.least_answerability or usual_least})
        Console(width=120).print(by_judge(all_told, thresholds))


if __name__ == "__main__":
    main()

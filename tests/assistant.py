"""A small assistant of our own: seven intents in three domains, trained in seconds on made-up texts.

`python -m tests.assistant FOLDER` makes one: what asks it needs no torch.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from pathlib import Path

import torch

from edgeagent.forge.assistant_task import AssistantTask, LossWeights
from edgeagent.forge.augment import Augmenter
from edgeagent.forge.datasets import OUT_OF_SCOPE, Corpus, Domain, Item, Slot
from edgeagent.forge.decoder import Decoder, DecoderShape
from edgeagent.forge.distillation import TrainingPool
from edgeagent.forge.evaluate import evaluate
from edgeagent.forge.export import ModelInfo, write_gguf, write_tools
from edgeagent.forge.model_record import write_record
from edgeagent.forge.tokenizer import AssistantTokenizer, first_values
from edgeagent.forge.trainer import Trainer, TrainingPlan

MODEL = "edge-assistant-s"
NAMES: dict[Domain, tuple[str, ...]] = {
    "assistant": ("timer", "translate", "weather"),
    "service": ("card_arrival", "lost_or_stolen_card"),
    "skills": ("GetWeather", "PlayMusic"),
}
SLOTS = {"GetWeather": ("city",), "PlayMusic": ("album", "artist")}
POLITE = ("{}", "please {}", "{} now", "can you {}", "{} please", "hey {}", "i want to {}")
TEXTS: dict[tuple[Domain, str], tuple[str, ...]] = {
    ("assistant", "timer"): ("set a timer", "start a timer", "set a timer for ten minutes"),
    ("assistant", "translate"): (
        "translate this",
        "translate hello to french",
        "say it in spanish",
    ),
    ("assistant", "weather"): ("is it raining", "tell me the weather", "what is the weather like"),
    ("assistant", OUT_OF_SCOPE): ("name the tallest king", "why do cats purr", "solve this riddle"),
    ("service", "card_arrival"): (
        "where is my card",
        "when does my card arrive",
        "track my new card",
    ),
    ("service", "lost_or_stolen_card"): ("i lost my card", "my card was stolen", "my card is gone"),
    ("service", OUT_OF_SCOPE): ("why do cats purr", "name the tallest king", "bake me a pie"),
    ("skills", OUT_OF_SCOPE): ("why do cats purr", "bake me a pie", "solve this riddle"),
}
CITIES = ("rome", "paris", "oslo", "new york", "lima", "cape town")
ARTISTS = ("miles davis", "nina simone", "bach", "daft punk", "adele")
ALBUMS = ("kind of blue", "homework", "thirty", "little girl blue")


def items() -> tuple[Item, ...]:
    plain = [
        Item(form.format(text), domain, intent)
        for (domain, intent), texts in TEXTS.items()
        for text, form in itertools.product(texts, POLITE)
    ]
    asked = [
        _with_slots("GetWeather", form.format("show the weather in {city}"), city=city)
        for city, form in itertools.product(CITIES, POLITE)
    ]
    played = [
        _with_slots(
            "PlayMusic", form.format("play {album} by {artist}"), album=album, artist=artist
        )
        for album, artist, form in itertools.product(ALBUMS, ARTISTS, POLITE[:3])
    ]
    single = [
        _with_slots("PlayMusic", form.format("play {artist}"), artist=artist)
        for artist, form in itertools.product(ARTISTS, POLITE)
    ]
    bare = [Item(form.format("play some music"), "skills", "PlayMusic") for form in POLITE]
    return (*plain, *asked, *played, *single, *bare)


def _with_slots(intent: str, text: str, **values: str) -> Item:
    said = text.format(**values)
    slots = (Slot(n, v, said.index(v), said.index(v) + len(v)) for n, v in values.items())
    return Item(said, "skills", intent, tuple(slots))


def corpus() -> Corpus:
    found = items()
    return Corpus(found, found[::7], NAMES, SLOTS)


def make(folder: Path, *, n_epochs: int = 26) -> None:
    """Train the assistant and ship it in `folder`, with a threshold for one domain, in two sizes that are
    one: what differs is what the record says."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    learnt = corpus()
    vocabulary = AssistantTokenizer.train(learnt, 512)
    shape = DecoderShape(
        vocabulary.n_tokens, n_embd=48, n_layers=2, n_head=4, n_head_kv=2, n_ff=96, n_ctx=96
    )
    decoder = Decoder(shape)
    pool = TrainingPool(learnt.train, Augmenter(learnt.train, seed=1), 1)
    task = AssistantTask(
        decoder, vocabulary, learnt, pool, weights=LossWeights(slots=1.0), batch_tokens=512, seed=1
    )
    plan = TrainingPlan(
        epochs=n_epochs, learning_rate=6e-3, precision="f32", evaluate_every=n_epochs
    )
    with tempfile.TemporaryDirectory() as scratch:
        Trainer(decoder, task, plan, Path(scratch), is_quiet=True).run()
    path = folder / MODEL / f"{MODEL}.Q8_0.gguf"
    write_gguf(decoder.eval(), vocabulary, ModelInfo(MODEL, "A test"), path)
    vocabulary.write(folder / "vocabulary.json")
    write_tools(learnt, folder / "edge-assistant.json")
    write_record(path, "Q8_0", {"assistant": 0.6})
    _write_figures(path, learnt, vocabulary)


def _write_figures(path: Path, learnt: Corpus, vocabulary: AssistantTokenizer) -> None:
    """What is kept back, and what the forge says of it."""
    figures = evaluate(path, vocabulary, learnt).as_dict()
    (path.parent / "figures.json").write_text(json.dumps(figures))
    lines = [
        json.dumps({
            "text": item.text, "domain": item.domain, "intent": item.intent,
            "slots": dict(first_values(item)),
        })
        for item in learnt.validation
    ]  # fmt: skip
    (path.parent / "items.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))

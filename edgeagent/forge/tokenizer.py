"""The assistants' tokenizer: a byte-level BPE, and one token for each part of a call.

    <|user|> TEXT <|assistant|> {"name":"GetWeather","arguments":{ "city":" Rome "}} <|end|>

An intent is one token that contains the whole beginning of its call, so that choosing among them is one
softmax at one position. The texts are ordinary JSON in the compact form of constrained calls (`JSON_STYLE`
in `engine/structured/constraint.py`), which can be read without knowing the tokens.

The only module that uses the `tokenizers` library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import Corpus, Item
from edgeagent.types.intents import LAST_SLOT, NO_SLOTS, call_texts, intent_text, slot_text

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
CONTROL = (USER, ASSISTANT, END)


@dataclass(frozen=True)
class AssistantTokenizer:
    """Text to token ids and back. `intents` are in the order of the classes, out-of-scope last.

    Ids: control tokens, intents (contiguous, from `n_control` on), slots, then the BPE's tokens.
    """

    bpe: Tokenizer = field(repr=False)
    intents: tuple[str, ...]
    slot_names: dict[str, tuple[str, ...]]

    @classmethod
    def train(cls, corpus: Corpus, n_tokens: int) -> AssistantTokenizer:
        """Learn merges from the training texts until there are `n_tokens` tokens in all.

        Source: Sennrich et al. 2016, arXiv:1508.07909; bytes as in GPT-2.
        """
        calls = call_texts(corpus.all_names, corpus.slot_names)
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=n_tokens,
            min_frequency=2,
            special_tokens=[*CONTROL, *calls],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_texts(corpus.train), trainer)
        return cls(tokenizer, corpus.all_names, corpus.slot_names)

    @classmethod
    def read(cls, path: Path) -> AssistantTokenizer:
        """Raises: ForgeFailed."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                Tokenizer.from_str(json.dumps(stored["bpe"])),
                tuple(stored["intents"]),
                {name: tuple(slots) for name, slots in stored["slot_names"].items()},
            )
        except (OSError, ValueError, KeyError) as exc:
            raise ForgeFailed(f"{path} is not a tokenizer file ({exc}): train it again.") from exc

    def write(self, path: Path) -> None:
        body = {
            "intents": self.intents,
            "slot_names": self.slot_names,
            "bpe": json.loads(self.bpe.to_str()),
        }
        path.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")

    @property
    def n_tokens(self) -> int:
        return int(self.bpe.get_vocab_size())

    @property
    def first_intent(self) -> int:
        """The token id of class 0."""
        return len(CONTROL)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return dict(self.bpe.get_vocab())

    def id_of(self, token: str) -> int:
        return self._ids[token]

    @cached_property
    def special(self) -> tuple[str, ...]:
        """Control and call tokens, by id."""
        return (*CONTROL, *call_texts(self.intents, self.slot_names))

    def text_ids(self, text: str) -> list[int]:
        """The ids of ordinary text; a call that is spelled out in it stays ordinary text."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _plain(self) -> Tokenizer:
        """The BPE without the special tokens, so that no text can contain one."""
        stored = json.loads(self.bpe.to_str())
        stored["added_tokens"] = []
        return Tokenizer.from_str(json.dumps(stored))

    def prompt_ids(self, text: str) -> list[int]:
        return [self.id_of(USER), *self.text_ids(text), self.id_of(ASSISTANT)]

    def answer_ids(self, item: Item) -> list[int]:
        """The call of the item, and the end token."""
        return [self._ids[token] if is_special else i
                for token, is_special, i in self._answer(item)]  # fmt: skip

    def _answer(self, item: Item) -> list[tuple[str, bool, int]]:
        pieces: list[tuple[str, bool, int]] = [
            (intent_text(item.intent, item.intent in self.slot_names), True, 0)
        ]
        if item.intent in self.slot_names:
            for n, (name, value) in enumerate(first_values(item)):
                pieces.append((slot_text(name, is_first=n == 0), True, 0))
                escaped = json.dumps(value, ensure_ascii=False)[1:-1]
                pieces += [("", False, i) for i in self.text_ids(escaped)]
            pieces.append((LAST_SLOT if item.slots else NO_SLOTS, True, 0))
        pieces.append((END, True, 0))
        return pieces

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens, including calls."""
        return str(self.bpe.decode(list(ids), skip_special_tokens=False))

    def pieces(self) -> tuple[list[str], list[str]]:
        """For a GGUF file: the tokens by id in GPT-2's spelling of bytes, and the merges by rank."""
        model: dict[str, Any] = json.loads(self.bpe.to_str())["model"]
        by_id = sorted(model["vocab"].items(), key=lambda pair: pair[1])
        merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        return [token for token, _ in by_id], merges


def first_values(item: Item) -> list[tuple[str, str]]:
    """The slots as in a call, in the order of the text; of a repeated name, the first."""
    found: dict[str, str] = {}
    for slot in item.slots:
        found.setdefault(slot.name, slot.value)
    return list(found.items())


def _texts(items: Iterable[Item]) -> Iterable[str]:
    for item in items:
        yield item.text
        for slot in item.slots:
            yield slot.value

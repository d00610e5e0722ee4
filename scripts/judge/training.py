"""A cross-encoder that tells whether a passage answers a question: all-MiniLM-L6-v2 on both texts together.

The word vectors stay as they are; the layers and a head on the first token's state learn. Beside it, while it
learns, each token tells whether it begins or ends the answer, the first token standing for "none": so the
layers learn where an answer would be. Steps can be made in parts: a file keeps the state.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeagent.forge.encoder import Encoder
from edgeagent.forge.matmul_precision import autocast, bf16_is_faster
from edgeagent.serving.knowledge.judge import N_TOKENS
from scripts.judge.pairs import Pair

BATCH = 24
GROUP = 24 * 32  # pairs whose batches have texts of like lengths
LAYER_DECAY = 0.9  # of the learning rate, from each layer to the one below
WARM_UP = 100  # steps
DROPPED = 0.1
KEPT_EVERY = 100  # steps
SOFTENED = 0.02  # of each label: some are wrong
PLACES_WEIGHT = 0.5  # of the loss of places
ANSWERED_WEIGHT = 1.5
N_EMBD = 384


class Rates(NamedTuple):
    """Learning rates: after the warm-up, and the share of it at the end; linear between."""

    first: float
    last: float = 0.03

    def at(self, step: int, n_steps: int) -> float:
        return self.first * min(1, (step + 1) / WARM_UP) * (1 - (1 - self.last) * step / n_steps)


class Judge(nn.Module):
    def __init__(self, folder: Path) -> None:
        """`folder`: all-MiniLM-L6-v2 as `forge` reads it."""
        super().__init__()
        self.encoder = Encoder(folder)
        self.encoder.tokenizer.enable_truncation(N_TOKENS)
        self.dense, self.out = nn.Linear(N_EMBD, N_EMBD), nn.Linear(N_EMBD, 1)
        self.places = nn.Linear(N_EMBD, 2)  # only while it learns
        for part in (self.dense, self.out, self.places):
            nn.init.normal_(part.weight, 0, 0.02)
            nn.init.zeros_(part.bias)
        whole = self.encoder
        for part in (whole.words, whole.positions, whole.kinds, whole.norm):
            part.requires_grad_(requires_grad=False)

    def groups(self) -> list[dict[str, Any]]:
        """The parameters that learn, each with its share of the learning rate."""
        heads = [p for part in (self.dense, self.out, self.places) for p in part.parameters()]
        layers = list(self.encoder.layers)
        shares = [LAYER_DECAY ** (len(layers) - 1 - n) for n in range(len(layers))]
        groups: list[dict[str, Any]] = [{"params": heads, "share": 1.0}]
        groups += [
            {"params": list(layer.parameters()), "share": share}
            for layer, share in zip(layers, shares, strict=True)
        ]
        return groups

    def encoded(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        return list(self.encoder.tokenizer.encode_batch(list(pairs)))

    def states(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """What the last layer makes of each token, and which tokens there are."""
        whole, n = self.encoder, max(map(len, rows))
        ids = torch.zeros(len(rows), n, dtype=torch.long)
        mask = torch.zeros(len(rows), n, dtype=torch.bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = True
        # The engine gives every token the first segment's type.
        x = whole.norm(whole.words(ids) + whole.positions.weight[:n] + whole.kinds.weight[0])
        for layer in whole.layers:
            x = layer(x, mask[:, None, None, :])
            x = functional.dropout(x, DROPPED / 2, self.training)
        return x, mask

    def forward(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Of each row of tokens, the logit that the passage answers; those of places, [rows, tokens, 2]."""
        with autocast(bf16_is_faster()):
            x, mask = self.states(rows)
            told = torch.tanh(self.dense(functional.dropout(x[:, 0], DROPPED, self.training)))
            logits = self.out(functional.dropout(told, DROPPED, self.training))
            places = self.places(x) if self.training else torch.zeros(len(rows), 1, 2)
        if self.training:
            places = places.float().masked_fill(~mask[:, :, None], -1e4)
        return logits.float().squeeze(-1), places

    @torch.no_grad()
    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.eval()
        rows = [one.ids for one in self.encoded(pairs)]
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        found = [0.0] * len(rows)
        for at in range(0, len(order), BATCH):
            batch = order[at : at + BATCH]
            for n, value in zip(batch, self([rows[n] for n in batch])[0].tolist(), strict=True):
                found[n] = value
        return found


def batches(pairs: Sequence[Pair], seed: int) -> list[list[Pair]]:
    """All pairs once, in batches of like lengths."""
    rng = random.Random(seed)
    order = rng.sample(list(pairs), len(pairs))
    found = []
    for at in range(0, len(order), GROUP):
        group = sorted(order[at : at + GROUP], key=lambda one: len(one.question) + len(one.passage))
        parts = [group[n : n + BATCH] for n in range(0, len(group), BATCH)]
        rng.shuffle(parts)
        found += parts
    return found


def place(encoded: Any, pair: Pair) -> tuple[int, int]:
    """The first and last token of the answer; (0, 0): none, or it is cut off."""
    at = pair.passage.find(pair.words) if pair.words else -1
    if at < 0 or not pair.words:
        return 0, 0
    first = encoded.char_to_token(at, 1)
    last = encoded.char_to_token(at + len(pair.words) - 1, 1)
    return (0, 0) if first is None or last is None else (first, last)


def loss_of(judge: Judge, batch: Sequence[Pair]) -> Tensor:
    encoded = judge.encoded([(one.question, one.passage) for one in batch])
    logits, places = judge([one.ids for one in encoded])
    answered = torch.tensor([float(one.is_answered) for one in batch])
    softened = answered * (1 - 2 * SOFTENED) + SOFTENED
    weights = 1 + (ANSWERED_WEIGHT - 1) * answered
    told = functional.binary_cross_entropy_with_logits(logits, softened, weights)
    targets = [place(e, one) for e, one in zip(encoded, batch, strict=True)]
    # Pairs that are answered by words that were not found teach no place.
    known = [n for n, one in enumerate(batch) if not one.is_answered or targets[n] != (0, 0)]
    if not known:
        return told
    wanted = torch.tensor([targets[n] for n in known])
    placed = functional.cross_entropy(places[known].transpose(1, 2).flatten(0, 1), wanted.flatten())
    return told + PLACES_WEIGHT * placed


def train(
    judge: Judge, epochs: Sequence[Sequence[Pair]], state: Path, seconds: float, rates: Rates,
    n_steps: int | None = None,
    say: Callable[[str], None] = print,
) -> bool:  # fmt: skip
    """`n_steps` (None: all) until the time is over, from where `state` ended; whether all are made."""
    groups = judge.groups()
    optimizer = torch.optim.AdamW(groups, rates.first, weight_decay=0.01)
    own = [parameter for group in groups for parameter in group["params"]]
    step, todo = 0, [one for n, pairs in enumerate(epochs) for one in batches(pairs, n)][:n_steps]
    if state.exists():
        kept: dict[str, Any] = torch.load(state)
        judge.load_state_dict(kept["judge"])
        optimizer.load_state_dict(kept["optimizer"])
        step = kept["step"]
    ends = time.monotonic() + seconds
    judge.train()
    losses = []
    while step < len(todo) and time.monotonic() < ends:
        rate = rates.at(step, len(todo))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        loss = loss_of(judge, todo[step])
        loss.backward()
        nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        step += 1
        if step % KEPT_EVERY == 0:
            _keep(judge, optimizer, step, state)
            say(f"step {step} of {len(todo)}: loss {sum(losses[-KEPT_EVERY:]) / KEPT_EVERY:.3f}")
    _keep(judge, optimizer, step, state)
    return step >= len(todo)


def _keep(judge: Judge, optimizer: torch.optim.Optimizer, step: int, state: Path) -> None:
    """Whole, or not at all: this may be killed at any time."""
    written = state.with_suffix(".new")
    torch.save(
        {"judge": judge.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, written
    )
    written.replace(state)

"""Train the tiny story model that the tests use: `tests/data/tales260K.gguf`.

    .venv/bin/python -m scripts.train_test_model [--minutes 6] [--out FILE]

A llama of 260,000 parameters over 512 tokens (SentencePiece scheme: bytes, characters, merges) that tells
short tales and a few lines of JSON. The texts come from the grammar below: nothing is downloaded, and the
model is ours. It is written in F32, because the smallest tests compare logits. One thread of a small server
needs about 6 minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from rich.progress import Progress
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor

from edgeagent.forge.decoder import Block, Decoder, DecoderShape

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "data" / "tales260K.gguf"
N_VOCAB = 512
N_CTX = 2048  # positions that the file allows; texts of training are shorter
N_TOKENS = 256  # of one row of a batch
N_ROWS = 16
UNKNOWN, BEGIN, END = 0, 1, 2
NONE = 2**32 - 1  # how files say that there is no such token
N_SPECIAL = 3
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

NAMES = ("Anna", "Ben", "Clara", "Finn", "Ida", "Jack", "Lily", "Max", "Mia", "Tim", "Tom", "Zoe")
ANIMALS = ("bear", "bird", "cat", "dog", "duck", "fish", "fox", "frog", "mouse", "owl", "rabbit")
THINGS = ("ball", "boat", "book", "box", "cake", "drum", "hat", "kite", "lamp", "shell", "stone")
COLOURS = ("big", "blue", "bright", "green", "little", "old", "red", "round", "shiny", "yellow")
PLACES = (
    "at the lake",
    "by the sea",
    "in the forest",
    "in the garden",
    "in the park",
    "on the hill",
)
MOODS = ("brave", "curious", "happy", "kind", "quiet", "shy", "tired")
WEATHER = (
    "It was a sunny day.",
    "The sky was grey.",
    "The wind was strong.",
    "Snow lay everywhere.",
)


def tale(dice: random.Random) -> str:
    """One tale of five to nine sentences, whose people and things stay the same."""
    name, friend = dice.sample(NAMES, 2)
    animal, thing = dice.choice(ANIMALS), f"{dice.choice(COLOURS)} {dice.choice(THINGS)}"
    place, mood = dice.choice(PLACES), dice.choice(MOODS)
    her = dice.choice(("her", "his"))
    she = "she" if her == "her" else "he"
    opening = dice.choice(
        (
            f"Once upon a time there was a {mood} {animal} named {name}.",
            f"One day, {name} went to play {place}.",
            f"Once there was a {mood} child named {name}. {name} had a {thing}.",
            f"{name} and {friend} were friends. They liked to play {place}.",
        )
    )
    middle = [
        f"{name} saw a {thing} {place}.",
        f'"Look, a {animal}!" said {friend}.',
        f"{she.capitalize()} wanted to show the {thing} to {her} friend {friend}.",
        f'"Can I play with you?" asked {friend}. "Yes, you can," said {name}.',
        f"The {animal} was {mood} and ran away.",
        f"But the {thing} was gone, and {name} was very sad.",
        f"They looked for the {thing} {dice.choice(PLACES)}.",
        f"Then {friend} found {dice.randint(2, 99)} stones and gave them to the {animal}.",
        f"{name} could not find {her} {thing}, so {she} asked the {animal} for help.",
        f'The {animal} said, "I will help you, {name}."',
    ]
    told = dice.sample(middle, dice.randint(3, 6))
    ending = dice.choice(
        (
            f"{name} and {friend} were happy and went home.",
            f"At the end of the day, {name} gave the {thing} to the {animal}.",
            f"From that day on, {name} and the {animal} were best friends.",
            f'{name} smiled and said, "Thank you, {friend}!"',
        )
    )
    weather = [dice.choice(WEATHER)] if dice.random() < 0.4 else []
    return " ".join([opening, *weather, *told, ending])


def record(dice: random.Random) -> str:
    """One line of JSON, so that answers held to a schema come to their end."""
    fields = {
        "name": dice.choice(NAMES),
        "age": dice.randint(1, 99),
        "colour": dice.choice(COLOURS),
        "likes": dice.sample(THINGS, dice.randint(0, 3)),
        "happy": dice.random() < 0.5,
        "home": dice.choice(PLACES),
    }
    names = dice.sample(list(fields), dice.randint(1, 4))
    return json.dumps({name: fields[name] for name in names}, separators=(",", ":"))


def text(dice: random.Random) -> str:
    """A tale, or now and then a record."""
    return record(dice) if dice.random() < 0.15 else tale(dice)


class Vocabulary:
    """512 tokens as llama.cpp's SentencePiece tokenizer knows them: 3 special ones, 256 bytes, pieces.

    A piece's score is minus its rank: llama.cpp joins the pair whose result has the highest score, which
    are the merges in the order in which they were learned (Sennrich et al. 2016, arXiv:1508.07909).
    """

    def __init__(self, texts: list[str]) -> None:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
        trainer = trainers.BpeTrainer(
            vocab_size=N_VOCAB - N_SPECIAL - 256, show_progress=False, special_tokens=[]
        )
        bpe.train_from_iterator(texts, trainer)
        ranks = sorted(bpe.get_vocab().items(), key=lambda pair: pair[1])
        self.pieces = [piece for piece, _ in ranks]
        self._bpe = bpe

    def encode(self, text: str) -> list[int]:
        """Token ids, for texts whose characters are all pieces."""
        return [N_SPECIAL + 256 + number for number in self._bpe.encode(text).ids]

    def write(self, writer: gguf.GGUFWriter) -> None:
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *self.pieces]
        kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
        kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * len(self.pieces)
        scores = [0.0] * (N_SPECIAL + 256) + [-float(rank) for rank in range(len(self.pieces))]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(kinds)
        writer.add_unk_token_id(UNKNOWN)
        writer.add_bos_token_id(BEGIN)
        writer.add_eos_token_id(END)
        writer.add_sep_token_id(NONE)
        writer.add_pad_token_id(NONE)
        writer.add_chat_template(TEMPLATE)


def batches(vocabulary: Vocabulary, dice: random.Random) -> Iterator[Tensor]:
    """int64 [N_ROWS, N_TOKENS + 1]: tales one after the other, each between <s> and </s>."""
    stream: list[int] = []
    n_wanted = N_ROWS * (N_TOKENS + 1)
    while True:
        while len(stream) < n_wanted:
            stream += [BEGIN, *vocabulary.encode(text(dice)), END]
        yield torch.tensor(stream[:n_wanted]).view(N_ROWS, N_TOKENS + 1)
        stream = stream[n_wanted:]


def train(decoder: Decoder, rows: Iterator[Tensor], minutes: float) -> float:
    """Train for a time, with a rate that falls to nothing at its end. Returns the last mean loss."""
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3, betas=(0.9, 0.95))
    begun_s, losses = time.monotonic(), [6.0]
    with Progress() as progress:
        bar = progress.add_task("training", total=minutes * 60)
        while (passed_s := time.monotonic() - begun_s) < minutes * 60:
            part = passed_s / (minutes * 60)
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1.0, 20 * part + 0.05) * (1 - part)
            row = next(rows)
            scores = decoder.logits(decoder(row[:, :-1]))
            loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), row[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizer.step()
            losses = [*losses[-49:], loss.item()]
            progress.update(bar, completed=passed_s, description=f"loss {np.mean(losses):.3f}")
    return float(np.mean(losses))


def write(decoder: Decoder, vocabulary: Vocabulary, path: Path) -> None:
    """Write the model in F32."""
    shape = decoder.shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tales260K")
    writer.add_license("apache-2.0")
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_block_count(shape.n_layers)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    vocabulary.write(writer)
    writer.add_tensor("token_embd.weight", _f32(decoder.token_embd.weight))
    for number, block in enumerate(decoder.blocks):
        assert isinstance(block, Block)
        for ours, theirs in (
            ("attn_norm", "attn_norm"), ("attn.q", "attn_q"), ("attn.k", "attn_k"),
            ("attn.v", "attn_v"), ("attn.output", "attn_output"), ("ffn_norm", "ffn_norm"),
            ("gate", "ffn_gate"), ("up", "ffn_up"), ("down", "ffn_down"),
        ):  # fmt: skip
            weight = block.get_submodule(ours).weight
            writer.add_tensor(f"blk.{number}.{theirs}.weight", _f32(weight))
    writer.add_tensor("output_norm.weight", _f32(decoder.output_norm.weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _f32(weight: object) -> np.ndarray:
    assert isinstance(weight, Tensor)
    return weight.detach().numpy().astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6.0, help="how long to train")
    parser.add_argument("--out", type=Path, default=OUT, help="the GGUF file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    vocabulary = Vocabulary([text(random.Random(seed)) for seed in range(4000)])
    shape = DecoderShape(
        n_vocab=N_VOCAB, n_embd=64, n_layers=5, n_head=8, n_head_kv=4, n_ff=172, n_ctx=N_TOKENS
    )
    decoder = Decoder(shape)
    loss = train(decoder, batches(vocabulary, random.Random(-1)), options.minutes)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write(decoder, vocabulary, options.out)
    size = options.out.stat().st_size
    print(f"{options.out.name}: {shape.n_params:,} parameters, {size:,} bytes, loss {loss:.3f}")


if __name__ == "__main__":
    main()

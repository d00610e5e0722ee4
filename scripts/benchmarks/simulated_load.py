"""Loads for the simulator, as the clients of `workloads` send them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Arrival:
    """A request of a client, so long after the end of its last one (or the begin)."""

    client: int
    gap_s: float
    n_prompt: int
    n_cached: int
    n_output: int


# Tokens that the template begins all prompts with, and seconds between two clients of a load.
N_SYSTEM = 30
APART_S = 0.002


def dialogues(n_turns: int = 5, n_output: int = 40) -> list[Arrival]:
    """8 clients, a question of 70 tokens in each turn behind the dialogue so far."""
    step = 70 + n_output
    return [
        Arrival(client, APART_S * client if turn == 0 else 0.003, step * turn + 70, step * turn, n_output)
        for client in range(8)
        for turn in range(n_turns)
    ]  # fmt: skip


def chats(n_clients: int = 8, n_requests: int = 2, n_output: int = 64) -> list[Arrival]:
    """Questions of 30 tokens behind the template's own."""
    return [
        Arrival(client, APART_S * client if request == 0 else 0.003, N_SYSTEM + 30, N_SYSTEM, n_output)
        for client in range(n_clients)
        for request in range(n_requests)
    ]  # fmt: skip


def long_prompts() -> list[Arrival]:
    """4 clients, texts of 1,300 tokens."""
    return [Arrival(client, APART_S * client, 1300 + N_SYSTEM, N_SYSTEM, 24) for client in range(4)]


def beside_long() -> list[Arrival]:
    """Short chats, one after another, while two clients send long texts."""
    found = [Arrival(client, 0.01 * client, 1300 + N_SYSTEM, N_SYSTEM, 8) for client in range(2)]
    return found + [Arrival(2, 0.5, N_SYSTEM + 30, N_SYSTEM, 24) for _ in range(6)]


LOADS: dict[str, Callable[[], list[Arrival]]] = {
    "dialogues": dialogues, "chats": chats, "long": long_prompts, "beside long": beside_long,
}  # fmt: skip

"""Many clients at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.conftest import SHALLOW, TALES_CHAT, DaemonProcess

SENTENCE = "The river was wide and the night was cold. "
LENGTHS = [1, 30, 3, 60, 9, 2, 15, 5]  # sentences in a prompt


def test_eight_clients_at_once_all_get_their_whole_answer(tales_daemon: DaemonProcess):
    def ask(i: int) -> tuple[int, str, str | None]:
        with tales_daemon.client() as client:
            answer = client.completions.create(
                model=TALES_CHAT, prompt=SENTENCE * LENGTHS[i] + f"Number {i}:", max_tokens=10 + 5 * i,
                temperature=0, extra_body={"ignore_eos": True},
            )  # fmt: skip
        return (
            answer.usage.completion_tokens,
            answer.choices[0].text,
            answer.choices[0].finish_reason,
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert [n for n, _, _ in answers] == [10 + 5 * i for i in range(8)]
    assert all(text and finish == "length" for _, text, finish in answers)


def test_eight_streams_at_once_all_end_once(shallow_daemon: DaemonProcess):
    def ask(i: int) -> list[str | None]:
        with shallow_daemon.client() as client:
            stream = client.chat.completions.create(
                model=SHALLOW, messages=[{"role": "user", "content": f"Count to {i}."}], max_tokens=8 + i,
                stream=True,
            )  # fmt: skip
            return [choice.finish_reason for chunk in stream for choice in chunk.choices]

    with ThreadPoolExecutor(8) as pool:
        for reasons in pool.map(ask, range(8)):
            assert set(reasons[:-1]) == {None}
            assert reasons[-1] in ("stop", "length")

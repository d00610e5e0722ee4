"""How fast a chat is answered while something else happens: tokens a second, answer after answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from typing import TypeVar

import httpx

MODEL = "smollm2-135m-instruct"
QUESTION = "Tell me a long story about a lighthouse and the people who live in it."
N_TOKENS = 96

Result = TypeVar("Result")


class ChatRate:
    """Asks a daemon again and again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._n_tokens = 0
        self._seconds = 0.0

    @property
    def tokens_per_s(self) -> float:
        """From the first token of each answer to its last."""
        return self._n_tokens / self._seconds

    async def beside(self, work: Awaitable[Result]) -> Result:
        """Ask for as long as the work takes. An answer that has begun is waited for and counts."""
        task = asyncio.ensure_future(work)
        async with httpx.AsyncClient(base_url=self._url, timeout=600) as http:
            while not task.done():
                await self._ask(http)
        return await task

    async def _ask(self, http: httpx.AsyncClient) -> None:
        body = {
            "model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "stream": True,
            "max_tokens": N_TOKENS, "temperature": 0, "stream_options": {"include_usage": True},
        }  # fmt: skip
        first_s = last_s = 0.0
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                if event["choices"] and event["choices"][0]["delta"].get("content"):
                    last_s = time.perf_counter()
                    first_s = first_s or last_s
                if event.get("usage"):
                    self._n_tokens += event["usage"]["completion_tokens"] - 1
                    self._seconds += last_s - first_s

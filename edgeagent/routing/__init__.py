"""Which model or tool answers a request, decided from the request alone."""

from pathlib import Path

# The mapping of clients' tools that every installation has.
SHIPPED_RULES = Path(__file__).with_name("home_assistant.toml")

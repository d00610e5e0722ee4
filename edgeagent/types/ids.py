"""Identifiers of what is stored and shown: a prefix that tells the kind, and 24 random hex digits."""

from __future__ import annotations

import secrets

# Responses of the stateful API. A stored chat has another prefix and cannot be continued by its id.
RESPONSE_PREFIX = "resp_"
CHAT_PREFIX = "chatcmpl-"
ITEM_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "file_search_call": "fs",
}


def new_id(prefix: str) -> str:
    """An identifier that cannot be guessed, for example `conv_` and 24 hex digits."""
    return f"{prefix}_{secrets.token_hex(12)}"

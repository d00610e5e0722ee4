"""Errors as clients read them: without folders of this device or details of unforeseen errors."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from edgeagent.errors import EdgeAgentError

logger = logging.getLogger(__name__)

_HIDDEN: list[str] = []


def hide_folders(folders: Iterable[Path]) -> None:
    """Leave the location of these folders out of all messages to clients."""
    _HIDDEN[:] = sorted({f"{folder}/" for folder in folders if len(folder.parts) > 1}, reverse=True)


def public(message: str) -> str:
    """A message without the hidden folders."""
    for folder in _HIDDEN:
        message = message.replace(folder, "").replace(folder.rstrip("/"), "its folder")
    return message


def client_error(exc: Exception) -> EdgeAgentError:
    """The error that a client is told. An unforeseen exception is logged with its traceback, and its client
    learns no details."""
    if isinstance(exc, EdgeAgentError):
        exc.message = public(exc.message)
        return exc
    logger.error("unforeseen %s", type(exc).__name__, exc_info=exc)
    return EdgeAgentError("An unexpected error occurred; the log has its traceback.")

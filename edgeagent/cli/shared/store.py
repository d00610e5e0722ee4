"""What the commands about stored data share: opening the store, whose data is meant, and progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeagent.cli.shared.options import configured
from edgeagent.errors import InvalidParameter
from edgeagent.settings import Settings
from edgeagent.store import audit
from edgeagent.store.database import Database, open_store
from edgeagent.store.database_files import StoreFiles, StoreLock
from edgeagent.store.ownership import Selector

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Opened:
    """The store of the state directory, the key of its audit, and where its head is anchored."""

    settings: Settings
    database: Database
    audit_key: bytes

    @property
    def anchor(self) -> Path:
        return self.settings.effective_audit_anchor


@contextmanager
def opened(config: Path | None, flags: dict[str, Any]) -> Iterator[Opened]:
    """Works beside a running daemon. Raises: StoreUnusable and what else opening the store raises."""
    settings = configured(config, **flags).settings
    with open_store(settings) as database:
        yield Opened(settings, database, audit.key_of(database.secret))


def is_in_use(settings: Settings) -> bool:
    """Whether another process has the store open, as a running daemon has."""
    files = StoreFiles(settings.store_dir)
    if not files.folder.is_dir():
        return False
    lock = StoreLock(files.folder)
    try:
        return not lock.take()
    finally:
        lock.close()


def selector_options(command: Command) -> Command:
    """Whose data is meant: what matches all of these that are given."""
    options = [
        click.option("--owner", metavar="NAME", help="All that belongs to this owner of keys."),
        click.option("--conversation", metavar="ID", help="One conversation: conv_..."),
        click.option("--subject", metavar="NAME",
                     help="All about a person (a patient, a customer), where the client said so."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def selected(owner: str | None, conversation: str | None, subject: str | None) -> Selector:
    if owner is None and conversation is None and subject is None:
        raise click.UsageError("Say whose data: give --owner, --conversation or --subject.")
    for name in (owner, conversation, subject):
        refuse_other_encodings(name or "", "The name")
    return Selector(owner=owner, conversation=conversation, subject=subject)


def refuse_other_encodings(text: str, what: str) -> None:
    """Raises: InvalidParameter for bytes of the command line that are not UTF-8: nothing stored has any."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        shown = text.encode(errors="backslashreplace").decode()[:60]
        raise InvalidParameter(f"{what} {shown!r} is not UTF-8: correct it.") from exc


@contextmanager
def sink(out: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Where an export goes: a new file for its owner only, whole or not at all; or standard output."""
    if out is None:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    if out.exists():
        raise InvalidParameter(f"File {out} exists, it is not overwritten: name another one.")
    draft = out.with_name(f".{out.name}.part")
    try:
        fd = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            yield file.write
            file.flush()
            os.fsync(fd)
        draft.replace(out)
    except OSError as exc:
        raise InvalidParameter(
            f"File {out} cannot be written: {exc.strerror}. Name a path with room that is yours."
        ) from exc
    finally:
        draft.unlink(missing_ok=True)


def when(utc_ms: int | None) -> str:
    if utc_ms is None:
        return ""
    return datetime.fromtimestamp(utc_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")

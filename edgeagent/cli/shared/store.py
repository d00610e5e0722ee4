"""Opening the store, selecting data and writing output files, for the commands about stored data."""

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
class StoreSession:
    """The open store of the state directory, with the key and the anchor file of its audit."""

    settings: Settings
    database: Database
    audit_key: bytes

    @property
    def anchor(self) -> Path:
        return self.settings.effective_audit_anchor


@contextmanager
def opened(config: Path | None, flags: dict[str, Any]) -> Iterator[StoreSession]:
    """Open the store, also beside a running daemon. Raises: StoreUnusable, and what opening the store
    raises."""
    settings = configured(config, **flags).settings
    with open_store(settings) as database:
        yield StoreSession(settings, database, audit.key_of(database.secret))


def is_in_use(settings: Settings) -> bool:
    """Whether another process, such as a running daemon, has the store open."""
    files = StoreFiles(settings.store_dir)
    if not files.folder.is_dir():
        return False
    lock = StoreLock(files.folder)
    try:
        return not lock.take()
    finally:
        lock.close()


def selector_options(command: Command) -> Command:
    """Options that select data: together they select what matches all of them."""
    options = [
        click.option("--owner", metavar="NAME", help="All data of this owner of keys."),
        click.option("--conversation", metavar="ID", help="One conversation: conv_..."),
        click.option("--subject", metavar="NAME",
                     help="All data about a person, such as a patient, if the client named the person."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def selected(owner: str | None, conversation: str | None, subject: str | None) -> Selector:
    if owner is None and conversation is None and subject is None:
        raise click.UsageError("Give --owner, --conversation or --subject to select the data.")
    for name in (owner, conversation, subject):
        refuse_other_encodings(name or "", "The name")
    return Selector(owner=owner, conversation=conversation, subject=subject)


def refuse_other_encodings(text: str, what: str) -> None:
    """Raises: InvalidParameter for arguments that are not UTF-8: no stored text contains them."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        shown = text.encode(errors="backslashreplace").decode()[:60]
        raise InvalidParameter(f"{what} {shown!r} is not UTF-8: correct it.") from exc


@contextmanager
def sink(out: Path | None) -> Iterator[Callable[[bytes], object]]:
    """The output of an export: a new file, readable by its owner only and complete or absent; or stdout."""
    if out is None:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    if out.exists():
        raise InvalidParameter(f"File {out} exists and is not overwritten: give another name.")
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
            f"File {out} cannot be written: {exc.strerror}. Give a writable path with enough space."
        ) from exc
    finally:
        draft.unlink(missing_ok=True)


def when(utc_ms: int | None) -> str:
    if utc_ms is None:
        return ""
    return datetime.fromtimestamp(utc_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")

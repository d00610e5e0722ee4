"""`edgeagent knowledge`: knowledge bases of the running daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeagent.cli.shared.knowledge_client import KnowledgeClient, LocalFile, local_files
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.errors import EdgeAgentError

Command = TypeVar("Command", bound=Callable[..., Any])


def daemon_options(command: Command) -> Command:
    """Where the daemon answers."""
    port = click.option(
        "--port", type=click.IntRange(1, 65535), help="Port of the daemon. Default: 8484."
    )
    return port(settings_options(command))


@click.group()
def knowledge() -> None:
    """Documents that answers are found in and cite.

    A knowledge base is a vector store of the running daemon: `edgeagent knowledge add ferries *.md`, then
    offer the tool `file_search` with its id. CSV files of questions and answers are answered word for word.
    """


@knowledge.command()
@click.argument("name")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@daemon_options
def add(name: str, files: tuple[Path, ...], **flags: Any) -> None:
    """Put files and directories into the knowledge base NAME, which is made if needed.

    A file that it has already is left alone; one of the same name with other content is replaced.
    """
    chosen = [found for path in files for found in local_files(path)]
    with _client(**flags) as client:
        store = client.store_named(name) or client.create(name)
        put_files(client, store, chosen, removes=False)


@knowledge.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", help="Name of the knowledge base. Default: that of the directory.")
@daemon_options
def sync(directory: Path, name: str | None, **flags: Any) -> None:
    """Make a knowledge base equal to a directory: new, changed and deleted files."""
    with _client(**flags) as client:
        wanted = name or directory.resolve().name
        store = client.store_named(wanted) or client.create(wanted)
        put_files(client, store, local_files(directory), removes=True)


@knowledge.command("list")
@click.argument("name", required=False)
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
@daemon_options
def list_(name: str | None, is_json: bool, **flags: Any) -> None:
    """List knowledge bases, or the files of one."""
    with _client(**flags) as client:
        rows = client.stores() if name is None else client.files(client.required(name))
        if is_json:
            click.echo(json.dumps(rows, indent=2))
        elif name is None:
            for row in rows:
                counts = row["file_counts"]
                click.echo(
                    f"{row['id']}  {printable(row['name']) or '-'}  {counts['total']} files, "
                    f"{counts['failed']} failed, {row['usage_bytes']} bytes of text, {row['status']}"
                )
        else:
            for row in rows:
                error = f": {printable(row['last_error']['message'])}" if row["last_error"] else ""
                click.echo(f"{row['id']}  {printable(_path(row))}  {row['status']}{error}")


@knowledge.command()
@click.argument("name")
@click.argument("files", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="The whole knowledge base, and its files.")
@daemon_options
def remove(name: str, files: tuple[str, ...], is_all: bool, **flags: Any) -> None:
    """Remove files, by name or id, from the knowledge base NAME, or all of it."""
    if bool(files) == is_all:
        raise click.UsageError("Name files to remove, or give --all")
    with _client(**flags) as client:
        store = client.required(name)
        rows = client.files(store)
        if not is_all:
            rows = [row for row in rows if row["id"] in files or _path(row) in files]
            missing = set(files) - {row["id"] for row in rows} - {_path(row) for row in rows}
            if missing:
                raise EdgeAgentError(
                    f"{printable(min(missing))!r} is not in {printable(name)!r}: `edgeagent knowledge list "
                    "NAME` shows its files."
                )
        for row in rows:
            client.delete_document(row["id"])
        if is_all:
            client.delete_store(store["id"])
    click.echo(f"Removed {len(rows)} files.")


@knowledge.command()
@click.argument("name")
@click.argument("query")
@click.option("-n", "n_results", type=click.IntRange(1, 50), default=5, show_default=True)
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
@daemon_options
def search(name: str, query: str, n_results: int, is_json: bool, **flags: Any) -> None:
    """Show the passages of the knowledge base NAME that belong to a question."""
    with _client(**flags) as client:
        found = client.search(client.required(name)["id"], query, n_results)
    if is_json:
        click.echo(json.dumps(found, indent=2))
        return
    for number, row in enumerate(found, 1):
        click.echo(f"[{number}] {printable(row['filename'])}  {row['score']:.2f}")
        for line in row["content"][0]["text"].splitlines():
            click.echo(f"    {printable(line)}")
    if not found:
        click.echo("Nothing was found.")


def _client(config: Path | None, **flags: Any) -> KnowledgeClient:
    return KnowledgeClient(configured(config, **flags).settings)


def _path(row: dict[str, Any]) -> str:
    return str(row["attributes"].get("path") or "")


def put_files(
    client: KnowledgeClient, store: dict[str, Any], chosen: list[LocalFile], *, removes: bool,
    bot: str | None = None, tells: Callable[[str], None] = click.echo,
) -> None:  # fmt: skip
    """Send what is new or has changed, and wait until it is indexed. With `removes` others go; those of this
    `bot` only, where it is named. Ends the command with status 1 where a file is refused."""
    if not chosen:
        raise EdgeAgentError("There are no files to add: name files, or a directory with some.")
    held = {_path(row): row for row in client.files(store)}
    new = [file for file in chosen if not _is_same(file, held.get(file.name))]
    own = {name for name, row in held.items() if bot in (None, row["attributes"].get("bot"))}
    gone = own - {file.name for file in chosen} if removes else set()
    replaced = [held[file.name]["id"] for file in new if file.name in held]
    refused: list[tuple[str, str]] = []
    with timed_progress() as tell:
        sent = []
        for file in new:
            tell("send", 1, len(new))
            try:
                sent.append((client.upload(file), file))
            except EdgeAgentError as exc:
                refused.append((file.name, exc.message))
        client.attach(store["id"], sent, bot)
        for document_id in [*replaced, *(held[name]["id"] for name in gone)]:
            client.delete_document(document_id)
        client.wait_until_indexed(store["id"], lambda n, total: tell("index", n, total))
    ids = {document_id for document_id, _ in sent}
    failed = [row for row in client.files(store) if row["id"] in ids and row["status"] == "failed"]
    refused += [(_path(row), row["last_error"]["message"]) for row in failed]
    tells(
        f"{store['id']}: {len(new) - len(refused)} added or replaced, {len(gone)} removed, "
        f"{len(chosen) - len(new)} unchanged, {len(refused)} refused."
    )
    for name, message in refused:
        click.echo(f"  {printable(name)}: {printable(message)}", err=True)
    if refused:
        raise SystemExit(1)


def _is_same(file: LocalFile, row: dict[str, Any] | None) -> bool:
    return row is not None and row["attributes"].get("sha256") == file.digest

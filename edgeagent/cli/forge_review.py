"""`edgeagent forge review`: stored texts that a model of one's own should learn from."""

from __future__ import annotations

import asyncio
import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeagent.cli.shared.configured_library import library_of
from edgeagent.cli.shared.domain_model import BASE, TEACHER, encoder_of, made_here
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.read_only_store import reading, selected_or_all
from edgeagent.cli.shared.store import selector_options
from edgeagent.durable import way_out
from edgeagent.errors import ForgeFailed
from edgeagent.settings import Settings
from edgeagent.types.spreadsheet_cell import as_text_cell

if TYPE_CHECKING:
    from edgeagent.forge.domain.review import ReviewItem
    from edgeagent.forge.domain.workspace import Workspace

_MOST_TEXTS = 5000
_SQL = """select c.plain as text, min(f.rating) as rating from response r
    join item i on i.response_id = r.id and i.is_input = 1 and i.role = 'user'
    join item_content c on c.item_rowid = i.rowid
    left join feedback f on f.target_id = r.id
        or f.target_id in (select id from item where response_id = r.id)
    left join response_content b on b.response_id = r.id
    where r.model = :model
        or (json_extract(b.body, '$.edgeagent.route') in ('escalated', 'out_of_scope')
            and json_extract(b.body, '$.edgeagent.confidence.domain') = :model)
    group by c.plain order by max(r.created_ms) desc limit """ + str(_MOST_TEXTS)


@click.command()
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE",
    help="CSV file to write: text, intent, probability, why.",
)  # fmt: skip
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True,
              help="Most texts.")  # fmt: skip
@selector_options
@settings_options
def review(
    name: str,
    out: Path,
    limit: int,
    owner: str | None,
    conversation: str | None,
    subject: str | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """List stored texts that NAME would learn most from.

    \b
        edgeagent forge review my-bot --out review.csv
        edgeagent forge update my-bot --from review.csv

    Texts of stored responses (`store: true`) that NAME answered, or gave to a larger model, within the ages
    of `store.retention`: badly rated ones first, then those with two nearly equal intents, or whose nearest
    example has another intent. Correct the column `intent` (`oos` for none) and delete what is no use. The
    audit records that they were read.
    """
    settings = configured(config, **flags).settings
    workspace = made_here(settings, name)
    if out.exists():
        raise ForgeFailed(f"{out} exists: name a new file, so that no corrections are lost.")
    if not out.parent.is_dir():
        raise ForgeFailed(f"{out.parent} is no directory: make it, or name another file.")
    known = workspace.examples()
    who = selected_or_all(owner, conversation, subject)
    with reading(config, flags, who, "forge.review", what=f"model={name}") as store:
        rows = {str(row["text"]): row["rating"] for row in store.run(_SQL, {"model": name})}
    from edgeagent.forge.domain.review import open_texts

    found = open_texts(rows, known.examples)
    if not found:
        raise ForgeFailed(
            f"There are no stored texts that {name} does not know: let clients send `store: true`."
        )
    items = asyncio.run(_ranked(settings, workspace, found, limit))
    lines = [["text", "intent", "probability", "why"]]
    for item in items:  # what clients have said is not to be computed by a spreadsheet
        sure = f"{item.choice.probability:.3f}"
        lines.append([as_text_cell(item.text), item.choice.intent, sure, as_text_cell(item.why)])
    try:
        new_file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(new_file, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines)
    except OSError as exc:
        raise ForgeFailed(f"{out} cannot be written ({exc}): {way_out(exc)}.") from exc
    click.echo(
        f"{out}: {len(items)} of {len(found)} texts. Correct the intents, then update {name}."
    )


async def _ranked(
    settings: Settings, workspace: Workspace, texts: dict[str, int | None], limit: int
) -> list[ReviewItem]:
    from edgeagent.forge.domain.features import encoder, vectors
    from edgeagent.forge.domain.head_training import write_encoder
    from edgeagent.forge.domain.review import nearest_intents, ranked
    from edgeagent.forge.domain.served_evaluation import choices
    from edgeagent.forge.domain.trunk import Trunk

    domain = workspace.examples()
    chosen = await choices(workspace.current_gguf(), list(texts), domain.intents, {})
    library = library_of(settings)
    there = {model.id: model for model in library.installed()}
    if TEACHER in there:
        path, is_kept = there[TEACHER].path, True
    elif (general := encoder_of(settings)) is not None:
        path, is_kept = general, True
    else:
        base = Trunk.read(library.resolve(BASE).path)
        path, is_kept = write_encoder(base, workspace.folder), False
    try:
        async with encoder(path) as client:
            both = await vectors(client, [*texts, *(e.text for e in domain.inside)])
    finally:
        if not is_kept:
            path.unlink(missing_ok=True)
    near = nearest_intents(both[: len(texts)], both[len(texts) :], domain.inside)
    return ranked(texts, chosen, near, limit)

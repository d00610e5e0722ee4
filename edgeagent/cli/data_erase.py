"""`edgeagent data erase`: erase data, search for remains, and write a receipt."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeagent.cli.keys import actor
from edgeagent.cli.shared.options import settings_options
from edgeagent.cli.shared.progress import row_progress
from edgeagent.cli.shared.store import (
    opened,
    selected,
    selector_options,
    sink,
)
from edgeagent.cli.shared.terminal import confirm
from edgeagent.serving.terminal_history import forget_history
from edgeagent.settings import Settings
from edgeagent.store import audit_anchor, erasure, ownership, prefix_files, residue_scan
from edgeagent.store.database import Database
from edgeagent.store.erasure import ErasureReceipt
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.ownership import Selector


@click.command()
@selector_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--except-held", is_flag=True, help="Erase everything that is not under legal hold.")
@click.option("--backups", is_flag=True,
              help="Make a new backup and delete the older ones, which still contain the data.")  # fmt: skip
@click.option("--receipt", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the receipt to a new file instead of standard output.")  # fmt: skip
@settings_options
def erase(
    config: Path | None, owner: str | None, conversation: str | None, subject: str | None, yes: bool,
    except_held: bool, backups: bool, receipt: Path | None, **flags: Any,
) -> int:  # fmt: skip
    """Erase the selected data, search the whole state directory for remains, and report them.

    The receipt (JSON) has counts, a digest, the position in the audit, and the backups that still contain
    the data. Exit status 1: remains were found. Nothing is erased if rows are under legal hold, unless
    --except-held is given. API keys and the audit are kept.
    """
    selector = selected(owner, conversation, subject)
    with opened(config, flags) as here:
        counts = here.database.read(partial(ownership.counts, selector=selector))
        if told := ", ".join(f"{n} of {table}" for table, n in counts.items() if n):
            confirm(f"{selector.named()} has {told}. Erase for good?", yes=yes)
        request = ErasureRequest(selector, actor(), except_held, backups)
        places = places_of(here.settings, here.database)
        size = residue_scan.total_bytes(
            places.state_dir, here.database.files.folder, places.leave_out
        )
        n_rows = here.database.read(partial(erasure.n_rows, selector=selector))
        totals = {"delete": n_rows, "search": size}
        with row_progress() as tell:
            done = erasure.erase(
                here.database, here.audit_key, request, places,
                keep_backups=here.settings.store.n_backups,
                tell=lambda stage, n: tell(stage, n, totals.get(stage)),
            )  # fmt: skip
        audit_anchor.publish_done(here.database, here.audit_key, here.anchor)
    body = done.shown()
    with sink(receipt) as write:
        write(json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n")
    _tell(done)
    return 0 if done.is_gone else 1


def places_of(settings: Settings, database: Database) -> ErasureScope:
    """Where an erasure searches: everything the daemon stores except models. A running daemon drops what
    it holds in memory within seconds after the touch."""
    files = database.files

    def forget(_selector: Selector) -> list[str]:
        files.erased.touch()
        prefix_files.tidy(files.prefixes, database)
        forget_history(settings.state_dir)
        return ["cached prefixes", "kept prefixes", "terminal history"]

    return ErasureScope(
        settings.state_dir, leave_out=(settings.effective_models_dir,), forget=forget
    )


def _tell(done: ErasureReceipt) -> None:
    """Print a summary of the receipt on standard error."""
    where = f"{done.proof.n_files} files"
    if done.is_gone:
        text = f"Erased: none of {done.proof.n_probes} probes was found in {where}."
    elif not done.is_log_empty:
        text = "The write-ahead log could not be emptied while another process reads: erase again later."
    else:
        names = ", ".join(Path(name).name for name in done.proof.residue)
        text = f"Remains were found in {names}: check these files and erase again."
    click.echo(text, err=True)
    if done.held_back:
        click.echo(f"Not erased, under legal hold: {sum(done.held_back.values())} rows.", err=True)
    for entry in done.backups_holding:
        click.echo(
            f"Backup {entry['file']} still contains the data and is deleted after {entry['dropped_after']}; "
            "--backups deletes it now.",
            err=True,
        )

"""`edgeagent keys`: the API keys of the daemon. A running daemon applies changes at once."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.table import Table

from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.terminal import confirm, show_table
from edgeagent.serving.key_admin import key_fields
from edgeagent.store.database import open_store
from edgeagent.store.database_files import StoreFiles
from edgeagent.store.key_record import Key, KeySpec, NewKey, scopes_from
from edgeagent.store.keyring import Keyring
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import ALL_SCOPES, KeyLimits

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_SCOPES = "chat,embeddings,transcribe"
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
MAX_DURATION_S = 10 * _UNITS_S["y"]

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Duration(click.ParamType[int]):
    """`90d`, `12h`, `30m` as seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        found = re.fullmatch(r"([0-9]{1,9})([smhdwy])", str(value))
        seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
        if not 0 < seconds <= MAX_DURATION_S:
            self.fail(
                f"{value!r} is not a duration of at most 10y: write a number and s, m, h, d, w or y, such as "
                "90d."
            )
        return seconds


@click.group()
def keys() -> None:
    """Make, list, replace and revoke API keys.

    Without keys the daemon answers every client on this machine and listens on loopback only. From the
    first key on, every request needs a key. A running daemon applies changes at once. edgeagent's own
    commands send the key in EDGEAGENT_API_KEY. For keys that sign bundles, see `edgeagent bundle keys`.
    """


@contextmanager
def opened(config: Path | None, flags: dict[str, Any]) -> Iterator[Keyring]:
    """The keys of the state directory. Raises: StoreUnusable, and what else opening the store raises."""
    settings = configured(config, **flags).settings
    path = StoreFiles(settings.store_dir).database
    keyring = Keyring(
        None, path, lambda: open_store(settings), anchor_path=settings.effective_audit_anchor
    )
    try:
        yield keyring
    finally:
        keyring.close()


def actor() -> str:
    """The name of the acting user in the audit."""
    return f"cli:{getpass.getuser()}"


@keys.command()
@click.option(
    "--name", required=True, metavar="TEXT", help="Purpose of the key, such as `ward 7 tablet`."
)
@click.option("--scopes", metavar="LIST", show_default=True, default=DEFAULT_SCOPES,
              help="Scopes, separated by commas: " + ", ".join(sorted(ALL_SCOPES)) + ".")  # fmt: skip
@click.option("--owner", metavar="NAME",
              help="Whose data the key can see; keys with one owner share data. `local` owns the data stored "
              "before the first key. Default: a new owner.")  # fmt: skip
@click.option(
    "--expires",
    type=Duration(),
    metavar="TIME",
    help="Lifetime of the key, such as 90d or 12h. Default: unlimited.",
)
@click.option(
    "--requests-per-minute",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Default: unlimited.",
)
@click.option("--concurrency", type=click.IntRange(1, 10_000), metavar="N",
              help="Limit of concurrent requests. Default: unlimited.")  # fmt: skip
@click.option("--tokens-per-minute", type=click.IntRange(1, 1_000_000_000), metavar="N",
              help="Limit of prompt and answer tokens. Default: unlimited.")  # fmt: skip
@click.option("--audio-seconds-per-day", type=click.IntRange(1, 1_000_000_000), metavar="N",
              help="Limit of audio transcribed within 24 hours. Default: the setting.")  # fmt: skip
@click.option("--tool", "tools", multiple=True, metavar="NAME",
              help="Allow this tool only; may be repeated. Default: all tools.")  # fmt: skip
@click.option("--break-glass", is_flag=True,
              help="Make a sealed key for emergencies: all scopes, each use audited and logged.")  # fmt: skip
@as_json_option
@settings_options
def create(
    config: Path | None, name: str, scopes: str, owner: str | None, expires: int | None,
    requests_per_minute: int | None, concurrency: int | None, tokens_per_minute: int | None,
    audio_seconds_per_day: int | None,
    tools: tuple[str, ...], break_glass: bool, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Make a key and print its secret, which is not shown again.

    A sealed key (--break-glass) has all scopes and belongs in an envelope. It is not meant for daily work:
    with a sealed key alone the daemon does not listen beyond loopback.
    """
    spec = KeySpec(
        name=name,
        scopes=ALL_SCOPES if break_glass else scopes_from(_names(scopes)),
        owner=owner,
        limits=KeyLimits(
            requests_per_minute=requests_per_minute,
            concurrency=concurrency,
            tokens_per_minute=tokens_per_minute,
            audio_seconds_per_day=audio_seconds_per_day,
        ),
        tools=frozenset(tools) or None,
        is_break_glass=break_glass,
    )
    with opened(config, flags) as keyring:
        if expires is not None:
            ends_ms = keyring.now_ms() + 1000 * expires
            spec = msgspec.structs.replace(spec, expires_ms=ends_ms)
        is_first = not keyring.is_any_made()
        made = keyring.create(spec, actor()).result()
    _tell_new(made, as_json)
    if is_first:
        click.echo("This is the first key: from now on every request needs one.", err=True)


@keys.command("list")
@as_json_option
@settings_options
def list_(config: Path | None, as_json: bool, **flags: Any) -> None:
    """List all keys, including expired and revoked ones, without secrets."""
    with opened(config, flags) as keyring:
        found, now = keyring.all(), keyring.now_ms()
    if as_json:
        click.echo(json.dumps([key_fields(key, now) for key in found], indent=1))
    elif found:
        show_table(_table(found, now))
    else:
        click.echo(
            "There is no key: every client on this machine may use the API. `edgeagent keys create` changes "
            "that."
        )


@keys.command()
@click.argument("key_id", metavar="ID")
@settings_options
def revoke(config: Path | None, key_id: str, **flags: Any) -> None:
    """Revoke the key ID, at once and for good.

    Running answers are completed; live sessions and transcription jobs end. After the last key is revoked,
    requests still need a key, until `edgeagent keys forget` has deleted all records.
    """
    with opened(config, flags) as keyring:
        key = keyring.revoke(key_id, actor()).result()
    click.echo(f"Key {key.id} ({key.name}) has been revoked since {_when(key.revoked_ms)}.")


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--grace", type=Duration(), default=None, metavar="TIME",
              help="Time the old secret stays valid, such as 1h or 7d. Default: none.")  # fmt: skip
@as_json_option
@settings_options
def rotate(
    config: Path | None, key_id: str, grace: int | None, as_json: bool, **flags: Any
) -> None:
    """Replace the key ID by one with a new id and secret and the same owner, scopes, limits and lifetime."""
    with opened(config, flags) as keyring:
        made = keyring.rotate(key_id, actor(), grace or 0).result()
        old = keyring.get(key_id)
    _tell_new(made, as_json)
    ends = "is revoked" if old.revoked_ms is not None else f"ends {_when(old.expires_ms)}"
    click.echo(f"The old key {key_id} {ends}.", err=True)


@keys.command()
@click.argument("key_id", metavar="ID")
@settings_options
def forget(config: Path | None, key_id: str, **flags: Any) -> None:
    """Delete the record of the revoked or expired key ID. Its owner's data stays.

    Once the last record is deleted, clients on this machine need no key again.
    """
    with opened(config, flags) as keyring:
        key = keyring.forget(key_id, actor()).result()
        is_any_left = keyring.is_any_made()
    click.echo(f"Key {key.id} ({key.name}) is deleted.")
    if not is_any_left:
        click.echo("It was the last one: clients on this machine need no key now.", err=True)


@keys.command("reset-access")
@click.option("--name", default="administrator", show_default=True, metavar="TEXT",
              help="Name of the new key.")  # fmt: skip
@click.option("--keep-keys", is_flag=True,
              help="Keep the keys of the database; check `edgeagent keys list` first.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@settings_options
def reset_access(
    config: Path | None, name: str, keep_keys: bool, yes: bool, as_json: bool, **flags: Any
) -> None:
    """Unlock a daemon whose keys, or whose record of revoked keys, are lost.

    Consider `edgeagent data restore` first. This command accepts the loss: it revokes all keys of the
    database, because any of them may have been revoked before, and prints a new key with all scopes.
    Erasures in the lost record are no longer known. A running daemon follows within a second.
    """
    with opened(config, flags) as keyring:
        why = keyring.check_access()
        if why is None:
            click.echo("The daemon is not locked: no key was changed.", err=True)
            return
        click.echo(why, err=True)
        what = "kept" if keep_keys else "revoked, and a new one is made"
        confirm(f"All keys are {what}. Accept the loss?", yes=yes)
        made = keyring.reset_access(actor(), name, keep_keys=keep_keys).result()
    if made is not None:
        _tell_new(made, as_json)
    click.echo("Access is reset.", err=True)


@keys.command("accept-clock")
@settings_options
def accept_clock(config: Path | None, **flags: Any) -> None:
    """Confirm that the device's clock is right, although it showed a later time before.

    Keys expire by the latest time that the daemon has accepted, so that setting the clock back revives no
    key. If the clock was years ahead, keys end too early: this command discards that time. NTP corrects it
    without this command.
    """
    with opened(config, flags) as keyring:
        before_ms = keyring.accept_clock(actor()).result()
    click.echo(f"The latest accepted time was {_when(before_ms)}; it is now the time of the clock.")


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _tell_new(made: NewKey, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(key_fields(made.key, now_ms()) | {"secret": made.secret}, indent=1))
        return
    click.echo(made.secret)
    click.echo(f"Key {made.key.id} ({made.key.name}), owner {made.key.owner}.", err=True)
    if made.key.is_break_glass:
        click.echo("Print the secret, seal it in an envelope, and keep no copy.", err=True)
    else:
        click.echo("The secret is not shown again: store it now.", err=True)


def _table(found: list[Key], now: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("id", "secret", "state", "name", "owner", "scopes", "limits", "made", "expires"):
        table.add_column(column, no_wrap=column in ("id", "secret", "state"))
    for key in found:
        limits = key_fields(key, now)["limits"]
        assert isinstance(limits, dict)
        bounds = [f"bot {key.limits.bot}"] if key.limits.bot is not None else []
        bounds += [f"{n} {name.replace('_', ' ')}" for name, n in limits.items() if n is not None]
        state = key.state(now) + (" sealed" if key.is_break_glass else "")
        table.add_row(
            key.id, f"...{key.hint}", state, key.name, key.owner, ",".join(sorted(key.scopes)),
            ", ".join(bounds) or "none", _when(key.created_ms), _when(key.expires_ms),
        )  # fmt: skip
    return table


def _when(utc_ms: int | None) -> str:
    if utc_ms is None:
        return "never"
    return datetime.fromtimestamp(utc_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")

"""`edgeagent bot publish|unpublish`: a bot for web pages, answered by the daemon itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeagent.cli.keys import actor, opened
from edgeagent.cli.knowledge import daemon_options
from edgeagent.cli.shared.bot_client import BotClient, stores_of_bot
from edgeagent.cli.shared.daemon import base_url
from edgeagent.cli.shared.options import configured
from edgeagent.errors import InvalidParameter
from edgeagent.serving.bots.bot_file import read_bot
from edgeagent.serving.bots.published import (
    PublishedBot,
    PublishedBots,
    id_of,
    missing_origins,
    snippet,
)
from edgeagent.settings.environment import client_api_key
from edgeagent.store.key_record import KeySpec
from edgeagent.store.keyring import Keyring
from edgeagent.types.caller import KeyLimits


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--id", "bot_id", metavar="ID", help="Id of the bot. Default: made of its name.")
@click.option(
    "--owner",
    metavar="NAME",
    help="Owner of its documents. Default: that of the key in EDGEAGENT_API_KEY, or local.",
)
@click.option("--url", metavar="URL", help="Address of the daemon as pages see it.")
@click.option("--requests-per-minute", type=click.IntRange(1, 100_000), default=60, show_default=True,
              help="Of all visitors together.")  # fmt: skip
@click.option("--concurrency", type=click.IntRange(1, 1000), default=4, show_default=True,
              help="Messages that are answered at once.")  # fmt: skip
@click.option("--no-key", is_flag=True, help="The file has changed; the pages keep their key.")
@daemon_options
def publish(
    file: Path, bot_id: str | None, owner: str | None, url: str | None, requests_per_minute: int,
    concurrency: int, no_key: bool, config: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Let the daemon answer for the bot in FILE in web pages, and print the HTML for them.

    The pages are those of `web.origins` in FILE, which `http.allowed_origins` of the daemon has to name, too.
    The key in the HTML is public: it can talk to this bot from these pages, within its limits, and do nothing
    else. The daemon reads a file that is published again with the next message.
    """
    made = read_bot(file)
    settings = configured(config, **flags).settings
    if not made.web.origins:
        raise InvalidParameter(
            f"{file.name} names no page: write the origins of pages into it, such as [web] "
            'origins = ["https://example.org"].',
            param="bot",
        )
    name = bot_id or id_of(made.name)
    with BotClient(settings) as client:
        stores = stores_of_bot(made, client)
    with opened(config, {k: v for k, v in flags.items() if k != "port"}) as keyring:
        of = owner or _owner(keyring)
        published = PublishedBot(owner=of, stores=stores, bot=made)
        bots = PublishedBots(settings.state_dir)
        bots.write(name, published)
        for origin in missing_origins(made, settings.http.allowed_origins):
            click.echo(
                f"Pages of {origin} are refused until http.allowed_origins has it: add it to the "
                "settings and start the daemon again.",
                err=True,
            )
        before = [k for k in keyring.all() if k.limits.bot == name and k.revoked_ms is None]
        if no_key:
            click.echo(f"{name} is published; its pages keep their key.")
            for origin in made.web.origins:
                if not any(origin.lower() in key.limits.origins for key in before):
                    click.echo(
                        f"No key is for pages of {origin}: publish without --no-key, and put the new "
                        "line into all pages.",
                        err=True,
                    )
            return
        if before:
            click.echo(
                f"{len(before)} earlier keys of its pages stay valid: {', '.join(k.id for k in before[:5])}. "
                "`edgeagent keys revoke` ends one.",
                err=True,
            )
        is_first = not keyring.is_any_made()
        limits = KeyLimits(
            requests_per_minute=requests_per_minute, concurrency=concurrency, bot=name,
            origins=tuple(made.web.origins),
        )  # fmt: skip
        spec = KeySpec(name=f"pages of {name}", scopes=frozenset({"bot"}), owner=of, limits=limits)
        key = keyring.create(spec, actor()).result()
    click.echo(snippet(url or base_url(settings), name, key.secret, made.web.title or made.name))
    click.echo(f"Key {key.key.id}, for this bot and these pages alone.", err=True)
    if is_first:
        click.echo("This is the first key: from now on every request needs one.", err=True)


@click.command()
@click.argument("bot_id", metavar="ID")
@daemon_options
def unpublish(bot_id: str, config: Path | None, **flags: Any) -> None:
    """Answer for the bot ID no more, and revoke the keys of its pages. Its documents stay."""
    settings = configured(config, **flags).settings
    PublishedBots(settings.state_dir).remove(bot_id)
    n_revoked = 0
    with opened(config, {k: v for k, v in flags.items() if k != "port"}) as keyring:
        for key in keyring.all():
            if key.limits.bot == bot_id and key.revoked_ms is None:
                keyring.revoke(key.id, actor()).result()
                n_revoked += 1
    click.echo(f"{bot_id} is not published any more; {n_revoked} keys are revoked.")


def _owner(keyring: Keyring) -> str:
    """The owner of the key that the command uses. Raises: InvalidParameter for one that is not valid."""
    secret = client_api_key()
    if secret is None:
        return "local"
    caller = keyring.caller(secret, is_exposed=False)
    if caller is None:
        raise InvalidParameter(
            "EDGEAGENT_API_KEY is not valid here: correct it, or give an --owner.", param="owner"
        )
    return caller.owner

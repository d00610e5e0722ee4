"""`edgeagent bundle keys`: keys that sign bundles, and keys whose bundles are accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeagent.catalog.bundles import signing as signatures
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.settings import Settings


@click.group()
def keys() -> None:
    """Make the key that signs bundles, and choose whose bundles this device accepts."""


def trusted_keys_dir(settings: Settings) -> Path:
    return settings.state_dir / signatures.TRUSTED_KEYS


@keys.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR",
              help="Directory for the two files; created if missing.")  # fmt: skip
@click.option(
    "--name", default="bundle", show_default=True, metavar="NAME", help="Name of the files."
)
def signing(out: Path, name: str) -> None:
    """Make an Ed25519 key pair for signing bundles.

    NAME.key signs: keep it where bundles are made, and back it up. NAME.pub verifies: copy it to every
    device and run `edgeagent bundle keys trust NAME.pub` there. It is in minisign's format, so that
    `minisign -Vm FILE.eab -p NAME.pub` verifies bundles, too. An existing key is never overwritten.
    """
    private, public, key = signatures.make_key_pair(out, name)
    click.echo(f"Key {key.id}")
    click.echo(f"{private}  signs bundles (--sign-key); keep it to yourself")
    click.echo(f"{public}  verifies them; on a device: edgeagent bundle keys trust {public.name}")


@keys.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@settings_options
def trust(config: Path | None, file: Path, **flags: Any) -> None:
    """Accept bundles signed with the key whose public half is FILE (*.pub).

    Compare the printed id with the one that the key's owner gives you.
    """
    folder = trusted_keys_dir(configured(config, **flags).settings)
    key = signatures.trust(file, folder)
    click.echo(f"Key {key.id} is trusted; delete {folder / key.id}.pub to revoke the trust.")


@keys.command("list")
@settings_options
def list_(config: Path | None, **flags: Any) -> None:
    """List the keys whose bundles are accepted."""
    folder = trusted_keys_dir(configured(config, **flags).settings)
    found = signatures.load_trust(folder).keys
    for key_id in sorted(found):
        click.echo(key_id)
    if not found:
        click.echo(f"No key is trusted: `edgeagent bundle keys trust FILE` adds one to {folder}.")


@keys.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def show(file: Path) -> None:
    """Print the public key of FILE (*.key or *.pub) in minisign's format.

    For keys of earlier releases, whose .pub files minisign cannot read:

    \b
        edgeagent bundle keys show old.key > new.pub
    """
    click.echo(signatures.load_either_key(file).text, nl=False)

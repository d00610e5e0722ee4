"""`edgeagent bundle keys`: the keys that bundles are signed with and accepted from."""

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
              help="Folder for the two files; made if it is not there.")  # fmt: skip
@click.option(
    "--name", default="bundle", show_default=True, metavar="NAME", help="What the files are called."
)
def signing(out: Path, name: str) -> None:
    """Make an Ed25519 key pair for signing bundles.

    NAME.key signs: keep it where bundles are made, and back it up. NAME.pub verifies: bring it to
    every device, there `edgeagent bundle keys trust NAME.pub`. It is a public key of minisign, too, which
    verifies bundles with it: `minisign -Vm FILE.eab -p NAME.pub`. An existing key is never overwritten.
    """
    private, public, key = signatures.make_key_pair(out, name)
    click.echo(f"Key {key.id}")
    click.echo(f"{private}  signs bundles (--sign-key); keep it to yourself")
    click.echo(f"{public}  verifies them; on a device: edgeagent bundle keys trust {public.name}")


@keys.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@settings_options
def trust(config: Path | None, file: Path, **flags: Any) -> None:
    """Accept bundles signed with the key whose public half is FILE (*.pub), from now on.

    Compare the printed id with the one its owner tells you.
    """
    folder = trusted_keys_dir(configured(config, **flags).settings)
    key = signatures.trust(file, folder)
    click.echo(f"Key {key.id} is trusted; remove {folder / key.id}.pub to end that.")


@keys.command("list")
@settings_options
def list_(config: Path | None, **flags: Any) -> None:
    """Show the keys whose bundles are accepted."""
    folder = trusted_keys_dir(configured(config, **flags).settings)
    found = signatures.load_trust(folder).keys
    for key_id in sorted(found):
        click.echo(key_id)
    if not found:
        click.echo(f"No key is trusted: `edgeagent bundle keys trust FILE` puts one into {folder}.")


@keys.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def show(file: Path) -> None:
    """Print the public key of FILE (*.key or *.pub) in minisign's format.

    For keys that earlier releases made, whose .pub files minisign does not read:

    \b
        edgeagent bundle keys show old.key > new.pub
    """
    click.echo(signatures.load_either_key(file).text, nl=False)

"""`edgeagent bundle`: models, a profile and wheels in one signed file, for devices without a network."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table

from edgeagent.catalog.bundles.install_state import BundleFolder
from edgeagent.catalog.bundles.installer import InstalledBundle, install_bundle
from edgeagent.catalog.bundles.manifest import BundleManifest
from edgeagent.catalog.bundles.reader import open_bundle
from edgeagent.catalog.bundles.signing import TrustList, load_signing_key, load_trust
from edgeagent.catalog.bundles.writer import BundleContents, minisig_of, write_bundle
from edgeagent.catalog.toml_text import to_toml
from edgeagent.cli.bundle_keys import keys, trusted_keys_dir
from edgeagent.cli.shared.configured_library import catalog_of, library_of
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.progress import byte_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.terminal import show_table
from edgeagent.cli.shared.trial_load import trial_load
from edgeagent.device import profile_files as profiles
from edgeagent.settings import Settings

KEY_HELP = "Public key to verify with. Default: the keys accepted by `edgeagent bundle keys trust`."


@click.group()
def bundle() -> None:
    """Bring models to devices without a network, in one signed file on a USB stick.

    \b
    Where there is a network:   edgeagent bundle keys signing --out keys
                                edgeagent bundle create --models smollm2-135m-instruct \\
                                    --profile pi5-8gb --sign-key keys/bundle.key clinic.eab
    On the device:              edgeagent bundle keys trust bundle.pub
                                edgeagent bundle install clinic.eab
    """


bundle.add_command(keys)


@bundle.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--models",
    metavar="ID,ID",
    default="",
    help="Installed models to include, separated by commas.",
)
@click.option(
    "--sign-key",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Private key, from `edgeagent bundle keys signing`.",
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Include all *.whl of DIR, to install edgeagent itself without a network.",
)
@click.option(
    "--name", metavar="NAME", help="Name of the bundle on devices. Default: the name of OUT."
)
@click.option(
    "--counter",
    type=click.IntRange(1),
    metavar="N",
    help="Version; a device accepts only a higher one of the same name. Default: the time, YYYYMMDDhhmmss.",
)
@settings_options
def create(
    config: Path | None, out: Path, models: str, sign_key: Path, wheels: Path | None, name: str | None,
    counter: int | None, profile: str | None, **flags: Any,
) -> None:  # fmt: skip
    """Write OUT (*.eab) from installed models, and sign it.

    Models are included unchanged, with their catalog entries; --profile adds a device profile, not
    necessarily that of this machine. The command writes OUT and OUT.minisig, a signature of the whole
    file that minisign verifies without edgeagent:

    \b
        minisign -Vm clinic.eab -p bundle.pub
    """
    settings = configured(config, **flags).settings
    ids = tuple(dict.fromkeys(part.strip() for part in models.split(",") if part.strip()))
    if not ids and profile is None and wheels is None:
        raise click.UsageError("The bundle would be empty: give --models, --profile or --wheels.")
    contents = BundleContents(
        name=name or out.stem.lower(),
        version=counter or int(datetime.now(UTC).strftime("%Y%m%d%H%M%S")),
        models=ids,
        profile=(profile, profile_text(settings, profile)) if profile else None,
        wheels=wheels,
    )
    key = load_signing_key(sign_key)
    with byte_progress() as progress:
        manifest = write_bundle(
            out, contents, library_of(settings), catalog_of(settings), key, progress
        )
    click.echo(
        f"Wrote {out} ({megabytes(out.stat().st_size)}): {manifest.title}, {len(manifest.parts)} parts"
    )
    click.echo(f"Signed with key {key.public.id}")
    click.echo(f"Wrote {minisig_of(out)}: minisign -Vm {shlex.quote(str(out))} -p PUBLIC_KEY_FILE")


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help=KEY_HELP
)
@settings_options
def install(config: Path | None, file: Path, key: Path | None, **flags: Any) -> None:
    """Verify the bundle FILE and install its content.

    Every byte is verified before anything is written. All models are loaded once on trial before the
    first one is installed; if one does not load, nothing changes. If the command is interrupted, the old
    models remain; run it again. Wheels are unpacked, not installed.
    """
    settings = configured(config, **flags).settings
    with byte_progress() as progress:
        done = install_bundle(
            file, library_of(settings), trust_of(settings, key), check_profile=profile_name,
            trial=trial_load, progress=progress,
        )  # fmt: skip
    _tell(done)


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help=KEY_HELP
)
@click.option(
    "--quick", is_flag=True, help="Verify signature and structure only; do not hash the parts."
)
@settings_options
def show(config: Path | None, file: Path, key: Path | None, quick: bool, **flags: Any) -> None:
    """Verify the bundle FILE and list its content. Nothing is written."""
    settings = configured(config, **flags).settings
    with open_bundle(file, trust_of(settings, key)) as opened:
        if not quick:
            with byte_progress() as progress:
                opened.check_parts(progress)
        manifest, key_id = opened.manifest, opened.key.id
    last = BundleFolder(settings.effective_models_dir, settings.state_dir).last(manifest.name)
    here = f"version {last.version} is installed here" if last else "not installed here"
    click.echo(f"{manifest.title}, made {manifest.created} by {manifest.made_by}; {here}")
    click.echo(
        f"signed with key {key_id}; {'parts not hashed' if quick else 'every part is as signed'}"
    )
    show_table(_table(manifest))


def _table(manifest: BundleManifest) -> Table:
    table = Table("size", "sha256", "part", box=None, pad_edge=False)
    for part in manifest.parts:
        table.add_row(megabytes(part.size_bytes), part.sha256[:16], part.name)
    return table


def _tell(done: InstalledBundle) -> None:
    click.echo(
        f"Installed bundle {done.name} version {done.version}, signed with key {done.key_id}"
    )
    for model in done.models:
        click.echo(
            f"model {model.id} ({model.quant}, {megabytes(model.size_bytes)}) in {model.folder}"
        )
    if done.models:
        click.echo(
            "A running daemon finds new models by itself; restart it to replace loaded models."
        )
    if done.profile is not None:
        name, path = done.profile
        click.echo(f"profile {name} in {path}")
    if done.wheels is not None:
        click.echo("wheels were unpacked and not installed; to install edgeagent from them:")
        click.echo(
            f"  pip install --no-index --find-links {shlex.quote(str(done.wheels))} edgeagent"
        )


def trust_of(settings: Settings, key: Path | None) -> TrustList:
    return load_trust(trusted_keys_dir(settings), key)


def profile_text(settings: Settings, name: str) -> str:
    """A profile as self-contained TOML, including what it is based on."""
    found = profiles.load(name, [BundleFolder(settings.effective_models_dir).profiles])
    tree = msgspec.to_builtins(found) | {"based_on": None}
    return f"# Written by edgeagent: device profile {name} of a bundle.\n\n{to_toml(tree)}"


def profile_name(text: str, place: str) -> str:
    """The name of the profile in `text`. Raises: SettingsError if it is not one."""
    return profiles.parse(text, place).name

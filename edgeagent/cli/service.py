"""`edgeagent service`: the daemon as a systemd service."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from edgeagent.cli.shared.service_units import (
    ENABLED,
    KEY_FILE,
    PRIVATE_STATE_DIR,
    STATE_DIR,
    UNIT_DIR,
    UNITS,
    WRITTEN_FOR,
    check_command,
    this_command,
    unit_text,
)
from edgeagent.durable import replace_text, way_out
from edgeagent.errors import ServiceFailed
from edgeagent.store.store_key import make_key_file

RUNS_SYSTEMD = Path("/run/systemd/system")
TIMER_STAMP = Path("/var/lib/systemd/timers/stamp-edgeagent-maintenance.timer")
SHOWN = "LoadState,ActiveState,SubState,Result,StatusText,MainPID,NRestarts,MemoryCurrent"

dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done and stop.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Prepare the system image in DIR instead of this system.",
)
command_option = click.option(
    "--command",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The edgeagent command that the units run. Default: this one; in an image "
    "/opt/edgeagent/bin/edgeagent.",
)


@dataclass(frozen=True)
class Step:
    """One thing to do: what is shown of it, and its effect."""

    text: str
    do: Callable[[], None]


@click.group()
def service() -> None:
    """Run the daemon as a systemd service: started at boot, sandboxed, without a network.

    systemd holds the socket, so the daemon reaches no network and a restart refuses no connection.
    """


@service.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8484, show_default=True,
              help="Port of loopback to listen on.")  # fmt: skip
@command_option
@root_option
@dry_run_option
@yes_option
def install(port: int, command: Path | None, root: Path | None, dry_run: bool, yes: bool) -> None:
    """Install the units and start the service. The key of its store is made before the first start.

    An installed service is brought up to date. Settings belong in /etc/edgeagent/edgeagent.toml.
    """
    _require_systemd(root, dry_run=dry_run)
    if command is None:
        command = this_command() if root is None else Path(WRITTEN_FOR)
    check_command(command)
    texts = {name: unit_text(name, command, port) for name in UNITS}
    changed = [name for name in UNITS if not _stands(_under(root, UNIT_DIR / name), texts[name])]
    steps = [_write(_under(root, UNIT_DIR / name), texts[name]) for name in changed]
    if not steps:
        click.echo(
            "The units are installed and unchanged. After an upgrade: systemctl restart edgeagent.service "
            "(clients wait in the socket meanwhile)."
        )
        return
    steps.append(_systemctl(root, "enable", *ENABLED))
    if root is None:
        # A socket that is kept refuses no client; one whose unit changed is opened anew.
        restarted = ENABLED if "edgeagent.socket" in changed else ENABLED[1:]
        steps += [_systemctl(root, "daemon-reload"), _systemctl(root, "restart", *restarted)]
    if _carry_out(steps, dry_run=dry_run, yes=yes):
        click.echo(f"Installed. Try: curl http://127.0.0.1:{port}/health")


@service.command()
@click.option(
    "--purge", is_flag=True, help="Remove its data, models and key, too. This cannot be undone."
)
@root_option
@dry_run_option
@yes_option
def uninstall(purge: bool, root: Path | None, dry_run: bool, yes: bool) -> None:
    """Stop the service and remove its units. Data, models and settings stay, unless --purge."""
    _require_systemd(root, dry_run=dry_run)
    units = [path for name in UNITS if (path := _under(root, UNIT_DIR / name)).exists()]
    steps = []
    if units:
        names = [path.name for path in units]
        steps.append(_systemctl(root, "disable", *(() if root else ("--now",)), *names))
        steps += [Step(f"remove {path}", path.unlink) for path in units]
        if root is None:
            steps.append(_systemctl(root, "daemon-reload"))
    if purge:
        steps += [
            Step(f"remove {path} and all that is in it", lambda path=path: _remove_tree(path))  # type: ignore[misc]
            for name in (PRIVATE_STATE_DIR, STATE_DIR, KEY_FILE.parent, TIMER_STAMP)
            if (path := _under(root, name)).exists() or path.is_symlink()
        ]
    if not steps:
        click.echo("The service is not installed; nothing to do.")
    elif _carry_out(steps, dry_run=dry_run, yes=yes):
        click.echo("Removed." if purge else f"Removed. The data stays in {STATE_DIR}.")


@service.command()
def status() -> None:
    """Show whether the units are installed and running."""
    _require_systemd(None, dry_run=True, has_root=False)
    for name in UNITS:
        facts = _shown(name)
        if facts.get("LoadState") != "loaded":
            click.echo(f"{name}: not installed (`edgeagent service install`)")
            continue
        line = f"{name}: {facts.get('ActiveState')} ({facts.get('SubState')})"
        if facts.get("StatusText"):
            line += f", {facts['StatusText']}"
        if facts.get("MainPID", "0") != "0":
            line += f", pid {facts['MainPID']}, {facts.get('NRestarts', '0')} restarts"
        if (used := facts.get("MemoryCurrent", "")).isdigit():
            line += f", {int(used) / (1 << 20):.0f} MiB"
        if facts.get("Result", "success") != "success":
            line += f", last result: {facts['Result']} (`journalctl -u {name}`)"
        click.echo(line)


@service.command("make-key")
def make_key() -> None:
    """Make the key of the service's store, once. edgeagent-key.service does so before the first start.

    Keep a copy of the key elsewhere: without it nothing stored can be read.
    """
    _require_root()
    if KEY_FILE.exists():
        click.echo(f"{KEY_FILE} exists; it is kept.")
        return
    if any(Path(base, "store", "seal.json").exists() for base in (PRIVATE_STATE_DIR, STATE_DIR)):
        raise ServiceFailed(
            f"A store exists in {STATE_DIR} and its key {KEY_FILE} does not: put the key of that store "
            "there, or move the store away."
        )
    KEY_FILE.parent.mkdir(parents=True, exist_ok=True)
    make_key_file(KEY_FILE)
    click.echo(f"Made {KEY_FILE}. Keep a copy elsewhere.")


@service.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def run(arguments: tuple[str, ...]) -> None:
    """Run another edgeagent command as the service's user, with its key and its data.

    For example: edgeagent service run -- keys create --name ward-3
    """
    _require_systemd(None, dry_run=False, has_root=False)
    properties = [
        "User=edgeagent", "DynamicUser=yes", "StateDirectory=edgeagent", "StateDirectoryMode=0700",
        "UMask=0077", "ProtectSystem=strict", "ProtectHome=yes", "NoNewPrivileges=yes",
        f"LoadCredential=edgeagent.key:{KEY_FILE}",
        f"Environment=EDGEAGENT_STATE_DIR={STATE_DIR}",
    ]  # fmt: skip
    command = ["systemd-run", "--quiet", "--wait", "--collect", "--pipe"]
    command += [f"--property={text}" for text in properties]
    raise SystemExit(subprocess.call([*command, "--", str(this_command()), *arguments]))


def _require_systemd(root: Path | None, *, dry_run: bool, has_root: bool = True) -> None:
    """`has_root`: whether the command has the option --root."""
    if root is None and (not RUNS_SYSTEMD.is_dir() or shutil.which("systemctl") is None):
        way = ", or prepare a system image with --root DIR" if has_root else ""
        raise ServiceFailed(
            f"systemd does not run this system: start `edgeagent serve` by whatever does{way}."
        )
    if root is not None and not root.is_dir():
        raise ServiceFailed(f"{root} is not a directory: give that of a system image with --root.")
    if not dry_run:
        _require_root()


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ServiceFailed(
            "This takes root: use sudo, or look at what would be done with --dry-run."
        )


def _under(root: Path | None, path: Path) -> Path:
    """The place of `path` in an image. Raises: ServiceFailed where a link in the image leads out of it."""
    if root is None:
        return path
    found = root / path.relative_to("/")
    if not found.parent.resolve().is_relative_to(root.resolve()):
        raise ServiceFailed(
            f"{found} leads to {found.parent.resolve()}, which is not in {root}: make the symbolic links of "
            "the image relative."
        )
    return found


def _stands(path: Path, text: str) -> bool:
    """Whether the file has this text."""
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _write(path: Path, text: str) -> Step:
    def write() -> None:
        replace_text(path, text)
        path.chmod(0o644)

    return Step(f"write {path}", write)


def _remove_tree(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path)


def _systemctl(root: Path | None, *arguments: str) -> Step:
    command = ["systemctl", *([f"--root={root}"] if root else []), *arguments]
    return Step(" ".join(command), lambda: _call(command))


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ServiceFailed(
            f"`{' '.join(command)}` failed: {said[0].rstrip('.') if said else 'no reason given'}. "
            "`edgeagent service install` can be run again once that is mended."
        )


def _shown(unit: str) -> dict[str, str]:
    done = subprocess.run(
        ["systemctl", "show", "--property", SHOWN, unit], capture_output=True, text=True
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def _carry_out(steps: Sequence[Step], *, dry_run: bool, yes: bool) -> bool:
    """Show the steps, ask, and do them in order. False where nothing was done. Raises: ServiceFailed."""
    for step in steps:
        click.echo(f"  {step.text}")
    if dry_run:
        return False
    if not yes and not click.confirm("Do this?"):
        return False
    for step in steps:
        try:
            step.do()
        except OSError as exc:
            raise ServiceFailed(f"Could not {step.text}: {exc.strerror}. {way_out(exc)}") from exc
    return True

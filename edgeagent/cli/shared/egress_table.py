"""`edgeagent doctor --egress`: what the daemon and its workers are connected to, as a table or as JSON."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urlsplit

import click
from rich.table import Table

from edgeagent.cli.shared.egress import ProcessSockets, Socket, egress, processes_of, running_daemon
from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.terminal import PlainConsole
from edgeagent.daemon.instance_lock import PID_FILE
from edgeagent.errors import StartFailed
from edgeagent.settings import Settings
from edgeagent.settings.upstreams import UpstreamSettings


def show_egress(settings: Settings, *, as_json: bool) -> int:
    """Print it. 1 if something is connected to another machine. Raises: StartFailed where no daemon runs, or
    its processes are another user's."""
    pid = running_daemon(settings.state_dir / PID_FILE)
    if pid is None:
        raise StartFailed(
            f"No daemon runs on {settings.state_dir}: start one, or name its --state-dir."
        )
    try:
        processes = processes_of(pid)
    except PermissionError as exc:
        raise StartFailed(
            f"The sockets of process {pid} cannot be read by this user: run it as root, or as the user of "
            "the daemon."
        ) from exc
    outside = egress(processes)
    allowed = upstream_places(settings.routing.upstreams)
    leaks = [(process, socket) for process, socket in outside if not _is_in(socket, allowed)]
    sent = [(process, socket) for process, socket in outside if _is_in(socket, allowed)]
    if as_json:
        tree = {
            "processes": [dataclasses.asdict(process) for process in processes],
            "egress": [{"pid": process.pid, "socket": socket.shown()} for process, socket in leaks],
            "upstreams": [
                {
                    "name": one.name,
                    "url": one.url,
                    "models": list(one.models),
                    "keys": one.keys,
                    "privacy": one.privacy,
                }
                for one in settings.routing.upstreams
            ],
            "to_upstreams": [
                {"pid": process.pid, "socket": socket.shown()} for process, socket in sent
            ],
            "policy": policy(settings, processes),
        }
        click.echo(json.dumps(tree, indent=1))
        return 1 if leaks else 0
    console = PlainConsole(width=None if os.isatty(1) else 500)
    console.print(_table(processes))
    for line in policy(settings, processes):
        console.print(printable(line))
    for process, socket in sent:
        console.print(
            printable(f"{process.name} ({process.pid}) asks an upstream: {socket.shown()}")
        )
    for process, socket in leaks:
        console.print(printable(f"! {process.name} ({process.pid}) is connected: {socket.shown()}"))
    if not leaks:
        and_upstreams = " and upstreams" if sent else ""
        console.print(
            f"Nothing is connected to another machine, except clients of the daemon{and_upstreams}."
        )
    return 1 if leaks else 0


def policy(settings: Settings, processes: list[ProcessSockets]) -> list[str]:
    """What would keep something inside, in words."""
    workers = processes[1:]
    n_confined = sum(process.is_confined for process in workers)
    has_network = processes[0].has_network
    return [
        "The daemon sees no network but loopback."
        if not has_network
        else f"The daemon sees the interfaces {', '.join(processes[0].interfaces)}: the systemd service "
        "takes them away (PrivateNetwork=yes).",
        f"{n_confined} of {len(workers)} processes that it has started are confined: they cannot open "
        "internet sockets.",
        "Nothing is fetched in the serving path; `edgeagent models install` fetches"
        + (" nothing either (offline = true)." if settings.offline else " what it is told to."),
        f"Counts and times of requests go to {settings.traces.endpoint} (traces.endpoint)."
        if settings.traces.endpoint
        else "Nobody gets traces of requests (traces.endpoint is not set).",
        *map(_told, settings.routing.upstreams),
        *(
            []
            if settings.routing.upstreams
            else ["No upstream is configured: no request is sent on."]
        ),
    ]


def _told(upstream: UpstreamSettings) -> str:
    """An upstream, and who may send what there."""
    return (
        f"Upstream {upstream.name} ({upstream.url}) answers for {', '.join(upstream.models)}: requests of "
        f"the keys {', '.join(upstream.keys)} with the privacy {' or '.join(upstream.privacy)} may be sent "
        "there."
    )


def upstream_places(upstreams: Iterable[UpstreamSettings]) -> set[tuple[str, int]]:
    """Addresses and ports of the upstreams that the settings name by address. Names are not looked up, since
    that would send something."""
    found = set()
    for upstream in upstreams:
        parts = urlsplit(upstream.url)
        with suppress(ValueError):
            address = str(ipaddress.ip_address(parts.hostname or ""))
            found.add((address, parts.port or (443 if parts.scheme == "https" else 80)))
    return found


def _is_in(socket: Socket, places: set[tuple[str, int]]) -> bool:
    return (socket.peer, socket.peer_port) in places


def _table(processes: list[ProcessSockets]) -> Table:
    table = Table("process", "pid", "sockets", box=None, pad_edge=False)
    for process in processes:
        shown = ", ".join(socket.shown() for socket in process.sockets) or "none"
        table.add_row(printable(process.name), str(process.pid), printable(shown))
    return table

"""The server for Home Assistant's speech protocol, where it is enabled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeagent.daemon.sockets import bind
from edgeagent.errors import StartFailed
from edgeagent.serving.live_transcription import LiveTranscriptions
from edgeagent.serving.transcription import TranscriptionService
from edgeagent.settings.speech import WyomingSettings
from edgeagent.types.loopback import is_loopback

if TYPE_CHECKING:
    from edgeagent.api.wyoming.server import WyomingServer


def wyoming_server(
    settings: WyomingSettings, live: LiveTranscriptions, transcriptions: TranscriptionService
) -> WyomingServer | None:
    """The server on its bound socket; None if it is not enabled.

    Raises: StartFailed for an address that others reach, or that is taken.
    """
    if not settings.enabled:
        return None
    if not is_loopback(settings.host):
        raise StartFailed(
            f"speech.wyoming.host is {settings.host}, which others can reach, and the protocol has no "
            "keys: use 127.0.0.1, and a tunnel to other machines."
        )
    try:
        sock = bind(settings.host, settings.port)
    except StartFailed as exc:
        raise StartFailed(
            f"speech.wyoming: port {settings.port} of {settings.host} cannot be listened on "
            f"({exc.__cause__ or exc.message}): choose another, or turn it off. The systemd service has "
            "no network by itself: see systemd/README.md."
        ) from exc
    from edgeagent.api.wyoming.server import WyomingServer

    return WyomingServer(sock, settings, live, transcriptions)

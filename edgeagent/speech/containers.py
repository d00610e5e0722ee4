"""Which audio files are read: the container by its first bytes, the codecs and shapes by lists. Pure.

FFmpeg is never left to guess: its probing would also find playlists, session descriptions and concatenations,
which name further files. The container found here is the only one that is opened.
"""

from __future__ import annotations

from edgeagent.errors import InvalidParameter

# Extensions that OpenAI's clients send, for messages.
FORMATS = "flac, m4a, mp3, mp4, mpeg, mpga, ogg, opus, wav, webm"

# FFmpeg's demuxers by the name that forces each.
DEMUXERS = ("wav", "flac", "ogg", "mp3", "matroska", "mp4")

# FFmpeg's decoders; everything else, video in the first place, is neither probed nor decoded.
CODECS = frozenset(
    {
        "pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw",
        "flac", "mp3", "mp3float", "vorbis", "opus", "libopus", "aac", "alac",
    }
)  # fmt: skip

MAX_CHANNELS = 4
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 192_000


def container_of(data: bytes | memoryview) -> str:
    """The demuxer for a file, by its first bytes. Raises: InvalidParameter for what is not on the list."""
    head = bytes(data[:16])
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "ogg"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:3] == b"ID3" or _is_mpeg_frame(head):
        return "mp3"
    raise refused("is no audio file of a known format" if head else "is empty")


def _is_mpeg_frame(head: bytes) -> bool:
    """Whether a file begins with the header of an MPEG audio frame of layer 1, 2 or 3."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer != 0 and bit_rate not in (0, 15) and rate != 3


def wav_seconds(data: bytes) -> float | None:
    """How long a WAV file says that it is; None where it does not say (a stream does not), or for others."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    at, bytes_per_s = 12, 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"fmt ":
            bytes_per_s = int.from_bytes(data[at + 16 : at + 20], "little")
        elif name == b"data":
            return size / bytes_per_s if bytes_per_s and 0 < size < 0x7FFFFFFF else None
        at += 8 + size + size % 2
    return None


def check_stream(codec: str, n_channels: int, rate_hz: int) -> None:
    """Raises: InvalidParameter for a codec, a number of channels or a rate that is not taken."""
    if codec not in CODECS:
        raise refused(f"is coded with {codec[:40] or 'nothing known'}")
    if not 1 <= n_channels <= MAX_CHANNELS:
        raise refused(f"has {n_channels} channels, at most {MAX_CHANNELS} are taken")
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise refused(f"has {rate_hz} samples a second, {MIN_RATE_HZ} to {MAX_RATE_HZ} are taken")


def refused(what: str) -> InvalidParameter:
    """The error for a file that is not taken; `what` completes "The file ..."."""
    return InvalidParameter(
        f"The file {what}: send one of {FORMATS}, with one audio stream and no video.", param="file"
    )

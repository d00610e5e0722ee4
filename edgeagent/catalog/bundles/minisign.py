"""Public keys and signatures in minisign's format, so that its users can verify bundles without edgeagent.

    untrusted comment: ...                    public key: 2 lines
    base64("Ed" + key number + key)           2, 8 and 32 bytes

    untrusted comment: ...                    signature: 4 lines
    base64("ED" + key number + signature)     2, 8 and 64 bytes; over the BLAKE2b-512 of the file
    trusted comment: ...
    base64(signature)                         64 bytes; over the 64 before and the trusted comment

The key number is any 8 bytes that identify a key; minisign shows it as a little-endian number.

Source: https://jedisct1.github.io/minisign/ (section "Signature format").
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable

SUFFIX = ".minisig"
NUMBER_BYTES, KEY_BYTES = 8, 32
_PUBLIC, _PREHASHED = b"Ed", b"ED"
_PUBLIC_TEXT = re.compile(r"untrusted comment: [^\r\n]*\r?\n([A-Za-z0-9+/]{56})(?:\r?\n)?")


def digest() -> hashlib.blake2b:
    """The hash of a file that is signed: feed it the whole file, then sign its 64 bytes."""
    return hashlib.blake2b(digest_size=64)


def public_key_text(number: bytes, raw: bytes, comment: str) -> str:
    """The content of a public key file. `comment` is one line."""
    return f"untrusted comment: {comment}\n{_base64(_PUBLIC + number + raw)}\n"


def parse_public_key(text: str) -> tuple[bytes, bytes]:
    """Number and key, 8 and 32 bytes, of a public key file. Raises: ValueError if it is not one."""
    found = _PUBLIC_TEXT.fullmatch(text)
    if found is None:
        raise ValueError("two lines are expected, 'untrusted comment: ...' and 56 characters")
    try:
        data = base64.b64decode(found[1], validate=True)
    except binascii.Error as error:
        raise ValueError(f"the second line is not base64 ({error})") from error
    if not data.startswith(_PUBLIC):
        raise ValueError("the second line does not begin with RW, as every Ed25519 key does")
    data = data.removeprefix(_PUBLIC)
    return data[:NUMBER_BYTES], data[NUMBER_BYTES:]


def signature_text(
    sign: Callable[[bytes], bytes], number: bytes, file_digest: bytes, *, comment: str, trusted: str
) -> str:
    """The content of a signature file. `sign` returns Ed25519 signatures; `file_digest` is `digest()` of
    the file. Both comments are one line each; `trusted` is signed, too."""
    signature = sign(file_digest)
    around = sign(signature + trusted.encode())
    return (
        f"untrusted comment: {comment}\n{_base64(_PREHASHED + number + signature)}\n"
        f"trusted comment: {trusted}\n{_base64(around)}\n"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

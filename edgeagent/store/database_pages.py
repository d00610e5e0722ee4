"""The decrypted pages of database files, below SQL: including free pages and old log frames.

SQL does not show freed pages, and encrypted bytes show nothing, so neither can prove that a text is gone.
SQLCipher 4 stores each page of 4096 bytes as AES-256-CBC ciphertext, followed by a 16-byte IV and a 64-byte
HMAC; the first 16 bytes of the file are the salt. With a raw key, the page key is that key itself.

Source: zetetic.net/sqlcipher/design, checked against SQLCipher 4.19 by the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from edgeagent.errors import StoreDamaged

PAGE = 4096
RESERVED = 80
_IV, _SALT, _LOG_HEAD, _FRAME_HEAD = 16, 16, 32, 24
_LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_READ_PAGES = 256


def decrypted(
    path: Path, key: bytes | None, opened: Callable[[Path], BinaryIO] = lambda path: path.open("rb")
) -> Iterator[bytes]:
    """The content of every page in a database or a write-ahead log. `key` None: a plain-text file.
    A file on which this process may hold SQLite's locks is `opened` by `open_raw`.

    A page that is being rewritten may be half old and half new; both halves are returned. Raises:
    StoreDamaged if the first page does not decrypt; OSError.
    """
    with opened(path) as file:
        is_log = file.read(4) in _LOG_MAGIC
        file.seek(_LOG_HEAD if is_log else 0)
        frame = PAGE + (_FRAME_HEAD if is_log else 0)
        n_seen = 0
        while block := file.read(frame * _READ_PAGES):
            for at in range(0, len(block), frame):
                head = block[at : at + frame - PAGE]
                page = block[at + frame - PAGE : at + frame]
                n_seen += 1
                number = int.from_bytes(head[:4], "big") if is_log else n_seen
                plain = page if key is None else _plain(page, key, is_first=number == 1)
                if n_seen == 1 and not is_log:
                    _check_first(path, page, plain, key)
                yield plain


def _plain(page: bytes, key: bytes, *, is_first: bool) -> bytes:
    if len(page) < PAGE:
        return page  # an incomplete last page: returned as it is
    body, iv = page[: PAGE - RESERVED], page[PAGE - RESERVED : PAGE - RESERVED + _IV]
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return decryptor.update(body[_SALT:] if is_first else body) + decryptor.finalize()


def _check_first(path: Path, page: bytes, plain: bytes, key: bytes | None) -> None:
    """Raise StoreDamaged if SQLite's header has a wrong page size or reserved bytes: the key is wrong."""
    head = page[16:21] if key is None else plain[:5]
    expected = PAGE.to_bytes(2, "big")
    if len(page) < PAGE or head[:2] != expected or (key is not None and head[4] != RESERVED):
        raise StoreDamaged(
            f"Database {path} cannot be searched: its first page does not decrypt to a page of "
            f"{PAGE} bytes with {RESERVED} reserved. Check it with `edgeagent data backup`."
        )

"""A chat template that replaces a model's own: a file beside the model's file.

It is a small text file. Its digest is in the model's install record and among the approvals.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from msgspec import Struct

from edgeagent.catalog.install_record import InstalledModel
from edgeagent.errors import InstallFailed, ModelAltered

# The longest template of any known model has 40 kB.
MAX_TEMPLATE_BYTES = 256 * 1024


class ChatTemplate(Struct, frozen=True):
    """The text of a template file."""

    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def file(self) -> str:
        """Its file name beside a model. Different texts have different names, so none is ever overwritten."""
        return f"chat-template-{self.sha256[:8]}.jinja"


def read_template(path: Path) -> ChatTemplate:
    """The template in a user's file. Raises: InstallFailed if it cannot be read or is not a template."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEMPLATE_BYTES + 1)
    except OSError as error:
        raise InstallFailed(
            f"The chat template {path} cannot be read ({error.strerror}): check the path."
        ) from error
    return _checked(data, str(path))


def _checked(data: bytes, name: str) -> ChatTemplate:
    if len(data) > MAX_TEMPLATE_BYTES:
        raise InstallFailed(
            f"The chat template {name} has more than {MAX_TEMPLATE_BYTES} bytes: give a Jinja template, "
            "not a model or its tokenizer."
        )
    try:
        # Some editors write a byte order mark, which no prompt should have.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InstallFailed(
            f"The chat template {name} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        ) from error
    if not text.strip() or "\0" in text:
        raise InstallFailed(
            f"The chat template {name} has no text, or NUL bytes: give a Jinja template."
        )
    return ChatTemplate(text)


def installed_template(model: InstalledModel) -> ChatTemplate | None:
    """The template that was installed with a model; None if the model's own is used.

    Raises: ModelAltered if it cannot be read as it was written.
    """
    if model.template_file is None:
        return None
    path = model.folder / model.template_file
    try:
        # The path must not be a link when it is opened, whatever it was when the folder was listed.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            # Exact bytes: the file was written without a byte order mark.
            text = file.read(MAX_TEMPLATE_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelAltered(
            f"The chat template of model {model.id!r} cannot be read from {path} ({error}): "
            f"`edgeagent models install {model.id} --chat-template FILE` installs it again."
        ) from error
    return ChatTemplate(text)

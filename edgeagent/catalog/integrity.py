"""Checks at each load that model files are the ones that were installed or approved.

    shipped with edgeagent      by the digest in its record
    installed or approved       by the digest in the state directory (`approvals`), not by its record
    dropped in and named        by the administrator (`default_model`, `pinned_models`): accepted at its
                                first use; from then on only this file is accepted
    dropped in otherwise        must wait for `edgeagent models approve`

A file is opened once; its digest and the data that the worker loads come from that one inode
(`FileIdentity`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Literal

from edgeagent.catalog.approvals import Approval, Approvals, identity_of
from edgeagent.catalog.chat_template import ChatTemplate, installed_template
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.model_library import Library
from edgeagent.errors import ModelAltered, ModelNotApproved, ModelUnusable
from edgeagent.types.engine_config import FileIdentity

logger = logging.getLogger(__name__)

# Hashing more than this takes long enough for a line in the log.
_LONG_BYTES = 256 << 20
# Large blocks: while the daemon imports its modules, this thread waits 5 ms for the interpreter after each
# read and each update. 96 MB take 0.3 s in blocks of 1 MiB, and 0.1 in these (2 cores of a Zen 4).
_BLOCK_BYTES = 16 << 20

Standing = Literal["approved", "named", "waiting"]


class Integrity:
    """Any thread. `named`: ids that the administrator's settings name."""

    def __init__(
        self, library: Library, approvals: Approvals, named: frozenset[str] = frozenset()
    ) -> None:
        self._library = library
        self._approvals = approvals
        self._named = named
        self._shares: dict[str, float] = {}

    def adopt(self) -> None:
        """Approve the installed models, once in the lifetime of a state directory.

        Raises: InstallFailed.
        """
        if self._approvals.is_new:
            self._approvals.adopt([*self._library.installed(), *self._library.adapters()])

    def standing(self, model: InstalledModel) -> Standing:
        """Whether a model may be served. Raises: InstallFailed."""
        if self._is_shipped(model) or self._approvals.get(model.id) is not None:
            return "approved"
        if not model.unmanaged and self._approvals.is_new:
            return "approved"
        return "named" if model.unmanaged and model.id in self._named else "waiting"

    def require(self, model: InstalledModel) -> None:
        """Raises: ModelNotApproved for a model that waits for approval."""
        if self.standing(model) == "waiting":
            raise ModelNotApproved(
                f"Model {model.id!r} was put into the models directory but is not approved: "
                f"`edgeagent models approve {model.id}` shows its digests and accepts it.",
                param="model",
            )

    def verified(self, model: InstalledModel) -> FileIdentity:
        """The identity of a model's file, after checking that it is the approved one. Blocks while it is
        hashed.

        Raises: ModelNotApproved, ModelAltered, ModelUnusable.
        """
        self.require(model)
        sha256, identity = self.measured(model)
        self._compare(model, sha256, self._expected(model, sha256))
        return identity

    def verified_beside(self, model: InstalledModel) -> dict[str, FileIdentity]:
        """The identities of the model's other files by name, after checking that they are the approved
        ones. Blocks while they are hashed. Raises: ModelAltered, ModelUnusable."""
        return {name: self.verify_beside(model, name) for name in model.beside}

    def verify_beside(self, model: InstalledModel, name: str) -> FileIdentity:
        """The same for one of the model's other files. Raises: ModelAltered, ModelUnusable."""
        approval = None if self._is_shipped(model) else self._approvals.get(model.id)
        approved = model.beside if approval is None else approval.beside
        sha256, identity = self.measured(model, name)
        self._compare(model, sha256, approved.get(name, "none"), name)
        return identity

    @staticmethod
    def _compare(
        model: InstalledModel, sha256: str, expected: str | None, name: str | None = None
    ) -> None:
        """Raises: ModelAltered. `name`: a file other than the model's main file."""
        if expected is None or sha256 == expected:
            return
        logger.error(
            "model_refused model=%s file=%s reason=altered sha256=%s approved=%s",
            model.id,
            name or model.file,
            sha256,
            expected,
        )
        file = f"File {name!r}" if name is not None else "The file"
        raise ModelAltered(
            f"{file} of model {model.id!r} is not the approved one (sha256 {sha256[:16]}, "
            f"approved is {expected[:16]}): `edgeagent models install {model.id}` fetches it again, "
            f"`edgeagent models approve {model.id}` accepts it as it is."
        )

    def check_template(self, model: InstalledModel, template_sha256: str | None) -> None:
        """Compare the chat template in a file's header with the approved one.

        Raises: ModelAltered.
        """
        approval = None if self._is_shipped(model) else self._approvals.get(model.id)
        approved = model.template_sha256 if approval is None else approval.template_sha256
        if approved is not None and template_sha256 != approved:
            raise self._other_template(model)

    def template(self, model: InstalledModel) -> ChatTemplate | None:
        """The chat template that was installed with a model, after checking that it is the approved one;
        None if the model's own is used. Raises: ModelAltered, also if one was added or removed."""
        approval = None if self._is_shipped(model) else self._approvals.get(model.id)
        approved = model.template_file_sha256 if approval is None else approval.template_file_sha256
        template = installed_template(model)
        if (template.sha256 if template is not None else None) != approved:
            raise self._other_template(model)
        return template

    def _other_template(self, model: InstalledModel) -> ModelAltered:
        logger.error("model_refused model=%s reason=template", model.id)
        return ModelAltered(
            f"The chat template of model {model.id!r} is not the approved one: "
            f"`edgeagent models approve {model.id}` shows it, `edgeagent models install {model.id}` "
            "fetches the model again."
        )

    def share(self, model_id: str) -> float | None:
        """The hashed share of a model's file, 0 to 1; None if it is not being hashed."""
        return self._shares.get(model_id)

    def measured(self, model: InstalledModel, name: str | None = None) -> tuple[str, FileIdentity]:
        """Digest and identity of a model's file, or of its other file called `name`; from the stored
        digests if the file is unchanged. Raises: ModelUnusable."""
        path = (model.folder / name if name is not None else model.path).absolute()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as exc:
            raise ModelUnusable(
                f"Model {model.id!r} cannot be read ({exc.strerror}): check its file."
            ) from exc
        try:
            return self._measured(model, path, descriptor)
        except OSError as exc:
            raise ModelUnusable(
                f"Model {model.id!r} cannot be read ({exc.strerror}): check the disk."
            ) from exc
        finally:
            self._shares.pop(model.id, None)
            os.close(descriptor)

    def _measured(
        self, model: InstalledModel, path: Path, descriptor: int
    ) -> tuple[str, FileIdentity]:
        identity = identity_of(os.fstat(descriptor))
        known = self._approvals.digest(path, identity)
        if known is not None:
            return known, identity
        sha256 = self._hash(model, descriptor)
        if identity_of(os.fstat(descriptor)) != identity:
            raise ModelAltered(
                f"The file of model {model.id!r} was changed while it was read: try again later."
            )
        self._approvals.keep_digest(path, identity, sha256)
        return sha256, identity

    def _hash(self, model: InstalledModel, descriptor: int) -> str:
        total = os.fstat(descriptor).st_size
        begun, digest, done = time.monotonic(), hashlib.sha256(), 0
        if total > _LONG_BYTES:
            logger.info("model_hashing model=%s n_bytes=%s", model.id, total)
        block = memoryview(bytearray(min(total, _BLOCK_BYTES)))
        while n_read := os.readv(descriptor, [block]):
            digest.update(block[:n_read])
            done += n_read
            self._shares[model.id] = done / max(total, done)
        logger.info(
            "model_hashed model=%s n_bytes=%s took_s=%.1f", model.id, done, time.monotonic() - begun
        )
        return digest.hexdigest()

    def _expected(self, model: InstalledModel, sha256: str) -> str | None:
        """The digest that a model's file must have; the first digest seen becomes the required one."""
        if self._is_shipped(model):
            return model.sha256
        self.adopt()
        approval: Approval | None = self._approvals.get(model.id)
        if approval is not None and approval.sha256 is not None:
            return approval.sha256
        template = approval.template_sha256 if approval is not None else None
        file = approval.template_file_sha256 if approval is not None else None
        beside = approval.beside if approval is not None else {}
        logger.warning("model_approved model=%s sha256=%s how='first use'", model.id, sha256)
        self._approvals.approve(
            model.id, sha256, template, "first use", template_file_sha256=file, beside=beside
        )
        return sha256

    def _is_shipped(self, model: InstalledModel) -> bool:
        return model.folder.parent == self._library.shipped_dir

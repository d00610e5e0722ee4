"""The model library: the models in the models directories, and how to find one by id.

    <models_dir>/
      smollm2-135m-instruct/          one folder per model, `/` in an id written as `__`
        SmolLM2-135M-Instruct.gguf
        installed.toml                written last; without it the folder does not count
      my-own.gguf                     dropped in by hand: found, but `unmanaged`; an installed model
                                      with that id takes precedence
      catalog.toml                    the user's additions to the catalog
      .staging/                       unfinished installations; models are never loaded from here

Shipped models have the same layout in the read-only folder of the package, described by the same
`installed.toml` (or `model.toml`); an installed model with the same id takes precedence.

Reading takes no lock: an installation takes effect by renaming.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edgeagent.catalog.approvals import Approvals
from edgeagent.catalog.digest import Progress, no_progress, sha256_of
from edgeagent.catalog.install_record import RECORD_NAMES, InstalledModel, read_record
from edgeagent.catalog.model_ids import check_id, folder_name, id_of_file, nearest
from edgeagent.errors import InstallFailed, ModelNotFound, ModelUnusable

if TYPE_CHECKING:
    from edgeagent.catalog.gguf.model_facts import ModelFacts

STAGING = ".staging"


def shipped_models_dir() -> Path:
    """The folder of shipped models: `models/` of a checkout, `edgeagent/models/` of a wheel.

    The folder holds data and is never imported. It may not exist if nothing is shipped.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "models"
    if installed.is_dir():
        return installed
    return package.parent / "models"


class Library:
    """The models of one writable and one shipped directory. Any thread may use it.

    With a `state_dir`, installed models are approved there, and removed ones lose their approval.
    """

    def __init__(
        self, models_dir: Path, shipped_dir: Path | None = None, state_dir: Path | None = None
    ) -> None:
        self.models_dir = Path(models_dir)
        self.shipped_dir = shipped_models_dir() if shipped_dir is None else Path(shipped_dir)
        self.state_dir = state_dir
        self.approvals = Approvals(state_dir) if state_dir is not None else None

    def folder(self, model_id: str) -> Path:
        """The folder of `model_id`, installed or not. Raises: ModelNotFound for a malformed id."""
        return self.models_dir / folder_name(model_id)

    def installed(self) -> list[InstalledModel]:
        """Every usable model, sorted by id, without adapters and parts. Unreadable folders are skipped.

        Raises: InstallFailed if the models directory exists and cannot be listed.
        """
        return [one for one in self._everything() if one.base is None and not one.is_part]

    def adapters(self, base: str | None = None) -> list[InstalledModel]:
        """The LoRA adapters of one model or of all, sorted by id. Raises as `installed`."""
        found = [one for one in self._everything() if one.base is not None]
        return [one for one in found if base in (None, one.base)]

    def parts(self) -> list[InstalledModel]:
        """The models that are parts of others, sorted by id. Raises as `installed`."""
        return [one for one in self._everything() if one.is_part]

    def _everything(self) -> list[InstalledModel]:
        found: dict[str, InstalledModel] = {}
        for root in (self.shipped_dir, self.models_dir):
            for path in _listed(root):
                model = self._model_at(path)
                # A bare file never replaces an installed and checked model.
                if model is not None and not (model.unmanaged and model.id in found):
                    found[model.id] = model
        return [found[model_id] for model_id in sorted(found)]

    def resolve(self, model_id: str) -> InstalledModel:
        """The installed model or adapter called `model_id`.

        Raises: ModelNotFound naming the nearest installed id and the command that installs it.
        """
        check_id(model_id)
        models = {model.id: model for model in self._everything()}
        if model_id in models:
            return models[model_id]
        near = nearest(model_id, models)
        hint = f"did you mean {near!r}? If not, " if near else ""
        raise ModelNotFound(
            f"Model {model_id!r} is not one of the {len(models)} installed:"
            f" {hint}'edgeagent models install {model_id}' installs it if the catalog has it,"
            " 'edgeagent models list' shows the installed ones",
            param="model",
        )

    def verify(self, model_id: str, progress: Progress = no_progress) -> ModelFacts | None:
        """Hash the files of a model again and check its header.

        Returns the facts of a GGUF model, None for another format. Raises: ModelUnusable with expected and
        found digest; GGUFRefused for a bad header.
        """
        # Imported here: the header reader imports numpy, which the daemon must not load.
        from edgeagent.catalog.gguf.model_facts_reader import inspect

        model = self.resolve(model_id)
        for name, expected, how in self._digests(model):
            path = model.folder / name
            found = _hashed(path, progress)
            if found != expected:
                raise ModelUnusable(
                    f"{name!r} of model {model_id!r} has sha256 {found}, {how} is {expected}:"
                    f" 'edgeagent models install {model_id}' fetches it again"
                )
        if model.base is not None:
            self.verify_adapter(model)
            return None
        return inspect(model.path) if model.path.suffix == ".gguf" else None

    def verify_adapter(self, adapter: InstalledModel) -> None:
        """Check the header of an adapter against its model. Raises: GGUFRefused, ModelNotFound."""
        from edgeagent.catalog.gguf.adapter_header import inspect_adapter

        assert adapter.base is not None
        inspect_adapter(adapter.path, self.resolve(adapter.base).path)

    def _digests(self, model: InstalledModel) -> list[tuple[str, str, str]]:
        """File, expected digest and the origin of that digest: the approval if there is one, else the
        record."""
        approval = self.approvals.get(model.id) if self.approvals is not None else None
        found = {name: (digest, "recorded") for name, digest in model.digests().items()}
        if approval is not None and approval.sha256 is not None:
            found[model.file] = (approval.sha256, "approved")
        if approval is not None and model.template_file is not None:
            told = approval.template_file_sha256
            found[model.template_file] = (told, "approved") if told else ("none", "approved")
        if approval is not None:
            approved = {name: approval.beside.get(name, "none") for name in model.beside}
            found |= {name: (digest, "approved") for name, digest in approved.items()}
        return [(name, *told) for name, told in found.items()]

    def remove(self, model_id: str) -> None:
        """Delete an installed model and its folder.

        Raises: ModelNotFound if it is not installed, InstallFailed if it cannot be deleted.
        """
        model = self.resolve(model_id)
        if self.models_dir.resolve() not in model.path.resolve().parents:
            raise InstallFailed(
                f"Model {model_id!r} is shipped with edgeagent in {self.shipped_dir}, which is"
                " read-only: it cannot be removed"
            )
        adapters = [one.id for one in self.adapters() if one.base == model_id]
        if adapters:
            raise InstallFailed(
                f"Model {model_id!r} has adapters ({', '.join(adapters)}): remove them first, with 'edgeagent"
                " models adapter remove'"
            )
        if self.approvals is not None:
            self.approvals.forget(model_id)
        try:
            if model.unmanaged:
                model.path.unlink()
                return
            # Delete the record first: if we are stopped, a folder without a record is not a model.
            for name in RECORD_NAMES:
                (model.folder / name).unlink(missing_ok=True)
            shutil.rmtree(model.folder)
        except OSError as error:
            raise InstallFailed(
                f"Model {model_id!r} cannot be removed from {model.folder} ({error}): check the"
                " permissions of the folder"
            ) from error

    def _model_at(self, path: Path) -> InstalledModel | None:
        """The model in a folder or bare file of a models directory, or None."""
        try:
            return self._look_at(path)
        except OSError:
            # Removed or replaced since the listing, or not readable.
            return None

    def _look_at(self, path: Path) -> InstalledModel | None:
        if path.is_symlink():
            # A link may lead out of the directory, and may change after this check.
            return None
        if path.is_dir():
            model = read_record(path)
            right = model is not None and folder_name(model.id) == path.name
            return model if right else None
        model_id = id_of_file(path.name) if path.suffix.lower() == ".gguf" else None
        if model_id is None or not path.is_file():
            return None
        return InstalledModel.bare(model_id, path)


def _listed(root: Path) -> list[Path]:
    try:
        paths = sorted(root.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InstallFailed(
            f"The models directory {root} cannot be read ({error}): check that it is a directory"
            " and its permissions, or set models.dir to another"
        ) from error
    return [path for path in paths if not path.name.startswith(".")]


def _hashed(path: Path, progress: Progress) -> str:
    try:
        return sha256_of(path, progress)
    except OSError as error:
        raise ModelUnusable(
            f"{path} cannot be read ({error}): check the disk, then install the model again"
        ) from error

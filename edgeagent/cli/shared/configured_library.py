"""The model library, the catalog and the model to install first, according to the settings."""

from __future__ import annotations

from edgeagent.catalog.approvals import Approvals
from edgeagent.catalog.catalog_file import Catalog, Shipped, load_catalog
from edgeagent.catalog.installed import named_models
from edgeagent.catalog.integrity import Integrity
from edgeagent.catalog.model_library import Library, shipped_models_dir
from edgeagent.device.configuration import Configuration
from edgeagent.settings import Settings


def library_of(settings: Settings) -> Library:
    return Library(settings.effective_models_dir, settings.models.bundled_dir, settings.state_dir)


def integrity_of(configuration: Configuration) -> Integrity:
    settings = configuration.settings
    approvals = Approvals(settings.state_dir)
    return Integrity(library_of(settings), approvals, named_models(configuration.resolved))


def catalog_of(settings: Settings) -> Catalog:
    return load_catalog(
        shipped_models_dir() / "catalog.toml", settings.effective_models_dir / "catalog.toml"
    )


def model_to_install(settings: Settings) -> str:
    """The default model; its larger model if the default is bundled and cannot be installed."""
    known, wanted = catalog_of(settings), settings.models.default
    if wanted not in known or known.entry(wanted).larger is None:
        return wanted
    entry = known.entry(wanted)
    sources = [source for variant in entry.variants for source in variant.sources]
    return str(entry.larger) if all(isinstance(s, Shipped) for s in sources) else wanted

"""Validators of bodies are built at their first use. Here all are, so that none fails before a client."""

from __future__ import annotations

from collections.abc import Iterator

from edgeagent.api import application
from edgeagent.api.http.body_base import BodyModel


def models_below(base: type[BodyModel]) -> Iterator[type[BodyModel]]:
    for model in base.__subclasses__():
        yield model
        yield from models_below(model)


def test_every_validator_can_be_built():
    assert application.ROUTES
    models = list(models_below(BodyModel))
    assert len(models) > 150
    for model in models:
        assert model.model_rebuild() is not False, model
        assert model.__pydantic_complete__, model

"""Chooses the model of a request. Pure: names and tasks of the installed models in, a decision out.

1. the request names a model of the wanted task      that model answers ("named")
2. it names a model of another task                  a 400 that lists the models of the wanted task
3. it names none, or `default`                       the default model of the task answers ("default")
4. no model of the task is installed                 an error that names the command that installs one

A name that no installed model has passes as "named": the pool refuses it and suggests the nearest name.
Aliases are resolved before (serving/model_choice.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeagent.errors import InvalidParameter, ModelNotFound, Unavailable
from edgeagent.routing.decision import Decision
from edgeagent.routing.model_tasks import TASK_WORDS, none_installed, wrong_kind
from edgeagent.types.engine_config import Task

RETRY_AFTER_S = 30.0


@dataclass(frozen=True)
class ModelNames:
    """Ids of the installed models by task, and the default model for text; None where there is none."""

    by_task: Mapping[Task, Sequence[str]]
    default_id: str | None

    def of(self, task: Task) -> list[str]:
        return list(self.by_task.get(task, ()))

    def task_of(self, model_id: str) -> Task | None:
        """The task of an installed model; None for a name that none has."""
        return next((task for task, ids in self.by_task.items() if model_id in ids), None)


def text_model(name: str | None, models: ModelNames) -> Decision:
    """The model for a chat or a text; `name` None means the default one.

    Raises: InvalidParameter for a model of another task; Unavailable where no text model is installed.
    """
    if name is not None:
        task = models.task_of(name)
        if task is not None and task != "generate":  # 2
            raise InvalidParameter(
                wrong_kind(name, task, "generate", models.of("generate")), param="model"
            )
        return Decision(name, "named")  # 1
    if models.default_id is None:  # 4
        raise Unavailable(
            none_installed("generate") + " `edgeagent models list` shows the others.",
            retry_after_s=RETRY_AFTER_S,
        )
    return Decision(models.default_id, "default")  # 3


def task_model(task: Task, name: str | None, models: ModelNames) -> Decision:
    """The model for embeddings or rankings; `name` None means the first one.

    Raises: InvalidParameter for a model of another task; ModelNotFound where none is installed.
    """
    able = models.of(task)
    if name is not None:
        other = models.task_of(name)
        if other is not None and other != task:  # 2
            raise InvalidParameter(wrong_kind(name, other, task, able), param="model")
        return Decision(name, "named")  # 1
    if not able:  # 4
        raise ModelNotFound(none_installed(task), param="model")
    return Decision(able[0], "default")  # 3


def any_model(name: str | None, models: ModelNames) -> Decision:
    """The model for what every task can do, such as tokenizing: the text default before the others.

    Raises: ModelNotFound where none is installed.
    """
    if name is not None:
        return Decision(name, "named")  # 1
    first = [models.default_id, *models.of("embed"), *models.of("rerank")]
    for model_id in first:
        if model_id is not None:
            return Decision(model_id, "default")  # 3
    raise ModelNotFound(  # 4
        f"No model is installed: `edgeagent models install {TASK_WORDS['generate'].small}` installs a "
        "small one.",
        param="model",
    )

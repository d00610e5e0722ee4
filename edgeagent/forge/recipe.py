"""Recipes of trainings: the model, the data and the method, one TOML file each; unknown keys are errors."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeagent.errors import ForgeFailed

RECIPES = Path(__file__).parent / "recipes"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShapeRecipe(_Part):
    """Sizes of a decoder; the vocabulary size comes from the tokenizer."""

    n_embd: int = Field(ge=8, le=4096)
    n_layers: int = Field(ge=1, le=64)
    n_head: int = Field(ge=1, le=64)
    n_head_kv: int = Field(ge=1, le=64)
    n_ff: int = Field(ge=8, le=16384)
    n_ctx: int = Field(512, ge=32, le=8192)
    rope_base: float = Field(10_000.0, gt=1)

    @model_validator(mode="after")
    def _divides(self) -> ShapeRecipe:
        if (
            self.n_embd % self.n_head
            or self.n_head % self.n_head_kv
            or self.n_embd // self.n_head % 2
        ):
            raise ValueError(
                f"n_embd {self.n_embd} must be n_head {self.n_head} times an even number, and n_head a "
                f"multiple of n_head_kv {self.n_head_kv}"
            )
        return self


class StartRecipe(_Part):
    """The initial weights: a published model's word vectors and its blocks by number, or all weights of
    another run of the same shape."""

    pretrained: Literal["smollm2"] = "smollm2"
    blocks: list[int] = Field(default_factory=list)
    run: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> StartRecipe:
        if self.run is not None and self.blocks:
            raise ValueError("a run includes its blocks: leave out either run or blocks")
        return self


class LossRecipe(_Part):
    """See `assistant_task.Weights`."""

    slots: float = Field(0.3, ge=0)
    prompt: float = Field(0.0, ge=0)
    any_token: float = Field(0.1, ge=0)
    smoothing: float = Field(0.0, ge=0, lt=1)
    teacher: float = Field(0.0, ge=0, le=1)
    temperature: float = Field(2.0, gt=0)
    hint: float = Field(0.0, ge=0)


class PlanRecipe(_Part):
    """See `trainer.Plan`."""

    epochs: int = Field(ge=1, le=1000)
    learning_rate: float = Field(gt=0, le=1)
    batch_tokens: int = Field(2048, ge=64)
    warmup: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(1.0, gt=0)
    evaluate_every: int = Field(1, ge=1)
    patience: int | None = Field(None, ge=1)
    precision: Literal["auto", "f32", "bf16"] = "auto"
    average: float = Field(0.0, ge=0, lt=1)
    group_rates: dict[str, float] = Field(default_factory=dict)


class TeacherRecipe(_Part):
    """The name of the run whose model is the teacher, and its share among the teachers."""

    run: str
    weight: float = Field(1.0, gt=0)


class Recipe(_Part):
    """One training. A decoder becomes an assistant; an encoder is only a teacher."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    description: str = ""
    kind: Literal["decoder", "encoder"] = "decoder"
    seed: int = Field(1, ge=0)
    n_tokens: int = Field(6144, ge=1024, le=65536, description="size of the vocabulary")
    n_variants: int = Field(4, ge=1, le=64)
    slots_every: int = Field(1, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    n_hidden: int = Field(
        0, ge=0, description="of an encoder: width of its head's hidden layer, 0 for none"
    )
    shape: ShapeRecipe | None = None
    start: StartRecipe | None = None
    loss: LossRecipe = Field(default_factory=lambda: LossRecipe.model_validate({}))
    plan: PlanRecipe
    teachers: list[TeacherRecipe] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_whole(self) -> Recipe:
        if self.kind == "decoder" and self.shape is None:
            raise ValueError("a decoder needs a [shape]")
        n_blocks = len(self.start.blocks) if self.start is not None else 0
        if n_blocks and self.shape is not None and n_blocks != self.shape.n_layers:
            raise ValueError(
                f"start.blocks names {n_blocks} blocks, shape.n_layers is {self.shape.n_layers}: name one "
                "for each layer"
            )
        return self


def read_recipe(path: Path) -> Recipe:
    """Raises: ForgeFailed with the first error and its place."""
    if not path.suffix and not path.exists():
        path = RECIPES / f"{path.name}.toml"
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise ForgeFailed(
            f"There is no recipe {path}: name a TOML file, or one of {known}."
        ) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ForgeFailed(f"{path} cannot be read ({exc}): check the file.") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ForgeFailed(f"{path} is not TOML ({exc}): correct it there.") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the recipe"
        more = f", and {exc.error_count() - 1} more" if exc.error_count() > 1 else ""
        raise ForgeFailed(f"{path}: {where}: {first['msg']}{more}. Correct the recipe.") from exc

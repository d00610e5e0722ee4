"""`edgeagent quantize`: make a smaller copy of a model file, by a type or by a recipe."""

from __future__ import annotations

import re
from pathlib import Path

import click

from edgeagent.cli.shared.sizes import megabytes
from edgeagent.errors import InvalidParameter

FILE = click.Path(path_type=Path, dir_okay=False)
INPUT = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("source", type=INPUT)
@click.argument("target", type=FILE)
@click.option(
    "--type", "file_type", metavar="TYPE", help="A mixture of llama.cpp, such as Q4_K_M or Q8_0."
)
@click.option("--recipe", type=INPUT, metavar="FILE",
              help="A recipe (TOML) that says everything; it makes the same file to the byte.")  # fmt: skip
@click.option(
    "--imatrix", type=INPUT, metavar="FILE", help="Importance matrix, by `edgeagent imatrix`."
)
@click.option("--tensor", "tensors", multiple=True, metavar="REGEX=TYPE",
              help="The type of the tensors whose name matches; may be repeated, the first match "
              "counts.")  # fmt: skip
@click.option("--drop-layer", "dropped", multiple=True, type=click.IntRange(0), metavar="N",
              help="Leave out a whole layer; may be repeated.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 256), help="Threads. Default: one per core.")
@click.option("--dry-run", is_flag=True, help="Only print the exact size and the types.")
def quantize(
    source: Path, target: Path, file_type: str | None, recipe: Path | None, imatrix: Path | None,
    tensors: tuple[str, ...], dropped: tuple[int, ...], threads: int | None, dry_run: bool,
) -> None:  # fmt: skip
    """Write SOURCE (F16, F32 or a finer quantization) as TARGET with fewer bits a weight.

    \b
        edgeagent quantize model-F16.gguf model-Q4_K_M.gguf --type Q4_K_M --imatrix model.imatrix.gguf
        edgeagent quantize model-F16.gguf small.gguf --type Q4_0 --tensor 'ffn_down=Q5_0'
        edgeagent quantize model-F16.gguf again.gguf --recipe small.recipe.toml

    Beside TARGET, TARGET.recipe.toml records what made it.
    """
    if (file_type is None) == (recipe is None):
        raise InvalidParameter("Give either --type or --recipe.")
    if recipe is not None and (tensors or dropped):
        raise InvalidParameter(
            "A recipe says all types and layers: leave --tensor and --drop-layer out."
        )
    from edgeagent.catalog.gguf.header import read_header
    from edgeagent.optimize import quantize as quantizing
    from edgeagent.optimize.recipe import Recipe, read_recipe, write_recipe
    from edgeagent.optimize.sensitivity import quantizable

    quantizing.check_source(source)
    header = read_header(source)
    if recipe is not None:
        wanted = read_recipe(recipe)
    else:
        layers = tuple(sorted(set(dropped)))
        names = quantizing.renamed_layers(header, layers)
        able = [names[name] for name in quantizable(header) if name in names]
        wanted = Recipe(str(file_type).upper(), _matching(tensors, able), layers)
    wanted.check()
    if dry_run:
        (types,) = quantizing.planned(source, [wanted], imatrix)
        size = quantizing.predicted_bytes(header, types, wanted.dropped_layers)
        counts = {kind: list(types.values()).count(kind) for kind in dict.fromkeys(types.values())}
        told = ", ".join(f"{n} {kind}" for kind, n in counts.items())
        click.echo(f"{size} bytes ({megabytes(size)}); tensors: {told}")
        return
    made = quantizing.quantize(source, target, wanted, importance=imatrix, n_threads=threads or 0)
    write_recipe(made, target.with_name(f"{target.name}.recipe.toml"))
    click.echo(f"{target}: {megabytes(target.stat().st_size)}")


def _matching(rules: tuple[str, ...], names: list[str]) -> dict[str, str]:
    """The types of the tensors that the rules name. Raises: InvalidParameter for a rule without effect."""
    found: dict[str, str] = {}
    for rule in rules:
        pattern, _, kind = rule.rpartition("=")
        try:
            matched = [name for name in names if pattern and re.search(pattern, name)]
        except re.error as exc:
            raise InvalidParameter(
                f"{pattern!r} is not a regular expression ({exc}): correct it."
            ) from exc
        if not matched:
            raise InvalidParameter(
                f"--tensor {rule!r} matches no tensor that can be quantized: write REGEX=TYPE, with names "
                f"such as {names[0]}."
            )
        for name in matched:
            found.setdefault(name, kind.upper())
    return found

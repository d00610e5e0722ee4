"""`edgeagent forge adapt`: a LoRA adapter for an installed chat model, from pairs of prompts and answers."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import click

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.install.adapter_installer import check_place, install_adapter
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.model_ids import check_id
from edgeagent.cli.shared.configured_library import library_of
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.trial_load import trial_adapter
from edgeagent.errors import ForgeFailed

N_CTX = 512  # tokens of a pair
_TICKS = 1000  # of the progress bar


@click.command()
@click.argument("model")
@click.argument("name")
@click.option(
    "--from", "source", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Pairs: CSV (prompt,answer) or JSON lines.",
)  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0.1, 1440), default=10.0, show_default=True,
              help="Time for the training.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1, 100), default=5, show_default=True,
              help="At most; it ends earlier where unseen pairs get no better.")  # fmt: skip
@click.option("--rank", type=click.IntRange(1, 64), default=8, show_default=True,
              help="Of the change of each matrix.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(1e-6, 1e-1), default=1e-3, show_default=True,
              help="Learning rate.")  # fmt: skip
@click.option("--system", metavar="TEXT", help="System message that answers are given under.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@settings_options
def adapt(
    model: str, name: str, source: Path, minutes: float, epochs: int, rank: int, rate: float,
    system: str | None, seed: int, config: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Train the LoRA adapter NAME for the installed chat model MODEL, and install it.

    \b
        edgeagent forge adapt smollm2-135m-instruct ferry-style --from pairs.csv
        edgeagent chat --model ferry-style

    \b
    pairs.csv:
        prompt,answer
        When is the office open?,"From 8 to 17, Monday to Friday. Anything else?"

    A tenth of the pairs is held out: the perplexity of their answers is printed as it was before and is
    after. An adapter teaches a manner, a format, a task; facts belong into a knowledge base. Needs
    `pip install 'edgeagent[forge]'`. An interrupted training goes on with the same command.
    """
    library = library_of(configured(config, **flags).settings)
    base = library.resolve(model)
    check_place(check_id(name), base, library)
    try:
        import torch  # noqa: F401
    except ImportError as exc:
        raise ForgeFailed("Adapters need torch: run pip install 'edgeagent[forge]'.") from exc
    from edgeagent.forge.adapters.pairs import digest_of, read_pairs, split

    pairs = read_pairs(source)
    folder = configured(config, **flags).settings.state_dir / "forge" / "adapters" / name
    folder.mkdir(parents=True, exist_ok=True)
    made = split(pairs, seed)
    told = [sha256_of(base.path), digest_of(pairs), system, epochs, rank, rate, seed]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    click.echo(f"{len(made.train)} pairs to learn from, {len(made.held)} to measure by", err=True)
    figures, path = _trained(base, made, folder, key, (minutes, epochs, rank, rate, seed), system)
    done = install_adapter(path, base, library, adapter_id=name, trial=trial_adapter)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder / "work", ignore_errors=True)
    click.echo(
        f"{done.id}: perplexity of {figures['n_held']} unseen answers {figures['before']:.2f} before, "
        f"{figures['after']:.2f} after; {figures['n_steps']} steps, {megabytes(done.size_bytes)}"
    )
    if not figures["is_complete"]:
        click.echo(
            f"The {minutes:g} minutes were over before the epochs: give more --minutes.", err=True
        )
    click.echo(f'Served as "model": "{done.id}", an adapter of {base.id}.')


def _trained(
    base: InstalledModel, made: Any, folder: Path, key: str, wish: tuple[float, int, int, float, int],
    system: str | None,
) -> tuple[dict[str, Any], Path]:  # fmt: skip
    """The figures of a training, and the file of the adapter."""
    import torch

    from edgeagent.forge.adapters.base_model import BaseModel
    from edgeagent.forge.adapters.chat_tokens import token_pairs
    from edgeagent.forge.adapters.lora import Adapter, write_adapter
    from edgeagent.forge.adapters.training import Training, TrainingOptions

    minutes, epochs, rank, rate, seed = wish
    work = folder / "work"
    work.mkdir(exist_ok=True)
    own = base.template_file
    template = (base.folder / own).read_text(encoding="utf-8") if own is not None else None
    with timed_progress() as tell:
        n = len(made.train) + len(made.held)
        told = [
            token_pairs(
                base.path,
                template,
                pairs,
                system=system,
                n_ctx=N_CTX,
                tell=lambda: tell("tokens", 1, n),
            )
            for pairs in (made.train, made.held)
        ]
        (train, long), (held, held_long) = told
        if len(train) < 4 or not held:
            raise ForgeFailed(
                f"{long + held_long} pairs have more than {N_CTX} tokens, too few are left: shorten them."
            )
        torch.manual_seed(seed)
        model = BaseModel(base.path, N_CTX)
        adapter = Adapter(model, rank, 2.0 * rank)
        options = TrainingOptions(epochs, 60 * minutes, rate, seed)
        training = Training(model, adapter, train, held, options, work / "checkpoint.pt", key)
        shown = 0

        def step(part: float, loss: float) -> None:
            nonlocal shown
            ticks = int(part * _TICKS)
            tell("training", ticks - shown, _TICKS)
            shown = ticks

        found = training.run(step)
    path = folder / "adapter.gguf"
    write_adapter(path, found.state, adapter.alpha, folder.name)
    figures = {
        "base": base.id, "before": found.before, "after": found.after, "losses": found.losses,
        "n_steps": found.n_steps, "n_train": len(train), "n_held": len(held),
        "n_too_long": long + held_long, "is_complete": found.is_complete,
    }  # fmt: skip
    return figures, path

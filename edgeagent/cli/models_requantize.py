"""`edgeagent models install --requantize`: tensor types that are faster on this device."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeagent.catalog.chat_template import ChatTemplate
from edgeagent.catalog.exclusive_lock import exclusive_lock
from edgeagent.catalog.gguf.ggml_types import FILE_TYPES
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.install import installer as installing
from edgeagent.catalog.install.installation import UNKNOWN
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.model_ids import folder_name
from edgeagent.catalog.model_library import Library
from edgeagent.catalog.sizing.speed import Rates
from edgeagent.cli.models_recommend import rates_here, rates_kept
from edgeagent.cli.shared.configured_library import catalog_of
from edgeagent.cli.shared.measured_rates import n_threads_of
from edgeagent.cli.shared.progress import byte_progress, timed_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.trial_load import trial_load
from edgeagent.device.configuration import Configuration
from edgeagent.durable import way_out
from edgeagent.errors import EdgeAgentError, InstallFailed

if TYPE_CHECKING:
    from edgeagent.optimize.evaluate import EvaluationOptions, Tell
    from edgeagent.optimize.requantization import Forecast, RequantizedFile, Trials

NEVER, AUTO, BEST = "never", "auto", "best"
MIXTURE_MINUTES = 3.0
# Bytes of memory for each weight while a mixture is looked for: float16, and what was altered once more.
PROBE_BYTES = 4


def checked_type(wanted: str) -> str:
    """What `--requantize` says. Raises: UsageError for a type that does not exist."""
    if wanted in (NEVER, AUTO, BEST) or wanted.upper() in FILE_TYPES.values():
        return wanted
    raise click.UsageError(
        f"--requantize {wanted!r} is no tensor type: use auto, best, never, or one of "
        f"{', '.join(FILE_TYPES.values())}."
    )


def offer_requantization(
    here: Configuration, library: Library, model: InstalledModel, wanted: str,
    text: Path | None, template: ChatTemplate | None, minutes: float = MIXTURE_MINUTES,
) -> InstalledModel:  # fmt: skip
    """Make the model faster if the user wants that. Returns what is installed then.

    `wanted`: "never"; "auto" offers the fastest file within the bound of the divergence, at a terminal, and
    elsewhere says what it would offer; "best" makes that without a question; or a type, which is made.
    `minutes` are spent on probing the matrices for a mixture of types at most; with 0 only files of one type
    are made.

    Raises: InstallFailed where a type was named and cannot be had; what was installed stays.
    """
    if wanted == NEVER or not _is_plain_text_model(here, model):
        if wanted not in (NEVER, AUTO, BEST):
            raise InstallFailed(
                f"{model.id} is not a GGUF model that generates text: it stays as it is; leave "
                "--requantize out."
            )
        return model
    if wanted not in (AUTO, BEST):
        return _made(here, library, model, wanted.upper(), text, template)
    try:
        return _offered(here, library, model, wanted, text, template, minutes)
    except EdgeAgentError as exc:  # the model is installed, and that is what was asked for
        click.echo(f"No faster tensor type is offered: {exc.message}", err=True)
        return model


def _is_plain_text_model(here: Configuration, model: InstalledModel) -> bool:
    entry = catalog_of(here.settings).entries.get(model.id)
    is_chat = entry is None or (entry.task == "chat" and entry.tools is None)
    return is_chat and model.path.suffix == ".gguf" and model.base is None and model.tools is None


def _offered(
    here: Configuration, library: Library, model: InstalledModel, wanted: str, text: Path | None,
    template: ChatTemplate | None, minutes: float,
) -> InstalledModel:  # fmt: skip
    from edgeagent.optimize.requantization import forecasts, worthwhile

    asks = wanted == AUTO and sys.stdin.isatty() and sys.stderr.isatty()
    only_tells = wanted == AUTO and not asks
    # Installing should not take longer for a remark: what was measured when idle is enough for it.
    rates = rates_kept(here) if only_tells else rates_here(here, times_types_twice=True)[0]
    if rates is None or not rates.tensors:
        if wanted == BEST:
            click.echo(
                f"{model.id} stays {quant_of(model)}: the speed of tensor types could not be measured here. "
                "Name a type, such as --requantize Q8_0, to try it.",
                err=True,
            )
        return model
    found = forecasts(model.path, rates, most_bytes=here.budget.n_bytes)
    worth = worthwhile(found)
    if not worth:
        if wanted == BEST:
            click.echo(_why_none(found, model), err=True)
        return model
    best = worth[0]
    told = (
        f"This device would read prompts {best.prefill_gain:.1f} times and write answers "
        f"{best.decode_gain:.1f} times as fast with {best.file_type} in place of {quant_of(model)}, by its "
        "speed of tensor types."
    )
    if only_tells:
        click.echo(
            f"{told} `edgeagent models install {model.id} --requantize best` makes the fastest type that "
            "loses little.",
            err=True,
        )
        return model
    click.echo(told, err=True)
    n, each_s = len(worth), round(best.trial_s + 10, -1)
    least = f"{n} types are" if n > 1 else "One type is"
    plan = f"{least} worth a try, about {each_s:.0f} s each, fastest first, until one loses little enough."
    if minutes:
        plan = (
            f"A mixture of types is looked for, in about {minutes + 0.5:.1f} minutes. If none is fast and "
            f"loses little, {plan[0].lower()}{plan[1:]}"
        )
    if asks and not click.confirm(f"{plan} Make them and measure what they lose?", err=True):
        return model
    if not asks:
        click.echo(plan, err=True)
    bound = here.settings.models.requantize_divergence
    with _workspace(library, model) as folder:
        best_of = _best_file(here, model, folder, worth, rates, text, minutes)
        good = asyncio.run(best_of)
        if good is None:
            click.echo(
                f"None is faster within the bound of {bound:g} (models.requantize_divergence).",
                err=True,
            )
            return model
        question = f"Replace {quant_of(model)} by {good.file_type}?"
        if asks and not click.confirm(question, err=True):
            return model
        return _installed(here, library, model, good, template)


async def _best_file(
    here: Configuration, model: InstalledModel, folder: Path, worth: Sequence[Forecast], rates: Rates,
    text: Path | None, minutes: float,
) -> RequantizedFile | None:  # fmt: skip
    """A mixture of types, which has the types of the others where these save most; else the first type that
    is good."""
    from edgeagent.optimize.mixture_trials import MOST_MIXTURES
    from edgeagent.optimize.requantization import Trials, each_tried, is_good

    bound = here.settings.models.requantize_divergence
    expected = {one.file_type: one for one in worth}
    n_files = MOST_MIXTURES if minutes else len(worth)
    with timed_progress() as tell:
        trials = Trials(model.path, folder, _options(here, text), bound, n_files, tell)
        if minutes:
            try:
                mixture = await _mixture(here, trials, rates, model, minutes, tell)
            except EdgeAgentError as exc:  # files of one type may be possible all the same
                click.echo(f"No mixture of types is made: {exc.message}", err=True)
                mixture = None
            if mixture is not None and is_good(mixture):
                return mixture
            trials.expect(len(worth))
        async for made in each_tried(trials, [one.file_type for one in worth]):
            click.echo(_figures(made, model, expected[made.file_type]), err=True)
            if is_good(made):
                return made
    return None


async def _mixture(
    here: Configuration,
    trials: Trials,
    rates: Rates,
    model: InstalledModel,
    minutes: float,
    tell: Tell,
) -> RequantizedFile | None:
    """The fastest mixture that was found within the bound, timed."""
    from edgeagent.optimize.faster_mixture import measured_costs
    from edgeagent.optimize.mixture_trials import forecast_of_mixture, mixtures_tried
    from edgeagent.optimize.requantization import ANSWER_TOKENS, PROMPT_TOKENS

    need = PROBE_BYTES * inspect_apart(model.path).n_params
    if need > here.budget.n_bytes:
        click.echo(
            f"No mixture of types is made: probing the matrices takes {megabytes(need)} of memory, and the "
            f"budget for models is {megabytes(here.budget.n_bytes)}.",
            err=True,
        )
        return None
    costs = await measured_costs(
        model.path, trials.folder, rates, trials.options, trials.bound, limit_s=60 * minutes, tell=tell,
        n_prompt=PROMPT_TOKENS, n_answer=ANSWER_TOKENS,
    )  # fmt: skip
    if costs is None:
        click.echo(
            f"No mixture of types is made: {minutes:g} minutes (--requantize-minutes) or the text do not "
            "suffice to probe the matrices.",
            err=True,
        )
        return None
    async for made in mixtures_tried(trials, costs):
        expected = forecast_of_mixture(model.path, rates, made.path)
        click.echo(_figures(made, model, expected), err=True)
        if made.is_timed:
            return made
    click.echo(f"No mixture of types was found within {trials.bound:g} nats.", err=True)
    return None


def _why_none(found: Sequence[Forecast], model: InstalledModel) -> str:
    """Why no type is tried, with the figures of the fastest."""
    from edgeagent.optimize.requantization import LEAST_GAIN

    if not found:
        return f"{model.id} stays {quant_of(model)}: no other type of it fits into the memory for models."
    best = found[0]
    return (
        f"{model.id} stays {quant_of(model)}: no type is expected to be {LEAST_GAIN:g} times as fast. "
        f"{best.file_type} ({megabytes(best.size_bytes)}) comes first: it would read prompts "
        f"{best.prefill_gain:.2f} times and write answers {best.decode_gain:.2f} times as fast. "
        f"`--requantize {best.file_type}` tries it; `edgeagent doctor --measure` on a quiet machine measures "
        "the types again."
    )


def _made(
    here: Configuration, library: Library, model: InstalledModel, file_type: str, text: Path | None,
    template: ChatTemplate | None,
) -> InstalledModel:  # fmt: skip
    from edgeagent.optimize.requantization import tried

    if file_type == model.quant:
        click.echo(f"{model.id} is {file_type} already.", err=True)
        return model
    bound = here.settings.models.requantize_divergence
    try:
        with _workspace(library, model) as folder:
            with timed_progress() as tell:
                options = _options(here, text)
                made = asyncio.run(tried(model.path, folder, file_type, options, bound, tell))
            click.echo(_figures(made, model), err=True)
            if not made.is_timed:
                raise InstallFailed(
                    f"{file_type} diverges by {made.divergence:.3f} nats, and models.requantize_divergence "
                    f"allows {bound:g}: {quant_of(model)} stays; name a finer type, or raise the bound."
                )
            return _installed(here, library, model, made, template)
    except InstallFailed:
        raise
    except EdgeAgentError as exc:
        raise InstallFailed(f"{model.id} stays {quant_of(model)}. {exc.message}") from exc


@contextmanager
def _workspace(library: Library, model: InstalledModel) -> Iterator[Path]:
    """An empty directory on the disk of the models. What a killed command has left in it is deleted first.

    Raises: InstallFailed where another process works on this model.
    """
    staging = library.models_dir / ".staging"
    folder = staging / f"requantize-{folder_name(model.id)}"
    busy = f"Model {model.id!r} is being requantized by another process: wait for it."
    try:
        with exclusive_lock(staging / f"{folder.name}.lock", InstallFailed(busy)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise InstallFailed(
            f"Model {model.id!r} cannot be requantized in {staging} ({error}): {way_out(error)}"
        ) from error


def _options(here: Configuration, text: Path | None) -> EvaluationOptions:
    from edgeagent.optimize.evaluate import EvaluationOptions
    from edgeagent.optimize.requantization import N_RUNS, SAMPLE_TEXT, TEXT_CHUNKS

    return EvaluationOptions(
        texts=(text or SAMPLE_TEXT,), max_chunks=TEXT_CHUNKS, n_runs=N_RUNS, n_threads=n_threads_of(here),
    )  # fmt: skip


def _figures(made: RequantizedFile, model: InstalledModel, expected: Forecast | None = None) -> str:
    """What was measured, with what was expected in brackets."""
    divergence, scored = made.figures.divergence, made.figures.perplexity
    assert divergence is not None and scored is not None
    prefill, decode = (
        (f" ({expected.prefill_gain:.2f})", f" ({expected.decode_gain:.2f})")
        if expected
        else ("", "")
    )
    gains = (
        f"prompts {made.prefill_gain:.2f}{prefill} times, answers {made.decode_gain:.2f}{decode} times as "
        f"fast{' (expected)' if expected else ''}; "
        if made.is_timed
        else ""
    )
    return (
        f"{made.file_type} ({megabytes(made.figures.size_bytes)}) beside {quant_of(model)} "
        f"({megabytes(made.source.size_bytes)}), measured: {gains}KL divergence {divergence.mean:.4f} \u00b1 "
        f"{divergence.error:.4f} nats after {scored.n_tokens:,} tokens, {divergence.same_top:.1%} of the "
        "most probable tokens the same."
    )


def _in_short(made: RequantizedFile) -> str:
    """The figures of an installed file, for its record."""
    divergence = made.figures.divergence
    assert divergence is not None
    return (
        f"prompts {made.prefill_gain:.2f} times, answers {made.decode_gain:.2f} times as fast on this "
        f"device, KL divergence {divergence.mean:.4f} ± {divergence.error:.4f} nats"
    )


def quant_of(model: InstalledModel) -> str:
    """The type of an installed file, for messages."""
    return "its own type" if model.quant in ("", UNKNOWN) else model.quant


def _installed(
    here: Configuration, library: Library, model: InstalledModel, made: RequantizedFile,
    template: ChatTemplate | None,
) -> InstalledModel:  # fmt: skip
    with byte_progress() as progress:
        done = installing.install_requantized(
            model, library, made.path, made.file_type, _in_short(made), trial=trial_load,
            template=template, progress=progress,
        )  # fmt: skip
    is_known = model.id in catalog_of(here.settings)
    back = f"{model.id} --requantize never" if is_known else "SOURCE --requantize never"
    click.echo(
        f"{done.id} is {done.quant} now ({megabytes(done.size_bytes)}): {_in_short(made)}. `edgeagent models "
        f"install {back}` brings {quant_of(model)} back."
    )
    return done

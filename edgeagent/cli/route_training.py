"""`edgeagent route train` and `calibrate`: policies from files, and from the log of this device."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeagent.cli.keys import as_json_option
from edgeagent.cli.route_learning import INPUT, ManyFiles, model_options, pairs_of
from edgeagent.cli.route_replay import owner_option, read_log, since_option
from edgeagent.cli.route_scope import calibrate_scope
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.errors import InvalidParameter

if TYPE_CHECKING:
    from edgeagent.routing.training.observations import Observations
    from edgeagent.settings.routing import RoutingSettings

POLICY_NAME = "route.policy"

from_log_option = click.option(
    "--from-log", is_flag=True,
    help="Take the decisions of this device and the feedback on their answers in place of --data.",
)  # fmt: skip


@click.command(cls=ManyFiles)
@click.option("--data", type=INPUT, multiple=True, metavar="FILE...",
              help="Texts and how well each model answered them: CSV or JSON lines.")  # fmt: skip
@from_log_option
@since_option
@owner_option
@model_options
@click.option("--share", type=click.FloatRange(0, 1), default=0.3, show_default=True, metavar="N",
              help="Share of such texts that the large model is to answer.")  # fmt: skip
@click.option("--out", type=INPUT, metavar="FILE",
              help="Write the policy there. Default: `route.policy` in the state directory.")  # fmt: skip
@as_json_option
@settings_options
def train(
    data: tuple[Path, ...], from_log: bool, since: datetime | None, owners: tuple[str, ...],
    small: str | None, large: str | None, seed: int, share: float, out: Path | None, as_json: bool,
    config: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Train a policy on outcomes. The columns of the files have the names of installed models.

    Set `[routing] policy` to the file, and requests to `auto` that no rule matches are routed by it. A policy
    that is there already is kept beside it, with its revision as a suffix (`calibrate --rollback`).
    --from-log trains on what this device has seen: the models are the first and the last candidate of the
    settings, or --small and --large, and both need rated answers (`[routing] explore`).
    """
    from edgeagent.routing.training import calibration, trainer
    from edgeagent.routing.training.log_training import train_on_log

    _check_source(data, from_log, since, owners)
    settings = configured(config, **flags).settings
    path = out or settings.state_dir / POLICY_NAME
    if from_log:
        names = _models(settings.routing, small, large)
        seen = _observed(config, flags, since, owners, names)
        texts = trainer.TextMatrix.of_features(seen.features)
        trained = train_on_log(seen, texts, seed)
    else:
        pair, _ = pairs_of(data, (), small, large, None)
        names = (pair.small_name, pair.large_name)
        texts = trainer.TextMatrix.of(pair.texts)
        trained = trainer.train(texts, pair.small, pair.large, seed, pair.groups)
    file = trainer.policy_file(names, texts, trained, share)
    try:
        file, kept = calibration.keep_earlier(path, file)
    except OSError as exc:
        raise InvalidParameter(
            f"{path} cannot be written: {exc.strerror}. Choose another --out."
        ) from exc
    told = {
        "file": str(path), "small": file.small, "large": file.large, "n": file.n_examples,
        "threshold": file.threshold, "revision": file.revision, "kept": str(kept) if kept else None,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    click.echo(f"{path}: {file.small} or {file.large}, from {file.n_examples} texts")


@click.command(cls=ManyFiles)
@click.option("--data", type=INPUT, multiple=True, metavar="FILE...",
              help="Texts and how well each model answered them: CSV or JSON lines.")  # fmt: skip
@from_log_option
@since_option
@owner_option
@click.option("--policy", type=INPUT, metavar="FILE",
              help="Policy to calibrate. Default: that of the settings or of `train`.")  # fmt: skip
@click.option("--share", type=click.FloatRange(0, 1), metavar="N",
              help="Share of these texts that the large model is to answer.")  # fmt: skip
@click.option("--quality", type=click.FloatRange(0, 1), metavar="N",
              help="Mean quality to reach with as few requests to the large model as possible.")  # fmt: skip
@click.option("--rollback", is_flag=True, help="Take the last calibration or training back.")
@click.option("--scope", metavar="MODEL",
              help="Fit the scope gate of this assistant model; the files have texts and intents, `oos` for "
              "none, as `forge new` takes them.")  # fmt: skip
@click.option("--domain", metavar="NAME",
              help="With --scope: the domain of the texts.  Default: all intents.")  # fmt: skip
@as_json_option
@settings_options
def calibrate(
    data: tuple[Path, ...], from_log: bool, since: datetime | None, owners: tuple[str, ...],
    policy: Path | None, share: float | None, quality: float | None, rollback: bool, scope: str | None,
    domain: str | None, as_json: bool,
    config: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Fit the probability and the threshold of a policy to outcomes of its two models.

    Domains (`metadata.domain`, a column `domain` in files) with 200 outcomes of the small model get a
    probability of their own, the others share one. The policy before is kept beside the file, with its
    revision as a suffix. Restart the daemon to use the new one.

    With --scope: fit the gate that tells texts out of an assistant model's scope. A running daemon uses it
    at once.
    """
    from edgeagent.routing.score_policy import read_policy
    from edgeagent.routing.training import calibration
    from edgeagent.routing.training.observations import Observations

    if scope is not None:
        if bool(data) == rollback or from_log or (policy or share or quality) is not None:
            raise click.UsageError("Give with --scope either --data or --rollback, and --domain.")
        calibrate_scope(
            scope, data, domain, rolls_back=rollback, as_json=as_json, config=config, flags=flags
        )
        return
    if domain is not None:
        raise click.UsageError("--domain is for a scope gate: give it with --scope.")
    n_sources = bool(data) + from_log + rollback
    if n_sources != 1 or (share is not None and quality is not None):
        raise click.UsageError(
            "Give either --rollback, or one of --data and --from-log with at most one of --share and "
            "--quality."
        )
    settings = configured(config, **flags).settings
    path = policy or settings.routing.policy or settings.state_dir / POLICY_NAME
    try:
        if rollback:
            found = calibration.roll_back(path)
            told: dict[str, Any] = {
                "file": str(path),
                "revision": found.revision,
                "threshold": found.threshold,
            }
        else:
            current = read_policy(path)
            names = (current.file.small, current.file.large)
            if from_log:
                seen = _observed(config, flags, since, owners, names)
            else:
                seen = Observations.of_pair(pairs_of(data, (), *names, None)[0])
            made = calibration.calibrated(current, seen, share=share, quality=quality)
            kept = calibration.replace_policy(path, made.file)
            told = {
                "file": str(path), "revision": made.file.revision, "threshold": made.file.threshold,
                "ece_before": made.ece_before, "ece_after": made.ece_after, "domains": made.domains,
                "kept": str(kept),
            }  # fmt: skip
    except OSError as exc:
        raise InvalidParameter(
            f"{path} cannot be written: {exc.strerror}. Choose another --policy."
        ) from exc
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    click.echo(f"{path}: revision {told['revision']}, threshold {told['threshold']:.4f}")
    if "ece_after" in told:
        click.echo(
            f"calibration error {told['ece_before']:.3f} before, {told['ece_after']:.3f} on unseen folds"
        )
        if told["domains"]:
            click.echo(f"with a probability of their own: {', '.join(told['domains'])}")


def _check_source(
    data: tuple[Path, ...], from_log: bool, since: datetime | None, owners: tuple[str, ...]
) -> None:
    if bool(data) == from_log:
        raise click.UsageError("Give either --data with files, or --from-log.")
    if since is not None and not from_log:
        raise click.UsageError("--since limits the log: give it with --from-log.")
    if owners and not from_log:
        raise click.UsageError("--owner limits the log: give it with --from-log.")


def _models(routing: RoutingSettings, small: str | None, large: str | None) -> tuple[str, str]:
    """The two models of a policy from the log. Raises: InvalidParameter where they are not known."""
    candidates = routing.candidates
    small = small or (candidates[0] if candidates else None)
    large = large or (candidates[-1] if candidates else None)
    if small is None or large is None or small == large:
        raise InvalidParameter(
            "Which two models? Name them with --small and --large, or set [routing] candidates."
        )
    return small, large


def _observed(
    config: Path | None, flags: dict[str, Any], since: datetime | None, owners: tuple[str, ...],
    names: tuple[str, str],
) -> Observations:  # fmt: skip
    """What the log knows of two models. Raises: InvalidParameter where it knows nothing of them."""
    from edgeagent.routing.training.observations import Observations

    seen = Observations.of_log(read_log(config, flags, since, owners), *names)
    if not len(seen):
        raise InvalidParameter(
            f"The log has no decision between {names[0]} and {names[1]} with features: route requests to "
            "`auto`, or name other models."
        )
    return seen

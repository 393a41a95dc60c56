"""What `prosl sweep` is going to run: the arms of an ablation, their options, and the settings all of them share."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from prosl_lightning.commands import fit
from prosl_lightning.data.archive import Archive
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.ablation import BASE, OF_BASE, arm_name
from prosl_lightning.evaluation.report import RESULTS
from prosl_lightning.prosl.checks import RELATIVE_THRESHOLD

PLAN, SETTINGS = "plan.json", "settings.yaml"
_CENTROIDS = (1 / 3, 2 / 3, 1, 4 / 3, 2)  # times the configured number
_BEFORE = (1 / 2, 3 / 4, 7 / 8, 1)  # times the configured start; one more start lies half-way between it and the end
_MASKED = (2 / 25, 5 / 25, 10 / 25, 15 / 25)  # shares of the joints; HiCLR masks 2 of 25, ISC corrupts 15
_USUAL_MASKED = 15 / 25
# Options that `prosl sweep` gives, or that change nothing in the outcome; a sweep goes on although they differ.
_FREE = {
    "seed_everything", "checkpoint_every", "ckpt_path", "weights_only", "data.root", "data.eval_batch_size",
    "data.resident", *(f"trainer.{name}" for name in (
        "default_root_dir", "accelerator", "devices", "strategy", "num_nodes", "logger", "log_every_n_steps",
        "enable_progress_bar", "enable_model_summary", "enable_autolog_hparams", "profiler",
    )),
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One way to go on from the warm-up.

    Attributes:
        name: Of its run's folder.
        changes: Model options in which it differs from the settings.
        start: Epochs of warm-up it goes on from.
        warm_up: Those of the changes that the warm-up needs too, because they concern the base method.
    """

    name: str
    changes: Mapping[str, Any]
    start: int
    warm_up: Mapping[str, Any] = field(default_factory=dict)

    @property
    def warm_up_name(self) -> str:
        """Folder of the warm-up it goes on from."""
        changed = f"-{arm_name(self.warm_up)}" if self.warm_up else ""
        return f"warm-up{changed}-{self.start}"


def resolve_settings(fit_options: Sequence[str]) -> dict[str, Any]:
    """The complete configuration that `prosl fit` makes of its options, as plain data.

    Raises:
        SystemExit: An option is wrong; it has been told (2).
        UsageError: An option cannot be part of a sweep.
    """
    for name, instead in (("ckpt_path", "the warm-up's checkpoint is used"), ("seed_everything", "give --seeds")):
        if any(option.split("=")[0] == f"--{name}" for option in fit_options):
            raise UsageError(f"--{name} is no option of a sweep: {instead}")
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            fit.main([*fit_options, "--print_config"])
        except SystemExit as stop:
            if stop.code:
                raise
    settings = yaml.safe_load(text.getvalue())
    _check(settings)
    return settings


def _check(settings: Mapping[str, Any]) -> None:
    model, trainer = settings["model"], settings["trainer"]
    if not settings["data"]["root"]:
        raise UsageError("no data are given: name a configuration, --config nw-ucla, or an archive, --data.root FOLDER")
    epochs, start = trainer["max_epochs"], model["semantic_start"]
    if not model["semantic"]:
        raise UsageError(
            "model.semantic is false: the base method alone is one arm of every sweep, leave the option out"
        )
    if not isinstance(epochs, int) or epochs <= start:
        raise UsageError(f"trainer.max_epochs is {epochs}; it must be more than model.semantic_start, {start}")
    if trainer["enable_checkpointing"] is False:
        raise UsageError("trainer.enable_checkpointing is false: arms go on from the warm-up's checkpoint")
    if trainer["devices"] not in ("auto", 1, "1") or trainer["num_nodes"] != 1:
        raise UsageError("a sweep trains on one device; give each device its own seeds: --trainer.devices 1 --seeds 0")


def plan_arms(
    name: str, settings: Mapping[str, Any], values: Sequence[int] = (), only: Sequence[str] = ()
) -> list[Arm]:
    """The arms of a sweep, the base method alone first.

    Args:
        name: Of the ablation.
        settings: As :func:`resolve_settings` returns them.
        values: Instead of the usual ones, for `clusters` and `start`.
        only: Names of the arms wanted; all where it is empty.

    Raises:
        UsageError: Values or names that cannot be.
    """
    model, epochs = settings["model"], settings["trainer"]["max_epochs"]
    if values and name not in ("clusters", "start"):
        raise UsageError(f"--points is for the sweeps clusters and start, not for {name}")
    found: list[dict[str, Any]]
    if name == "clusters":
        found = [{"num_clusters": k} for k in values or _multiples(model["num_clusters"])]
    elif name == "start":
        found = [{"semantic_start": start} for start in values or _starts(model["semantic_start"], epochs)]
    elif name == "modules":
        found = [{"third_branch": kind} for kind in ("none", "normal", "semantic")]
    elif name == "readings":
        found = [{}, *_readings(model, Archive.open(settings["data"]["root"]).layout.num_joints)]
    else:
        found = [{}]
    arms = {BASE: Arm(BASE, {"semantic": False}, model["semantic_start"])}
    for each in found:
        changes = {option: value for option, value in each.items() if model.get(option) != value}
        start = changes.get("semantic_start", model["semantic_start"])
        if not 0 <= start < epochs:
            raise UsageError(f"semantic_start is {start}; it must lie between 0 and {epochs - 1}, the last epoch")
        warm_up = {option: value for option, value in changes.items() if option in OF_BASE}
        arms.setdefault(arm_name(changes), Arm(arm_name(changes), changes, start, warm_up))
    unknown = [each for each in only if each not in arms]
    if unknown:
        raise UsageError(f"there is no arm {', '.join(unknown)}; the arms of {name} are {', '.join(arms)}")
    return [arm for arm in arms.values() if not only or arm.name in only]


def _multiples(configured: int) -> list[int]:
    return sorted({max(2, round(factor * configured)) for factor in _CENTROIDS})


def _starts(configured: int, epochs: int) -> list[int]:
    """Multiples of the configured start, and half-way between it and the end: 200, 300, 350, 400 and 425 of 450."""
    return sorted({*(round(factor * configured) for factor in _BEFORE), (configured + epochs) // 2})


def _readings(model: Mapping[str, Any], joints: int) -> Iterator[dict[str, Any]]:
    """The alternatives to what is configured, one at a time; see docs/paper.md."""
    if model["semantic_temperature"] != model["temperature"]:
        yield {"semantic_temperature": model["temperature"]}
    clusters = model["num_clusters"]
    effects = {_threshold(model["confidence_threshold"], clusters)}
    for threshold in ("relative", 0.027, 0.0):
        effect = _threshold(threshold, clusters)
        if effect not in effects:
            effects.add(effect)
            yield {"confidence_threshold": threshold}
    hico = str(model["base"]).startswith("hico-")  # other bases have one term, and one bank entry a sample
    if hico:
        yield {"filtered_terms": _other(model["filtered_terms"], "all", "instance")}
    configured = round(_USUAL_MASKED * joints) if model["masked_joints"] is None else model["masked_joints"]
    for count in sorted({max(1, round(share * joints)) for share in _MASKED} - {configured}):
        yield {"masked_joints": count}
    yield {"kl_direction": _other(model["kl_direction"], "semantic-to-query", "query-to-semantic")}
    yield {"importance": _other(model["importance"], "dataset", "sample")}
    if hico:
        yield {"bank_wrap": _other(model["bank_wrap"], "full", "reference")}


def _threshold(threshold: float | str, clusters: int) -> float:
    """Confidence that a threshold asks for; below 1 / k it is none, since the largest of k shares is never smaller."""
    value = RELATIVE_THRESHOLD / clusters if threshold == "relative" else float(threshold)
    return round(value, 6) if value > 1 / clusters else 0.0


def _other(configured: str, first: str, second: str) -> str:
    return second if configured == first else first


def keep_plan(folder: Path, settings: Mapping[str, Any], *, write: bool = True) -> None:
    """Keep the settings in the sweep's folder; where it holds runs, compare them with those these were made with.

    Args:
        folder: Of the sweep.
        settings: Of this call.
        write: False only compares.

    Raises:
        DataError: The plan there is damaged, or the data are others.
        UsageError: The settings are others; names them.
    """
    meta = Archive.open(settings["data"]["root"]).meta
    plan = {"settings": settings, "data": {part: meta[part].get("sha256") for part in ("frames", "index")}}
    path = folder / PLAN
    if path.is_file() and _holds_runs(folder):
        _compare(path, plan)
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(plan, indent=2) + "\n")
        _write(folder / SETTINGS, yaml.safe_dump(dict(settings), sort_keys=False))


def _holds_runs(folder: Path) -> bool:
    """Whether anything was trained there; a plan alone may be a mistake that the next call mends."""
    return any(next(folder.glob(f"seed-*/*/checkpoints/{file}"), None) for file in ("*.ckpt", RESULTS))


def _compare(path: Path, plan: Mapping[str, Any]) -> None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        before, now = dict(_flat(stored["settings"])), dict(_flat(plan["settings"]))
        data = stored["data"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}): move {path.parent} away, or give another --out") from error
    advice = "go on with the settings as they were, or give another folder: --out"
    if data != plan["data"]:
        raise DataError(f"{path.parent} holds runs on other data than {plan['settings']['data']['root']}\n{advice}")
    # Options that a later version added have no effect unless they are given.
    changed = [name for name in now if name in before and before[name] != now[name] and name not in _FREE]
    if changed:
        told = "; ".join(f"{name} was {before[name]}, is now {now[name]}" for name in changed)
        raise UsageError(f"{path.parent} holds runs with other settings: {told}\n{advice}")


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name in ("trainer", "model", "data"):
            yield from ((f"{name}.{option}", inner) for option, inner in value.items())
        else:
            yield name, value


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)

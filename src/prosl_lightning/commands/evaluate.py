"""What all evaluation verbs share: checkpoints and data in, a table on the screen and a row of results out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.features import labelled_positions, load_module, stored_recipe
from prosl_lightning.evaluation.fingerprint import training_note
from prosl_lightning.evaluation.report import append_result, check_results, result_row
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.tables import table


@dataclass
class DataOptions:
    """The data to evaluate on.

    Attributes:
        root: Folder of the archive.
        protocol: Split rule; the checkpoint's own where it is not given.
        batch_size: Sequences per batch of the feature extraction.
    """

    root: str
    protocol: str | None = None
    batch_size: int = 256


def device_name() -> str:
    """Where evaluations run: the GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def at_least_one(**options: int) -> None:
    """Refuse options below 1, before anything is loaded.

    Raises:
        UsageError: Names the option.
    """
    for name, value in options.items():
        if value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")


def load_inputs(ckpts: Sequence[str], options: DataOptions) -> list[tuple[ProSLModule, SkeletonDataModule]]:
    """Each checkpoint's module, on the GPU where there is one, with the data; all share one data module.

    Says where a checkpoint was trained on other data, and how many training sequences have no label.

    Args:
        ckpts: Checkpoints of `prosl fit`.
        options: The data; the protocol is the checkpoints' own where it is not given. The frames' checksum is verified.

    Raises:
        DataError: A checkpoint, the archive or an earlier `results.json` is missing or damaged.
        UsageError: No checkpoint is given, or none or several protocols follow from them.
    """
    if not ckpts:
        raise UsageError("no checkpoint is given: --ckpt FILE, or --ckpt '[FILE, FILE]' to fuse several")
    if ckpts[0].startswith("[") and not Path(ckpts[0]).exists():
        raise UsageError(f"--ckpt {ckpts[0]}: this evaluation takes one checkpoint")
    modules = [load_module(ckpt) for ckpt in ckpts]
    for ckpt in ckpts:
        check_results(ckpt)
    recipes = {ckpt: stored_recipe(ckpt) for ckpt in ckpts}
    data = SkeletonDataModule(options.root, _protocol(recipes, options), eval_batch_size=options.batch_size)
    data.setup()
    data.archive.verify()
    _tell(recipes, data)
    return [(module.to(device_name()), data) for module in modules]


def _protocol(recipes: Mapping[str, Mapping[str, Any]], options: DataOptions) -> str:
    if options.protocol is not None:
        return options.protocol
    stored = {ckpt: recipe.get("protocol") for ckpt, recipe in recipes.items()}
    if None in stored.values():
        raise UsageError("the checkpoint does not name a protocol: give --data.protocol")
    if len(set(stored.values())) > 1:
        listed = ", ".join(f"{ckpt}: {protocol}" for ckpt, protocol in stored.items())
        raise UsageError(f"the checkpoints were trained under different protocols ({listed}): give --data.protocol")
    return str(next(iter(stored.values())))


def _tell(recipes: Mapping[str, Mapping[str, Any]], data: SkeletonDataModule) -> None:
    """What a reader of the numbers has to know of the data."""
    for ckpt, recipe in recipes.items():
        if note := training_note(recipe, data):
            print(f"note: {ckpt} {note}")
    sources = [[recipe.get(key) for key in ("frames_sha256", "data", "protocol")] for recipe in recipes.values()]
    if any(source != sources[0] for source in sources):
        print("note: the checkpoints were trained on different data")
    unlabelled = data.num_samples - len(labelled_positions(data))
    if unlabelled:
        print(f"note: {unlabelled} of the {data.num_samples} training sequences have no label and are left out")


def report(
    evaluation: str,
    ckpts: Sequence[str],
    data: SkeletonDataModule,
    numbers: Mapping[str, float],
    protocol: Mapping[str, Any],
    seeds: Sequence[int] = (),
    *,
    runs: Sequence[Mapping[str, float]] = (),
    files: Path | None = None,
) -> None:
    """Keep what was found as a row of `results.json` beside the first checkpoint, and print it with what was done.

    Args:
        evaluation: The verb.
        ckpts: The checkpoints that were judged.
        data: What they were judged on.
        numbers: Name -> value; percent unless the name says otherwise.
        protocol: Settings of the evaluation.
        seeds: Its seeds.
        runs: The numbers of each seed, where there are several.
        files: Folder of classifier and pictures.
    """
    row = result_row(evaluation, ckpts, data, numbers, protocol, seeds, device_name(), runs=runs, files=files)
    settings = ", ".join(f"{name} {value}" for name, value in row["protocol"].items() if not isinstance(value, dict))
    values = [f"{value:.2f}" for value in numbers.values()]
    width = max(map(len, values), default=0)
    lines = [[name, value.rjust(width)] for name, value in zip(numbers, values, strict=True)]
    written = ""
    try:
        written = f"\nwritten to {append_result(ckpts[0], row)}"  # first: nobody may be reading any more
    finally:
        print(f"{evaluation} of {' + '.join(map(str, ckpts))} on {data.root}: {settings}")
        print(table(["measure", "value"], lines) + written)

"""What all evaluation verbs share: checkpoints and data in, a table on the screen and a row of results out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.features import (
    FeatureTables,
    check_fits,
    check_labels,
    labelled_positions,
    load_module,
    nearly_equal,
    stored_recipe,
)
from prosl_lightning.evaluation.fingerprint import file_sha256, training_note
from prosl_lightning.evaluation.neighbours import TIE
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


def load_inputs(
    ckpts: Sequence[str], options: DataOptions, *, any_layout: bool = False
) -> list[tuple[ProSLModule, SkeletonDataModule]]:
    """Each checkpoint's module, on the GPU where there is one, with the data; all share one data module.

    Says where a checkpoint was trained on other data, and how many training sequences have no label.

    Args:
        ckpts: Checkpoints of `prosl fit`.
        options: The data; the protocol is the checkpoints' own where it is not given. The frames' checksum is verified.
        any_layout: Whether the data may be of another body model than the checkpoints'.

    Raises:
        DataError: A checkpoint, the archive or an earlier `results.json` is missing or damaged; the data do not fit a
            checkpoint, have no test set, or lack labels.
        UsageError: No checkpoint is given, or one twice; none or several protocols follow from them, or one that the
            data do not have; an option is out of range.
    """
    at_least_one(**{"data.batch_size": options.batch_size})
    if not ckpts:
        raise UsageError("no checkpoint is given: --ckpt FILE, or --ckpt '[FILE, FILE]' to fuse several")
    if ckpts[0].startswith("[") and not Path(ckpts[0]).exists():
        raise UsageError(f"--ckpt {ckpts[0]}: this evaluation takes one checkpoint")
    modules = [load_module(ckpt) for ckpt in ckpts]
    if len(ckpts) > 1:  # reads them whole
        _check_distinct(ckpts)
    for ckpt in ckpts:
        check_results(ckpt)
    recipes = {ckpt: stored_recipe(ckpt) for ckpt in ckpts}
    data = SkeletonDataModule(options.root, _protocol(recipes, options), eval_batch_size=options.batch_size)
    data.setup()
    if not any_layout:
        _check_all_fit(ckpts, modules, data)
    check_labels(data)
    data.archive.verify()
    _tell(recipes, data)
    return [(module.to(device_name()), data) for module in modules]


def _check_distinct(ckpts: Sequence[str]) -> None:
    """Refuse a fusion of a checkpoint with itself: it would only weigh that one more."""
    seen: dict[str, str] = {}
    for ckpt in ckpts:
        content = file_sha256(ckpt)
        if content in seen:
            same = f"{ckpt} is given twice" if seen[content] == ckpt else f"{seen[content]} and {ckpt} are the same"
            raise UsageError(f"{same}: give each checkpoint once; --weights says how much it counts")
        seen[content] = ckpt


def _check_all_fit(ckpts: Sequence[str], modules: Sequence[ProSLModule], data: SkeletonDataModule) -> None:
    for ckpt, module in zip(ckpts, modules, strict=True):
        try:
            check_fits(module, data)
        except DataError as error:
            raise error if len(ckpts) == 1 else DataError(f"{ckpt}: {error}") from error


def _protocol(recipes: Mapping[str, Mapping[str, Any]], options: DataOptions) -> str:
    """The one that is asked for, or the checkpoints' own, which the data must have, with a test set."""
    if options.protocol is not None:
        return options.protocol
    stored = {ckpt: recipe.get("protocol") for ckpt, recipe in recipes.items()}
    if None in stored.values():
        raise UsageError("the checkpoint does not name a protocol: give --data.protocol")
    if len(set(stored.values())) > 1:
        listed = ", ".join(f"{ckpt}: {protocol}" for ckpt, protocol in stored.items())
        raise UsageError(f"the checkpoints were trained under different protocols ({listed}): give --data.protocol")
    own, archive = str(next(iter(stored.values()))), Archive.open(options.root)
    testable = [name for name in archive.protocols if all(map(len, archive.split(name)))]
    if own not in archive.protocols or not len(archive.split(own)[1]):
        lack = f"no test set under protocol '{own}'" if own in archive.protocols else f"no protocol '{own}'"
        remedy = f"give --data.protocol {' or '.join(testable)}" if testable else "it has none with a test set"
        raise UsageError(f"{options.root} has {lack}, which the checkpoint was trained under: {remedy}")
    return own


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


def warn_if_equal(ckpt: str, tables: FeatureTables) -> None:
    """Say, in one line, where an encoder tells hardly any sequences apart: its figures then say nothing of it."""
    if nearly_equal(tables):
        print(
            f"warning: {ckpt} gives most sequences the same feature (their cosines differ by less than {TIE:g}): it is "
            "untrained or collapsed, and its figures follow from the order of the sequences",
            file=sys.stderr,
            flush=True,
        )


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

"""What all evaluation verbs share: checkpoints and data in, a table on the screen and a row of results out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.features import load_module, stored_recipe
from prosl_lightning.evaluation.report import append_result, result_row
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


def load_inputs(ckpts: Sequence[str], options: DataOptions) -> list[tuple[ProSLModule, SkeletonDataModule]]:
    """Each checkpoint's module, on the GPU where there is one, with the data; all share one data module.

    Args:
        ckpts: Checkpoints of `prosl fit`.
        options: The data; the protocol is the checkpoints' own where it is not given. The frames' checksum is verified.

    Raises:
        DataError: A checkpoint or the archive is missing or damaged.
        UsageError: No checkpoint is given, or none or several protocols follow from them.
    """
    if not ckpts:
        raise UsageError("no checkpoint is given: --ckpt FILE, or --ckpt '[FILE, FILE]' to fuse several")
    modules = [load_module(ckpt) for ckpt in ckpts]
    data = SkeletonDataModule(options.root, _protocol(ckpts, options), eval_batch_size=options.batch_size)
    data.setup()
    data.archive.verify()
    return [(module.to(device_name()), data) for module in modules]


def _protocol(ckpts: Sequence[str], options: DataOptions) -> str:
    if options.protocol is not None:
        return options.protocol
    stored = {ckpt: stored_recipe(ckpt).get("protocol") for ckpt in ckpts}
    if None in stored.values():
        raise UsageError("the checkpoint does not name a protocol: give --data.protocol")
    if len(set(stored.values())) > 1:
        listed = ", ".join(f"{ckpt}: {protocol}" for ckpt, protocol in stored.items())
        raise UsageError(f"the checkpoints were trained under different protocols ({listed}): give --data.protocol")
    return str(stored[ckpts[0]])


def report(
    evaluation: str,
    ckpts: Sequence[str],
    data: SkeletonDataModule,
    numbers: Mapping[str, float],
    protocol: Mapping[str, Any],
    seeds: Sequence[int] = (),
) -> None:
    """Print what was done and found, and keep it as a row of `results.json` beside the first checkpoint.

    Args:
        evaluation: The verb.
        ckpts: The checkpoints that were judged.
        data: What they were judged on.
        numbers: Name -> value; percent unless the name says otherwise.
        protocol: Settings of the evaluation.
        seeds: Its seeds.
    """
    row = result_row(evaluation, ckpts, data, numbers, protocol, seeds, device_name())
    settings = ", ".join(f"{name} {value}" for name, value in row["protocol"].items() if name != "rule")
    print(f"{evaluation} of {' + '.join(map(str, ckpts))} on {data.root}: {settings}")
    values = [f"{value:.2f}" for value in numbers.values()]
    width = max(map(len, values), default=0)
    print(
        table(["measure", "value"], [[name, value.rjust(width)] for name, value in zip(numbers, values, strict=True)])
    )
    print(f"written to {append_result(ckpts[0], row)}")

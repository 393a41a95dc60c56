"""What `prosl knn` and `prosl linear` share: checkpoint and data in, a row of results out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.features import FeatureTables, extract_tables, load_module, stored_recipe
from prosl_lightning.evaluation.report import append_result
from prosl_lightning.tables import table
from prosl_lightning.version import __version__


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


def features_of(ckpt: str, options: DataOptions) -> tuple[FeatureTables, SkeletonDataModule, dict[str, Any]]:
    """Extract both feature tables, on the GPU where there is one, and describe what was done."""
    module = load_module(ckpt)
    protocol = options.protocol or stored_recipe(ckpt).get("protocol")
    if protocol is None:
        raise UsageError("the checkpoint does not name a protocol: give --data.protocol")
    data = SkeletonDataModule(options.root, str(protocol), eval_batch_size=options.batch_size)
    data.setup()
    data.archive.verify()
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    described = {
        "checkpoint": str(ckpt),
        "data": options.root,
        "protocol": protocol,
        "stream": module.hparams["stream"],
        "crop": 0.95,
        "train": data.num_samples,
        "test": len(data.test_rows),
        "version": __version__,
        "torch": torch.__version__,
    }
    return extract_tables(module, data), data, described


def report(ckpt: str, described: dict[str, Any], results: dict[str, float]) -> None:
    """Print what was done and found, and keep it beside the checkpoint."""
    print(", ".join(f"{name} {described[name]}" for name in ("data", "protocol", "stream", "train", "test")))
    print(table(["measure", "percent"], [[name, value] for name, value in results.items()]))
    path = append_result(ckpt, described | {name: round(value, 4) for name, value in results.items()})
    print(f"written to {path}")

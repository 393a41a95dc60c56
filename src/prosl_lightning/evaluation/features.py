"""From a checkpoint and an archive to tables of downstream features, extracted once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError
from prosl_lightning.prosl.extract import extract
from prosl_lightning.prosl.module import ProSLModule


class FeatureTables(NamedTuple):
    """Features and classes of both parts of a data set.

    Attributes:
        train: (N, D), not normalised.
        train_labels: (N,) int64.
        test: (Q, D).
        test_labels: (Q,) int64.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load_module(checkpoint: str | Path) -> ProSLModule:
    """Rebuild a trained module from its checkpoint alone, in evaluation mode, on the CPU.

    Raises:
        DataError: There is no such file, or it is not a checkpoint of :class:`ProSLModule`.
    """
    if not Path(checkpoint).is_file():
        raise DataError(f"there is no checkpoint {checkpoint}")
    try:
        module = ProSLModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{checkpoint} is not a complete checkpoint of `prosl fit`: {first}") from error
    return module.eval()


def stored_recipe(checkpoint: str | Path) -> dict[str, object]:
    """What the checkpoint knows about the data it was trained on; empty where it was trained on foreign data."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True).get("recipe", {})


def check_fits(module: ProSLModule, data: SkeletonDataModule) -> None:
    """Refuse data of another body model than the checkpoint's.

    Raises:
        DataError: Names both.
    """
    model = (module.layout.name, module.layout.num_joints, module.hparams["num_bodies"])
    found = (data.layout.name, data.layout.num_joints, data.num_bodies)
    if model != found:
        described = ["layout '{}' with {} joints and {} bodies".format(*each) for each in (model, found)]
        raise DataError(f"the checkpoint was trained on {described[0]}, {data.root} has {described[1]}")


def extract_tables(module: ProSLModule, data: SkeletonDataModule) -> FeatureTables:
    """Downstream features of the training and the test set under the fixed centre crop.

    Args:
        module: A trained module; it is put into evaluation mode.
        data: A data module after `setup`.

    Raises:
        DataError: The data do not fit the module, have no test set, or lack labels.
    """
    check_fits(module, data)
    module.eval()
    if len(data.test_rows) == 0:
        raise DataError(
            f"protocol '{data.protocol}' of {data.root} has no test set; protocols: {data.archive.protocols}"
        )
    tables: list[Tensor] = []
    for part, count in (("train", data.num_samples), ("test", len(data.test_rows))):
        features, labels = extract(module, data.feature_dataloader(part), module.embed, count)  # type: ignore[arg-type]
        if bool((labels < 0).any()):
            raise DataError(f"{int((labels < 0).sum())} of the {count} {part} sequences in {data.root} have no label")
        tables += [features, labels]
    return FeatureTables(*tables)

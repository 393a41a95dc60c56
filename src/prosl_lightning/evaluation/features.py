"""From a checkpoint and an archive to tables of downstream features, extracted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.fusion import fusion_weights
from prosl_lightning.evaluation.neighbours import TIE
from prosl_lightning.prosl.extract import extract
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.prosl.out_of_memory import explained_in_training

Precision = Literal["float32", "bfloat16"]
_LOOKED_AT = 64, 1024  # test and training sequences that tell whether all features are nearly equal


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
        DataError: There is no such file, or it is not a checkpoint of :class:`ProSLModule`; says what it is.
        UsageError: It was trained with a class of the user's that cannot be imported here.
    """
    path = Path(checkpoint)
    if path.is_dir():
        raise DataError(f"{checkpoint} is a folder; a checkpoint is a file, e.g. last.ckpt")
    if not path.is_file():
        raise DataError(f"there is no checkpoint {checkpoint}")
    wrong = f"{checkpoint} is not a complete checkpoint of `prosl fit`"
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch advises to load without its safeguards; nobody should
        raise DataError(f"{wrong}: it is cut off, or a file of another kind") from error
    if isinstance(content, dict) and "classifier" in content:
        raise DataError(f"{checkpoint} is a classifier, for `prosl predict`; give the checkpoint it was made from")
    if not isinstance(content, dict) or not {"state_dict", "hyper_parameters"} <= set(content):
        raise DataError(f"{wrong}: it holds no module of this library")
    try:
        module = ProSLModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    except UsageError as error:
        raise UsageError(f"{checkpoint}: {error}") from error
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{wrong}: {first}") from error
    return module.eval()


def stored_recipe(checkpoint: str | Path) -> dict[str, Any]:
    """What the checkpoint knows about the data it was trained on; empty where it was trained on foreign data."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).get("recipe", {})


def check_fits(module: ProSLModule, data: SkeletonDataModule) -> None:
    """Refuse data of another body model than the checkpoint's.

    Raises:
        DataError: Names both.
    """
    model = (module.layout.name, module.layout.num_joints, module.hparams["num_bodies"])
    found = (data.layout.name, data.layout.num_joints, data.num_bodies)
    if model != found:
        described = ["layout '{}' with {} joints and {} bodies".format(*each) for each in (model, found)]
        raise DataError(
            f"the checkpoint was trained on {described[0]}, {data.root} has {described[1]}\n"
            "`prosl transfer` judges it on another body model"
        )


def labelled_positions(data: SkeletonDataModule) -> NDArray[np.int64]:
    """Positions within the training set of the sequences that have a label, ascending, (n,) int64."""
    return np.flatnonzero(data.archive.labels[data.train_rows] >= 0)


def check_labels(data: SkeletonDataModule) -> None:
    """Refuse a test set that is empty or lacks labels, and a training set that has none at all.

    Raises:
        DataError: Says which.
    """
    count = len(data.test_rows)
    if count == 0:
        names = ", ".join(data.archive.protocols)
        raise DataError(f"protocol '{data.protocol}' of {data.root} has no test set; protocols: {names}")
    unlabelled = int((data.archive.labels[data.test_rows] < 0).sum())
    if unlabelled:
        what = f"{unlabelled} of the {count} test sequences have no label"
    elif not len(labelled_positions(data)):
        what = f"none of the {data.num_samples} training sequences has a label"
    else:
        return
    raise DataError(
        f"{what} (protocol '{data.protocol}' of {data.root})\n"
        "prepare the data with labels, or choose another protocol; `prosl embed` needs none"
    )


def tables_of(
    module: pl.LightningModule, embed: Callable[[SkeletonBatch], Tensor], data: SkeletonDataModule
) -> FeatureTables:
    """Features of the labelled training sequences and of the test set; a class may be missing in either.

    Args:
        module: Whose device the batches go to; it is put into evaluation mode.
        embed: Batch -> features (N, D).
        data: After `setup`.

    Raises:
        DataError: There is no test set, or labels are missing there.
        UsageError: The device ran out of memory.
    """
    check_labels(data)
    module.eval()
    with explained_in_training(module, "the extraction of features", "eval_batch_size", data=data):
        features, labels = extract(module, data.feature_dataloader("train"), embed, data.num_samples)
        test = extract(module, data.feature_dataloader("test"), embed, len(data.test_rows))
    known = labels >= 0
    train = (features, labels) if bool(known.all()) else (features[known], labels[known])
    return FeatureTables(*train, *test)


def extract_tables(module: ProSLModule, data: SkeletonDataModule, precision: Precision = "float32") -> FeatureTables:
    """Downstream features of the training and the test set under the fixed centre crop.

    A class may be missing in either part. Training sequences without label are left out.

    Args:
        module: A trained module; it is put into evaluation mode.
        data: A data module after `setup`.
        precision: Of the encoder; the features are float32 in either case. `bfloat16` takes half to two thirds of the
            time and changes features by about 0.4 %.

    Raises:
        DataError: The data do not fit the module, have no test set, or lack labels there.
    """
    check_fits(module, data)
    return tables_of(module, embedding(module, precision), data)


def embedding(module: ProSLModule, precision: Precision = "float32") -> Callable[[SkeletonBatch], Tensor]:
    """The module's `embed` in a precision of one's choice, with features in float32.

    Raises:
        UsageError: There is no such precision.
    """
    if precision not in ("float32", "bfloat16"):
        raise UsageError(f"precision is '{precision}'; it must be float32 or bfloat16")

    def embed(batch: SkeletonBatch) -> Tensor:
        with torch.autocast(module.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return module.embed(batch).float()

    return embed


def nearly_equal(tables: FeatureTables) -> bool:
    """Whether most of the features are one and the same: the encoder is untrained or collapsed.

    So it is where, for more than half of the test sequences, half of the training sequences have the same cosine as the
    nearest, to :data:`~prosl_lightning.evaluation.neighbours.TIE`. Looks at some sequences, evenly spread.
    """
    test, train = (
        F.normalize(side[torch.linspace(0, len(side) - 1, min(len(side), most)).long()].double(), dim=1)
        for side, most in zip((tables.test, tables.train), _LOOKED_AT, strict=True)
    )
    cosine = test @ train.T
    ties = cosine.amax(dim=1) - cosine.median(dim=1).values <= TIE
    return len(train) > 1 and bool(ties.double().mean() > 0.5)


def fuse_tables(tables: Sequence[FeatureTables], weights: Sequence[float] | None = None) -> FeatureTables:
    """One table of several encoders' features, whose cosine is the weighted mean of the encoders' cosines.

    Each encoder's features are brought to length 1, times the root of its weight, and set side by side: late fusion of
    everything that goes by cosine.

    Args:
        tables: Of the same sequences in the same order.
        weights: One for each encoder, not negative; equal where they are not given.

    Raises:
        UsageError: Weights that do not fit.
        DataError: Tables of different sequences.
    """
    weights = fusion_weights(weights, len(tables))
    first = tables[0]
    for table in tables[1:]:
        pairs = (table.train_labels, first.train_labels), (table.test_labels, first.test_labels)
        if not all(torch.equal(*pair) for pair in pairs):
            raise DataError("only features of the same sequences can be fused; these tables differ in their labels")
    if len(tables) == 1:
        return first
    train, test = (
        torch.cat([F.normalize(side, dim=1) * weight**0.5 for side, weight in zip(sides, weights, strict=True)], dim=1)
        for sides in ([table.train for table in tables], [table.test for table in tables])
    )
    return FeatureTables(train, first.train_labels, test, first.test_labels)

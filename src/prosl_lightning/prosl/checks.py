"""Checks of options and data before training starts: one clear error beats a traceback an hour later."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import STREAMS, SkeletonLayout

if TYPE_CHECKING:
    from prosl_lightning.prosl.module import ProSLModule

# The paper's threshold 0.027 was chosen at k = 65; this is the same confidence relative to a uniform guess (1 / k).
RELATIVE_THRESHOLD = 0.027 * 65

_POSITIVE = (
    "num_bodies", "num_frames", "bank_size", "temperature", "min_crop_frames", "num_clusters",
    "semantic_temperature", "importance_samples", "learning_rate",
)  # fmt: skip
_CHOICES = {
    "stream": STREAMS,
    "bank_wrap": ("full", "reference"),
    "filtered_terms": ("all", "instance"),
    "kl_direction": ("semantic-to-query", "query-to-semantic"),
    "importance": ("dataset", "sample"),
    "third_branch": ("semantic", "normal", "none"),
}


def reachable_confidence(num_clusters: int, temperature: float) -> float:
    """Confidence of a good sample: on its own centroid and at right angles to all others."""
    return 1 / (1 + (num_clusters - 1) * math.exp(-1 / temperature))


def check_options(options: Mapping[str, Any], layout: SkeletonLayout, corrupted: int, masked: int) -> None:
    """Refuse hyper-parameters that cannot work.

    Raises:
        UsageError: Names the option, what it was and what it may be.
    """
    for name in _POSITIVE:
        if not options[name] > 0:
            raise UsageError(f"{name} is {options[name]}; it must be greater than 0")
    for name in ("sgd_momentum", "weight_decay", "semantic_start"):
        if options[name] < 0:
            raise UsageError(f"{name} is {options[name]}; it must not be negative")
    if any(milestone < 0 for milestone in options["milestones"]):
        raise UsageError(f"milestones are {list(options['milestones'])}; epochs count from 0")
    threshold = options["confidence_threshold"]
    if threshold != "relative" and not 0 <= threshold < 1:
        raise UsageError(f"confidence_threshold is {threshold}; it must be 'relative' or in [0, 1)")
    if threshold == "relative" and options["semantic"]:
        reachable = reachable_confidence(options["num_clusters"], options["semantic_temperature"])
        if RELATIVE_THRESHOLD / options["num_clusters"] >= reachable:
            raise UsageError(
                f"confidence_threshold 'relative' cannot be reached with num_clusters {options['num_clusters']} at "
                f"semantic_temperature {options['semantic_temperature']:g}: raise the first or lower the second"
            )
    for name, allowed in _CHOICES.items():
        if options[name] not in allowed:
            raise UsageError(f"{name} is '{options[name]}'; it must be one of {', '.join(allowed)}")
    if not 0 <= options["momentum"] < 1:
        raise UsageError(f"momentum is {options['momentum']}; it must be in [0, 1)")
    low, high = options["crop_ratio"]
    if not 0 < low <= high <= 1:
        raise UsageError(f"crop_ratio is {[low, high]}; it must be 0 < low <= high <= 1")
    for name, value in (("corrupted_joints", corrupted), ("masked_joints", masked)):
        if not 0 < value < layout.num_joints:
            raise UsageError(f"{name} is {value}; layout '{layout.name}' allows 1 to {layout.num_joints - 1}")


def check_fit(module: ProSLModule) -> None:
    """Refuse a precision or data that the module cannot be trained with.

    Raises:
        UsageError: The precision does not work, or an option contradicts the data.
        DataError: Layout or number of bodies differ.
    """
    check_precision(module.trainer.precision)
    datamodule = getattr(module.trainer, "datamodule", None)
    check_data(module, datamodule, module.trainer.world_size)
    count, remembered = getattr(datamodule, "num_samples", None), module.hparams["bank_size"]
    if count is not None and remembered >= count:
        warnings.warn(
            f"bank_size is {remembered} and the training set has {count} sequences: each meets its own last key among "
            f"the negatives, and the encoder may not begin to learn; a quarter of the set is enough, e.g. {count // 4}",
            stacklevel=2,
        )


def check_data(module: ProSLModule, datamodule: Any, world_size: int = 1) -> None:
    """Refuse data that the module was not built for.

    Args:
        module: The module that is about to be trained.
        datamodule: The trainer's data module, or None where it was given plain loaders.
        world_size: Number of processes, each of which brings a batch of the data module's size.

    Raises:
        UsageError: Codebook building is impossible, or an option contradicts the data.
        DataError: Layout or number of bodies differ.
    """
    options = module.hparams
    if not hasattr(datamodule, "feature_dataloader"):
        found = "plain loaders" if datamodule is None else type(datamodule).__name__
        for name, whom in (("semantic", "the codebook"), ("scale_input", "scale_input")):
            if options[name]:
                raise UsageError(
                    f"{whom} needs a data module with num_samples and feature_dataloader(), found {found}: see "
                    f"SkeletonDataModule, or train with {name}=False"
                )
    if options["semantic"] and datamodule.num_samples < options["num_clusters"]:
        raise UsageError(
            f"num_clusters is {options['num_clusters']} but the training set has only {datamodule.num_samples} samples"
        )
    layout = getattr(datamodule, "layout", None)
    if layout is not None and (layout.name, layout.num_joints) != (module.layout.name, module.layout.num_joints):
        raise DataError(
            f"the model was built for layout '{module.layout.name}' ({module.layout.num_joints} joints), "
            f"the data have '{layout.name}' ({layout.num_joints} joints)"
        )
    for name in ("num_bodies", "stream"):
        value = getattr(datamodule, name, None)
        if value is not None and value != options[name]:
            raise DataError(f"the model was built for {name}={options[name]}, the data module has {name}={value}")
    batch_size = getattr(datamodule, "batch_size", None)
    if batch_size is not None and batch_size * world_size > options["bank_size"]:
        processes = f" on {world_size} processes" if world_size > 1 else ""
        raise UsageError(
            f"batch_size is {batch_size}{processes}, more than bank_size {options['bank_size']}: lower one, raise the "
            "other"
        )


def check_precision(precision: str | int | None) -> None:
    """Refuse to hold coordinates and random draws in another format than float32.

    Raises:
        UsageError: Names the precisions that work.
    """
    if str(precision).endswith("-true") and precision != "32-true":
        raise UsageError(f"precision is {precision}; ProSLModule trains in 32-true, bf16-mixed or 16-mixed")


def check_codebook(module: ProSLModule, datamodule: Any) -> None:
    """Refuse a restored codebook of another training set.

    Raises:
        DataError: Names both numbers of samples.
    """
    known, found = len(module.codebook.assignment), getattr(datamodule, "num_samples", None)
    if module.codebook.is_built and found is not None and known != found:
        raise DataError(
            f"the checkpoint's codebook is of {known} training samples, the data have {found}: resume with the same "
            "data, or start a new run with init_from"
        )


def check_batch(batch: Any) -> None:
    """Refuse batches of another form.

    Raises:
        DataError: Says what the module was given and what it takes.
    """
    if not isinstance(batch, SkeletonBatch):
        raise DataError(
            f"the data loader yields {type(batch).__name__}; ProSLModule takes SkeletonBatch(joints, length, index, "
            "label)"
        )


def empty_confident_set_cause(module: ProSLModule) -> str:
    """Why no sample of a whole epoch entered the semantic loss, and what to do."""
    temperature, count = module.hparams["semantic_temperature"], module.hparams["num_clusters"]
    reachable = reachable_confidence(count, temperature)
    cause = (
        f"with {count} clusters and semantic temperature {temperature:g} a sample on its centroid and orthogonal to "
        f"the others reaches only {reachable:.4f}; set confidence_threshold to 'relative'"
        if reachable <= module.confidence_threshold
        else "the features do not separate the centroids yet; start the semantic stage later"
    )
    return (
        f"no sample passed the confidence threshold {module.confidence_threshold:.4f} in epoch {module.current_epoch}, "
        f"so the semantic loss was 0: {cause}"
    )

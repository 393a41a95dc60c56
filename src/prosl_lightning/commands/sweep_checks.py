"""What `prosl sweep` refuses before it trains: data that cannot be judged, and arms that `prosl fit` would refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prosl_lightning.commands.sweep_plan import Arm
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.ablation import BASE
from prosl_lightning.evaluation.features import check_labels
from prosl_lightning.prosl.checks import check_data, check_options, check_precision
from prosl_lightning.prosl.module import ProSLModule


def check_sweep(settings: Mapping[str, Any], arms: Sequence[Arm], points: Sequence[int] = ()) -> None:
    """Refuse now what would fail after hours: at the first evaluation, or where an arm's training begins.

    Args:
        settings: As :func:`~prosl_lightning.commands.sweep_plan.resolve_settings` returns them.
        arms: What is to be run.
        points: As given on the command line; empty where the arms are the usual ones.

    Raises:
        DataError: The archive is missing or damaged, or has no labelled test set under the protocol.
        UsageError: An option cannot be; names the arm.
    """
    data = SkeletonDataModule(**settings["data"])
    data.setup("fit")
    check_labels(data)
    check_precision(settings["trainer"]["precision"])
    found = {"layout": data.layout.to_plain(), "num_bodies": data.num_bodies, "stream": data.stream}
    module = ProSLModule(**dict(settings["model"]) | found | {"semantic": False})
    check_data(module, data)
    refused = [(arm, text) for arm in arms if (text := _refusal(module, data, arm))]
    for arm, text in refused:
        others = [each for each in arms if each.name not in {bad.name for bad, _ in refused} | {BASE}]
        left = [each.changes.get("num_clusters", module.hparams["num_clusters"]) for each in others]
        usual = "num_clusters" in arm.changes and not points and left
        advice = f"\nit is one of the usual points; give your own: --points {' '.join(map(str, left))}" if usual else ""
        raise UsageError(f"arm {arm.name}: {text}{advice}")


def _refusal(module: ProSLModule, data: SkeletonDataModule, arm: Arm) -> str:
    """Why an arm cannot be trained; empty where it can."""
    options = {**module.hparams, "semantic": True, **arm.changes}
    sixty_percent = round(0.6 * module.layout.num_joints)
    counts = (options["corrupted_joints"], options["masked_joints"])
    corrupted, masked = (sixty_percent if count is None else count for count in counts)
    try:
        check_options(options, module.layout, corrupted, masked)
    except UsageError as error:
        return str(error)
    if options["semantic"] and data.num_samples < options["num_clusters"]:
        return f"num_clusters is {options['num_clusters']} but the training set has only {data.num_samples} samples"
    return ""

"""SGD whose learning rate is divided by ten at each milestone, also in runs that go on from a checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

_DROP = 0.1


def sgd_with_milestones(parameters: Iterable[nn.Parameter], options: Mapping[str, Any]) -> dict[str, Any]:
    """Optimizer and schedule in the form Lightning takes.

    Args:
        parameters: What is trained; weight decay acts on all of it.
        options: `learning_rate`, `sgd_momentum`, `weight_decay` and `milestones` (epochs).
    """
    optimizer = torch.optim.SGD(
        parameters,
        lr=options["learning_rate"],
        momentum=options["sgd_momentum"],
        weight_decay=options["weight_decay"],
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(options["milestones"]), gamma=_DROP)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}


def follow_options(checkpoint: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Let a resumed run follow the options it was given, not those kept in the checkpoint's optimizer.

    Args:
        checkpoint: A checkpoint's content; its optimizer and schedule states are changed in place.
        options: As for :func:`sgd_with_milestones`.
    """
    states = zip(checkpoint.get("optimizer_states", ()), checkpoint.get("lr_schedulers", ()), strict=False)
    for optimizer, schedule in states:
        if "milestones" not in schedule:  # of a subclass with a schedule of its own
            continue
        rate = options["learning_rate"]
        for milestone in options["milestones"]:
            rate = rate * _DROP if milestone <= schedule["last_epoch"] else rate
        schedule |= {"milestones": Counter(options["milestones"]), "base_lrs": [options["learning_rate"]]}
        schedule["_last_lr"] = [rate]
        for group in optimizer["param_groups"]:
            group |= {"lr": rate, "initial_lr": options["learning_rate"]}
            group |= {"momentum": options["sgd_momentum"], "weight_decay": options["weight_decay"]}

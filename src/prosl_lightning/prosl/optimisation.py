"""SGD whose learning rate is divided by ten at each milestone, also in runs that go on from a checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

_DROP = 0.1


class WholeStepSGD(torch.optim.SGD):
    """SGD for manual optimisation by closures: where one is given it is the whole training step, update included.

    Lightning counts a step where it sees :meth:`step` called, and a replayed CUDA graph has made the update already.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters, or let `closure` do it, which calls this without one."""
        return super().step() if closure is None else closure()


def sgd_with_milestones(
    parameters: Iterable[nn.Parameter], options: Mapping[str, Any], *, whole_step: bool = False
) -> dict[str, Any]:
    """Optimizer and schedule in the form Lightning takes.

    Args:
        parameters: What is trained; weight decay acts on all of it.
        options: `learning_rate`, `sgd_momentum`, `weight_decay` and `milestones` (epochs).
        whole_step: Whether the optimizer is a :class:`WholeStepSGD`.
    """
    kind = WholeStepSGD if whole_step else torch.optim.SGD
    optimizer = kind(
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
        checkpoint: A checkpoint's content; its optimizer, schedule and loop states are changed in place.
        options: As for :func:`sgd_with_milestones`.
    """
    _count_steps_in_both_modes(checkpoint)
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


def _count_steps_in_both_modes(checkpoint: Mapping[str, Any]) -> None:
    """Lightning counts steps of automatic and of manual optimisation apart; a resumed run may have changed over."""
    loops, steps = checkpoint.get("loops", {}).get("fit_loop", {}), checkpoint.get("global_step", 0)
    automatic = loops.get("epoch_loop.automatic_optimization.optim_progress", {}).get("optimizer", {}).get("step", {})
    for progress in (automatic, loops.get("epoch_loop.manual_optimization.optim_step_progress", {})):
        if "total" in progress:
            progress["total"] |= {"ready": steps, "completed": steps}

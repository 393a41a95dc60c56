"""The adaptive joint mask: which joints of each sample are hidden, drawn with the importance's probabilities."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from prosl_lightning.errors import UsageError
from prosl_lightning.views.draws import draw_subset


def draw_joints(mask_probability: Tensor, num_joints: int, batch_size: int, generator: Generator) -> Tensor:
    """Draw `num_joints` different joints per sample, without replacement, with probabilities as in Eq. 8.

    Args:
        mask_probability: Weights of the joints, (V,) for all samples or (N, V); they need not sum to one.
        num_joints: Joints n drawn per sample.
        batch_size: Number of samples N.
        generator: Source of the draws, on the weights' device.

    Returns:
        Joint indices, (N, n) int64, ascending in each row.

    Raises:
        UsageError: More joints are wanted than there are.
    """
    v = mask_probability.shape[-1]
    draw = torch.empty(batch_size, v, device=mask_probability.device).exponential_(generator=generator)
    return choose_joints(mask_probability, -draw.log(), num_joints)


def choose_joints(mask_probability: Tensor, gumbel: Tensor, num_joints: int) -> Tensor:
    """The joints with the n greatest `log(weight) + gumbel`: a draw without replacement when the noise is Gumbel.

    Args:
        mask_probability: Weights of the joints, (V,) or (N, V).
        gumbel: Standard Gumbel noise, (N, V).
        num_joints: Joints n chosen per sample.

    Returns:
        Joint indices, (N, n) int64, ascending in each row.

    Raises:
        UsageError: More joints are wanted than there are.
    """
    v = gumbel.shape[-1]
    if not 0 <= num_joints <= v:
        raise UsageError(f"cannot mask {num_joints} of {v} joints: choose a number from 0 to {v}")
    return (mask_probability.log() + gumbel).topk(num_joints, -1).indices.sort(-1).values


def mask_joints(x: Tensor, joints: Tensor) -> Tensor:
    """Set joints to zero in all coordinates and frames and for all persons, in whatever stream `x` is.

    Args:
        x: Clips, (N, C, F, V, M).
        joints: Joints to hide, (N, n) int64.

    Returns:
        Clips, (N, C, F, V, M).
    """
    n, _, _, v, m = x.shape
    kept = torch.ones(n, v, device=x.device, dtype=x.dtype).scatter_(1, joints, 0)
    return (x.flatten(3) * kept.repeat_interleave(m, 1)[:, None, None]).view(x.shape)


def mask_frames(x: Tensor, num_joints: int, generator: Generator) -> Tensor:
    """Set joints to zero that are drawn anew for every frame, uniformly, for all persons alike.

    Source: HiCLR, `processor/utils.py`; there all samples of a batch share the joints, and a learnt number that begins
    at 0 takes their place.

    Args:
        x: Clips, (N, C, F, V, M).
        num_joints: Joints n hidden in each frame; for 0 nothing is drawn.
        generator: Source of the draws, on the device of `x`.

    Returns:
        Clips, (N, C, F, V, M).
    """
    if num_joints == 0:
        return x
    n, _, f, v, _ = x.shape
    kept = draw_subset(n * f, v, v - num_joints, generator)
    return x * kept.view(n, 1, f, v, 1)

"""How much each joint matters to the semantics, and with what probability it is masked (Eq. 6 to 8)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# A joint whose removal changes nothing (a root that normalisation put at the origin) has importance 0 and would be
# masked with certainty; it is treated as if it had this share of the largest importance.
SMALLEST_SHARE = 1e-3

# Clips that go through the encoder at once on the CPU: larger batches leave its caches and take a quarter longer.
_CPU_CLIPS = 208


def semantic_coefficients(features: Tensor, features_without: Tensor) -> Tensor:
    """Semantic coefficient of each joint: KL between the feature with all joints and without that joint (Eq. 7).

    The unit features are read as softmax distributions over their entries. It is a distance: large where the joint
    matters.

    Args:
        features: (N, D), of any length; they are normalised here.
        features_without: Features with joint v removed, (N, V, D), likewise.

    Returns:
        Coefficients, (N, V), in nats.
    """
    full = F.log_softmax(F.normalize(features, dim=-1), dim=-1).unsqueeze(1)
    without = F.log_softmax(F.normalize(features_without, dim=-1), dim=-1)
    return (full.exp() * (full - without)).sum(dim=-1)


def mask_probability(importance: Tensor) -> Tensor:
    """Masking probability of each joint, inverse to its importance and normalised to sum 1 (Eq. 8).

    Args:
        importance: Non-negative, (V,) or (N, V).

    Returns:
        Same shape; uniform where all importances are 0, empty where none was measured.
    """
    if importance.numel() == 0:
        return importance
    largest = importance.amax(dim=-1, keepdim=True)
    clamped = torch.maximum(importance, SMALLEST_SHARE * largest)
    inverse = torch.where(largest > 0, 1 / torch.where(clamped > 0, clamped, 1), 1)
    return inverse / inverse.sum(dim=-1, keepdim=True)


def masking_weights(importance: Tensor | None, num_joints: int, index: Tensor) -> Tensor:
    """What the masked joints of a batch are drawn by.

    Args:
        importance: Of the data set (V,) or of every sample (num_samples, V); None or empty for a uniform draw.
        num_joints: V.
        index: Training rows of the batch, (N,).

    Returns:
        Masking probabilities, (V,) or (N, V).
    """
    if importance is None or importance.numel() == 0:
        return torch.full((num_joints,), 1 / num_joints, device=index.device)
    return mask_probability(importance[index] if importance.dim() == 2 else importance)


@torch.no_grad()
def joint_importance(embed: Callable[[Tensor], Tensor], joints: Tensor) -> Tensor:
    """Measure the semantic coefficients of a batch by leaving out one joint at a time.

    All masked copies go through the encoder as one batch, on the CPU as few. Removing a joint means zeros in all frames
    and persons.

    Args:
        embed: Encoder, (B, C, T, V, M) -> features (B, D), each clip by itself (not in training mode).
        joints: Encoder input, (N, C, T, V, M), in the stream the encoder sees.

    Returns:
        Coefficients, (N, V).
    """
    count, num_joints = joints.shape[0], joints.shape[3]
    few = max(1, _CPU_CLIPS // (num_joints + 1))
    if joints.device.type == "cpu" and count > few:
        return torch.cat([joint_importance(embed, some) for some in joints.split(few)])
    keep = 1 - torch.eye(num_joints, device=joints.device, dtype=joints.dtype)
    without = joints.unsqueeze(1) * keep.view(1, num_joints, 1, 1, num_joints, 1)
    features = embed(torch.cat([joints, without.flatten(0, 1)]))
    return semantic_coefficients(features[:count], features[count:].unflatten(0, (count, num_joints)))

"""Joint, bone and motion streams, derived from a view after its augmentation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pad

from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import STREAMS
from prosl_lightning.views.spatial import reorder_joints


def to_stream(x: Tensor, stream: str, parents: Sequence[int]) -> Tensor:
    """Derive a stream from joint coordinates.

    Args:
        x: Clips, (N, C, F, V, M).
        stream: `joint` (as they are), `bone` (joint minus parent; 0 for a root) or `motion` (next frame minus this
            one; 0 in the last frame).
        parents: For each joint its parent, `SkeletonLayout.parents`; only the bone stream reads it.

    Returns:
        Clips, (N, C, F, V, M).

    Raises:
        UsageError: The stream is unknown.
    """
    if stream == "joint":
        return x
    if stream == "bone":
        return x - reorder_joints(x, tuple(parents))
    if stream == "motion":
        return pad(x[:, :, 1:] - x[:, :, :-1], (0, 0, 0, 0, 0, 1))
    raise UsageError(f"unknown stream '{stream}': choose one of {', '.join(STREAMS)}")

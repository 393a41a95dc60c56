"""The query and key views: HiCo's crop-resize, then either joint corruption or shear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from prosl_lightning.views.chunks import in_chunks
from prosl_lightning.views.crop import crop_resize, draw_crop
from prosl_lightning.views.draws import draw_subset, draw_uniform
from prosl_lightning.views.spatial import corruption_matrix, transform


class ContrastiveDraw(NamedTuple):
    """Drawn parameters of a batch of contrastive views.

    Attributes:
        start: First frame of each crop, (N,) int64.
        kept: Frames of each crop, (N,) int64.
        matrix: What each joint's coordinates are multiplied by, (N, 3, 3, V).
    """

    start: Tensor
    kept: Tensor
    matrix: Tensor


@dataclass(frozen=True)
class ContrastiveView:
    """Random view for contrastive learning: crop-resize, then with probability 1/2 joint corruption, else shear.

    Corruption takes a few joints, the same in all frames and for both persons, and with probability 1/2 sets them to
    zero, else multiplies them by one random matrix with entries in (-1, 1). Shear multiplies all joints by a matrix
    with ones on the diagonal and entries in (-1, 1) beside it. Every sample has its own draws.
    Source: HiCo, `feeder/augmentations.py` (the same as in ISC and CMD).

    Attributes:
        num_frames: Frames F of the view.
        crop_ratio: Least and greatest fraction of the clip that a crop keeps.
        min_crop_frames: A crop keeps at least this many frames, where the clip has them.
        corrupted_joints: Number of corrupted joints: 15 of 25 in the public code.

    Example:
        >>> clips, length = torch.rand(2, 3, 90, 25, 2), torch.tensor([90, 40])
        >>> ContrastiveView()(clips, length, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 64, 25, 2])
    """

    num_frames: int = 64
    crop_ratio: tuple[float, float] = (0.1, 1.0)
    min_crop_frames: int = 64
    corrupted_joints: int = 15

    def __call__(self, joints: Tensor, length: Tensor, generator: Generator) -> Tensor:
        """Make one view of each clip.

        Args:
            joints: Padded clips, (N, C, T, V, M), of any float type.
            length: True frame counts, (N,) int64; frames beyond them are never read.
            generator: Source of all draws, on the device of `joints`.

        Returns:
            Views, (N, C, F, V, M) float32.

        Raises:
            UsageError: `corrupted_joints` exceeds the number of joints.
        """

        def view(some: Tensor, their_length: Tensor) -> Tensor:
            return self.apply(some, self.draw(their_length, joints.shape[3], generator))

        return in_chunks(view, joints, length)

    def draw(self, length: Tensor, num_joints: int, generator: Generator) -> ContrastiveDraw:
        """Draw the parameters of one view per clip, in this order: crop, kind, matrix, corrupted joints.

        Args:
            length: True frame counts, (N,) int64.
            num_joints: Number of joints V.
            generator: Source of the draws, on the device of `length`.

        Returns:
            The parameters.
        """
        n, device = len(length), length.device
        start, kept = draw_crop(length, ratio=self.crop_ratio, min_frames=self.min_crop_frames, generator=generator)
        kind = torch.rand(n, 1, 1, device=device, generator=generator)  # 1/4 zero, 1/4 jitter, 1/2 shear
        entries = draw_uniform((n, 3, 3), -1, 1, generator)
        corrupted = draw_subset(n, num_joints, self.corrupted_joints, generator)

        corruption = corruption_matrix(corrupted, entries * (kind >= 0.25))
        shear = entries.masked_fill(torch.eye(3, device=device, dtype=torch.bool), 1)
        return ContrastiveDraw(start, kept, torch.where(kind[..., None] < 0.5, corruption, shear[..., None]))

    def apply(self, joints: Tensor, draw: ContrastiveDraw) -> Tensor:
        """Make the views that `draw` describes of clips (N, C, T, V, M): (N, C, F, V, M) float32."""
        return transform(crop_resize(joints, draw.start, draw.kept, self.num_frames), draw.matrix)

"""The semantic view: crop-resize, then HiCLR's normal augmentation set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Generator, Tensor

from prosl_lightning.views.chunks import in_chunks
from prosl_lightning.views.crop import crop_resize, draw_crop
from prosl_lightning.views.draws import draw_angles, draw_axis_mask, draw_flags, draw_noise, draw_uniform
from prosl_lightning.views.spatial import add_noise, blur, blur_kernel, flip, rotation_matrix, transform

_PROBABILITY = 0.5  # of flip, noise, blur and axis mask each; rotation is always applied
_NOISE_STD = 0.01
_BLUR_SIGMA = (0.1, 2.0)  # frames


class SemanticDraw(NamedTuple):
    """Drawn parameters of a batch of semantic views.

    Attributes:
        start: First frame of each crop, (N,) int64.
        kept: Frames of each crop, (N,) int64.
        flipped: Which samples swap left and right joints, (N,) bool.
        angles: Rotation about x, y and z, (N, 3), radians.
        noise_std: Standard deviation of the noise, (N,); 0 for no noise.
        noise: Standard normal noise, (N, C, F, V, M).
        sigma: Width of the blur, (N,), frames; 0 for no blur.
        axes: 1 where a coordinate is kept, 0 where it is dropped, (N, 3).
    """

    start: Tensor
    kept: Tensor
    flipped: Tensor
    angles: Tensor
    noise_std: Tensor
    noise: Tensor
    sigma: Tensor
    axes: Tensor


@dataclass(frozen=True)
class SemanticView:
    """Random view of the semantic branch: crop-resize, spatial flip, rotation, noise, blur over time, axis mask.

    The adaptive joint mask comes later, on the stream tensor: see `joint_mask.py`. Every sample has its own draws.
    Source: HiCLR, `feeder/tools.py` and `feeder/ntu_feeder.py`; no shear and no joint corruption.

    Attributes:
        mirror: Permutation of the joints that swaps left and right, `SkeletonLayout.mirror`.
        num_frames: Frames F of the view.
        crop_ratio: Least and greatest fraction of the clip that a crop keeps.
        min_crop_frames: A crop keeps at least this many frames, where the clip has them.
        spatial_flip: Whether half of the samples are flipped. Turn it off where classes are left/right twins.

    Example:
        >>> import torch
        >>> clips, length = torch.rand(2, 3, 90, 4, 2), torch.tensor([90, 40])
        >>> SemanticView(mirror=(0, 1, 3, 2))(clips, length, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 64, 4, 2])
    """

    mirror: tuple[int, ...]
    num_frames: int = 64
    crop_ratio: tuple[float, float] = (0.1, 1.0)
    min_crop_frames: int = 64
    spatial_flip: bool = True

    def __call__(self, joints: Tensor, length: Tensor, generator: Generator) -> Tensor:
        """Make one view of each clip.

        Args:
            joints: Padded clips, (N, C, T, V, M), of any float type.
            length: True frame counts, (N,) int64; frames beyond them are never read.
            generator: Source of all draws, on the device of `joints`.

        Returns:
            Views, (N, C, F, V, M) float32.

        Raises:
            UsageError: `mirror` is of another number of joints.
        """
        _, c, _, v, m = joints.shape

        def view(some: Tensor, their_length: Tensor) -> Tensor:
            return self.apply(some, self.draw(their_length, (c, self.num_frames, v, m), generator))

        return in_chunks(view, joints, length)

    def draw(self, length: Tensor, shape: tuple[int, ...], generator: Generator) -> SemanticDraw:
        """Draw the parameters of one view per clip, in the order of :class:`SemanticDraw`.

        Args:
            length: True frame counts, (N,) int64.
            shape: (C, F, V, M) of one view.
            generator: Source of the draws, on the device of `length`.

        Returns:
            The parameters.
        """
        n = len(length)
        start, kept = draw_crop(length, ratio=self.crop_ratio, min_frames=self.min_crop_frames, generator=generator)
        flipped = draw_flags(n, _PROBABILITY, generator)
        angles = draw_angles(n, generator)
        noisy = draw_flags(n, _PROBABILITY, generator)
        noise = draw_noise(n, shape, generator)
        sigma = draw_uniform((n,), *_BLUR_SIGMA, generator) * draw_flags(n, _PROBABILITY, generator)
        axes = draw_axis_mask(n, _PROBABILITY, generator)
        return SemanticDraw(start, kept, flipped, angles, noisy * _NOISE_STD, noise, sigma, axes)

    def apply(self, joints: Tensor, draw: SemanticDraw) -> Tensor:
        """Make the views that `draw` describes of clips (N, C, T, V, M): (N, C, F, V, M) float32."""
        x = crop_resize(joints, draw.start, draw.kept, self.num_frames)
        if self.spatial_flip:
            x = flip(x, self.mirror, draw.flipped)
        # The axis mask comes last in the set, but it commutes with the blur: folded in here it costs nothing.
        x = transform(x, rotation_matrix(draw.angles) * draw.axes[..., None])
        x = add_noise(x, draw.noise, draw.noise_std[:, None] * draw.axes)
        return blur(x, blur_kernel(draw.sigma))

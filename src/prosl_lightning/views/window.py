"""SkeletonCLR's view: a clip brought to its frame count, a window of it that its mirrored ends prolong, shear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from prosl_lightning.views.chunks import in_chunks
from prosl_lightning.views.crop import crop_resize
from prosl_lightning.views.draws import draw_uniform
from prosl_lightning.views.spatial import transform

_PADDING = 6  # frames / 6 mirrored frames at each end

View = Callable[[Tensor, Tensor, Generator], Tensor]
"""Padded clips (N, C, T, V, M), true frame counts (N,) and the source of all draws -> views (N, C, F, V, M)."""


def mirrored_window(x: Tensor, start: Tensor) -> Tensor:
    """F frames of a clip with F // 6 mirrored ones added at each end, edge frames included (CrosSCLR, `tools.py`).

    Args:
        x: Clips of F frames, (N, C, F, V, M).
        start: First frame of the window in the prolonged clip, (N,) int64, from 0 to 2 * (F // 6).

    Returns:
        Windows, (N, C, F, V, M).
    """
    n, c, frames, v, m = x.shape
    place = start[:, None] - frames // _PADDING + torch.arange(frames, device=x.device)
    place = torch.where(place < 0, -1 - place, place)
    place = torch.where(place >= frames, 2 * frames - 1 - place, place)
    index = place[:, None, :, None].expand(n, c, frames, v * m)
    return x.flatten(3).gather(2, index).view(x.shape)


@dataclass(frozen=True)
class WindowView:
    """The whole clip resized to F frames, a random window of it with mirrored ends, then shear.

    Every sample has its own draws. Source: CrosSCLR, `feeder/tools.py`, where clips have 50 frames.

    Attributes:
        num_frames: Frames F of the view.
        shear: Range (-shear, shear) of the six entries of the shear matrix; 0 for no shear.

    Example:
        >>> clips, length = torch.rand(2, 3, 90, 25, 2), torch.tensor([90, 40])
        >>> WindowView()(clips, length, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 50, 25, 2])
    """

    num_frames: int = 50
    shear: float = 0.5

    def __call__(self, joints: Tensor, length: Tensor, generator: Generator) -> Tensor:
        """Make one view of each clip: (N, C, T, V, M) and (N,) -> (N, C, F, V, M) float32."""

        def view(some: Tensor, their_length: Tensor) -> Tensor:
            return self.apply(some, their_length, *self.draw(len(their_length), generator))

        return in_chunks(view, joints, length)

    def draw(self, batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """First frame of each window, (N,) int64, and shear matrices, (N, 3, 3)."""
        last, device = 2 * (self.num_frames // _PADDING), generator.device
        start = torch.randint(last + 1, (batch_size,), device=device, generator=generator)
        entries = draw_uniform((batch_size, 3, 3), -self.shear, self.shear, generator)
        return start, entries.masked_fill(torch.eye(3, device=device, dtype=torch.bool), 1)

    def apply(self, joints: Tensor, length: Tensor, start: Tensor, matrix: Tensor) -> Tensor:
        """The views that a draw describes of clips (N, C, T, V, M): (N, C, F, V, M) float32."""
        whole = crop_resize(joints, torch.zeros_like(length), length, self.num_frames)
        window = mirrored_window(whole, start)
        return transform(window, matrix) if self.shear else window


@dataclass(frozen=True)
class ChainedView:
    """One view after another: the second sees what the first made, of full length.

    Attributes:
        first: Makes views of a fixed length of the clips.
        second: Makes views of these.
    """

    first: View
    second: View

    def __call__(self, joints: Tensor, length: Tensor, generator: Generator) -> Tensor:
        """Make one view of each clip: (N, C, T, V, M) and (N,) -> (N, C, F, V, M) float32."""
        made = self.first(joints, length, generator)
        return self.second(made, torch.full_like(length, made.shape[2]), generator)

"""Temporal crop-resize: which frames of each clip are kept, and their resampling to one common number of frames."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from prosl_lightning.views.chunks import in_chunks


def crop_length(length: Tensor, scale: Tensor, min_frames: int = 64) -> Tensor:
    """Number of frames a crop keeps: `min(max(floor(length * scale), min_frames), length)`.

    Source: HiCo, `feeder/augmentations.py`. A clip no longer than `min_frames` is therefore never cropped.

    Args:
        length: True frame counts, (N,) int64.
        scale: Fraction of the clip to keep, (N,) float64, which makes the floor that of Python's own arithmetic.
        min_frames: Least number of frames kept where the clip has them.

    Returns:
        Frames kept, (N,) int64.
    """
    return (length * scale).floor().long().clamp(min=min_frames).minimum(length)


def draw_crop(
    length: Tensor, *, ratio: tuple[float, float] = (0.1, 1.0), min_frames: int = 64, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Draw one crop per clip: its length as a uniform fraction of the clip, then its start uniformly.

    Args:
        length: True frame counts, (N,) int64, on the generator's device.
        ratio: Least and greatest fraction of the clip.
        min_frames: See :func:`crop_length`.
        generator: Source of the draws.

    Returns:
        First frame and number of frames of each crop, (N,) int64 each.
    """
    draw = torch.rand(2, len(length), dtype=torch.float64, device=length.device, generator=generator)
    kept = crop_length(length, draw[0] * (ratio[1] - ratio[0]) + ratio[0], min_frames)
    start = (draw[1] * (length - kept + 1)).long()
    return start, kept


def centre_crop(length: Tensor, ratio: float = 0.95) -> tuple[Tensor, Tensor]:
    """The deterministic crop of every evaluation: `int((1 - ratio) * n / 2)` frames are dropped at each end.

    Source: HiCo, `feeder/augmentations.py`. Computed in float64 in that order of operations, so that the rounding is
    that of the public code.

    Args:
        length: True frame counts, (N,) int64.
        ratio: Fraction of the clip that is kept.

    Returns:
        First frame and number of frames of each crop, (N,) int64 each.
    """
    start = ((1 - ratio) * length.double() / 2).long()
    return start, length - 2 * start


def crop_resize(joints: Tensor, start: Tensor, length: Tensor, num_frames: int) -> Tensor:
    """Resample frames `start ... start + length - 1` of each clip to `num_frames` frames by linear interpolation.

    Half-pixel centres, ends repeated: `torch.nn.functional.interpolate(..., align_corners=False)` along time. Only
    frames of the crop are read, so what the padding holds cannot matter.

    Args:
        joints: Padded clips, (N, C, T, V, M), of any float type. Fastest when they are a permuted view of contiguous
            (N, T, C, V, M), the order in which an archive stores frames, or contiguous themselves.
        start: First frame of each crop, (N,) int64, at least 0.
        length: Frames of each crop, (N,) int64, at least 1.
        num_frames: Frames F of the result.

    Returns:
        The resampled crops, (N, C, F, V, M), contiguous float32.
    """
    n, c, t, v, m = joints.shape
    device = joints.device
    frame_major = joints.permute(0, 2, 1, 3, 4)
    if frame_major.is_contiguous():
        rows, frame_step, axis_step = frame_major.reshape(-1, v * m), c, 1
    else:
        rows, frame_step, axis_step = joints.reshape(-1, v * m), 1, t

    centre = torch.arange(num_frames, device=device) + 0.5
    position = (centre * (length[:, None] / num_frames) - 0.5).clamp_(min=0)  # in frames of the crop, (N, F)
    lower = position.long().minimum(length[:, None] - 1)
    upper = (lower + 1).minimum(length[:, None] - 1)
    weight = (position - lower)[:, None, :, None]

    clip = torch.arange(n, device=device)[:, None] * (c * t) + start[:, None] * frame_step
    axis = torch.arange(c, device=device)[:, None] * axis_step

    def gather(frame: Tensor) -> Tensor:  # (N, F) -> (N * C * F, V * M)
        index = (clip + frame * frame_step)[:, None] + axis
        # In the stored type, which halves the bytes moved. 32-bit numbers are faster; 2^31 rows fit no device.
        return rows.index_select(0, index.flatten().int()).float()

    shape = (n, c, num_frames, v * m)
    return gather(lower).view(shape).lerp_(gather(upper).view(shape), weight).view(n, c, num_frames, v, m)


def centre_view(joints: Tensor, length: Tensor, num_frames: int, ratio: float = 0.95) -> Tensor:
    """The view of every evaluation and of the codebook: :func:`centre_crop`, resized, nothing random.

    Args:
        joints: Padded clips, (N, C, T, V, M).
        length: True frame counts, (N,) int64.
        num_frames: Frames F of the result.
        ratio: Fraction of each clip that is kept.

    Returns:
        Views, (N, C, F, V, M), float32.
    """

    def view(some: Tensor, their_length: Tensor) -> Tensor:
        return crop_resize(some, *centre_crop(their_length, ratio), num_frames)

    return in_chunks(view, joints, length)

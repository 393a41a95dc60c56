"""Pure operations on resampled clips: each takes a batch and its drawn parameters, one set per sample.

All work on (N, C, F, V, M) = sample, coordinate, frame, joint, person with C = 3, never in place, and are fastest on
contiguous input. Nothing here draws: see `draws.py`. Only element-wise arithmetic is used, so that neither autocast nor
a reduced matrix-product precision (TF32, bfloat16) can round coordinates.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from prosl_lightning.errors import UsageError

BLUR_RADIUS = 7


def transform(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply every point, as a column vector, by its sample's (and joint's) 3x3 matrix.

    Shear, rotation, joint mask, joint jitter and axis mask are all of this form.

    Args:
        x: Clips, (N, 3, F, V, M).
        matrix: (N, 3, 3), or (N, 3, 3, V) for a matrix per joint; `y[d] = sum_c matrix[d, c] * x[c]`.

    Returns:
        Transformed clips, (N, 3, F, V, M).
    """
    per_point = matrix.repeat_interleave(x.shape[4], -1) if matrix.ndim == 4 else matrix[..., None]
    factor = per_point[:, :, :, None]
    points = x.flatten(3)[:, None]  # (N, 1, 3, F, V * M): joint and person as one axis, so that the inner loop is long
    y = points[:, :, 0] * factor[:, :, 0]
    for c in (1, 2):
        y.addcmul_(points[:, :, c], factor[:, :, c])
    return y.view(x.shape)


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotation about x, then y, then z, clockwise seen against the axis, as HiCLR defines it: `R = Rz @ Ry @ Rx`.

    Args:
        angles: About x, y and z, (N, 3), radians.

    Returns:
        Matrices for :func:`transform`, (N, 3, 3).
    """
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(1), angles.sin().unbind(1)
    rows = (
        cz * cy, cz * sy * sx + sz * cx, sz * sx - cz * sy * cx,
        -sz * cy, cz * cx - sz * sy * sx, sz * sy * cx + cz * sx,
        sy, -cy * sx, cy * cx,
    )  # fmt: skip
    return torch.stack(rows, 1).view(-1, 3, 3)


def corruption_matrix(corrupted: Tensor, matrix: Tensor) -> Tensor:
    """Matrices per joint that corrupt some joints and leave the others as they are.

    Source: HiCo, `feeder/augmentations.py`. It multiplies *row* vectors, `y = M^T x`, the transpose of its shear; a
    zero matrix is its joint mask.

    Args:
        corrupted: The corrupted joints of each sample, (N, V) bool.
        matrix: M of each sample, (N, 3, 3).

    Returns:
        Matrices for :func:`transform`, (N, 3, 3, V).
    """
    identity = torch.eye(3, device=matrix.device, dtype=matrix.dtype)[:, :, None]
    return torch.where(corrupted[:, None, None], matrix.mT[..., None], identity)


def flip(x: Tensor, mirror: tuple[int, ...], taken: Tensor) -> Tensor:
    """Relabel left and right joints; as in HiCLR the coordinates themselves are not mirrored.

    Args:
        x: Clips, (N, C, F, V, M).
        mirror: Permutation of the V joints, `SkeletonLayout.mirror`.
        taken: Which samples are flipped, (N,) bool.

    Returns:
        Clips, (N, C, F, V, M).

    Raises:
        UsageError: `mirror` is of another number of joints.
    """
    n, c, f, v, m = x.shape
    mirrored = _columns(mirror, v, m, x.device)
    columns = torch.where(taken[:, None], mirrored, torch.arange(v * m, device=x.device))
    return x.flatten(3).gather(3, columns[:, None, None].expand(n, c, f, v * m)).view(x.shape)


def add_noise(x: Tensor, noise: Tensor, scale: Tensor) -> Tensor:
    """Add noise to every coordinate of every joint, an absent second person included (as HiCLR does).

    Args:
        x: Clips, (N, C, F, V, M).
        noise: Standard normal draws, (N, C, F, V, M).
        scale: Standard deviation, (N,) or per coordinate (N, C), in the unit of `x`; 0 leaves a sample as it is.

    Returns:
        Clips, (N, C, F, V, M).
    """
    return x.addcmul(noise, scale.reshape(len(x), -1, 1, 1, 1))


def blur_kernel(sigma: Tensor) -> Tensor:
    """One side of HiCLR's Gaussian kernel, `exp(-k^2 / (2 sigma^2))`; its taps do not sum to one.

    Args:
        sigma: Width in frames, (N,); 0 means no blur.

    Returns:
        Taps for k = 0 ... 7, (N, 8).
    """
    k = torch.arange(BLUR_RADIUS + 1, device=sigma.device, dtype=sigma.dtype)
    return torch.exp(-0.5 * (k / sigma.clamp(min=1e-3)[:, None]).square())


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve along time with a symmetric kernel; outside the clip there are zeros. The gain is not normalised.

    Args:
        x: Clips, (N, C, F, V, M).
        kernel: Taps from :func:`blur_kernel`, (N, 8).

    Returns:
        Clips, (N, C, F, V, M). At sigma = 2 their scale is up to five times that of the input.
    """
    points = x.flatten(3)
    taps = kernel.view(len(x), -1, 1, 1, 1).unbind(1)
    y = points * taps[0]
    for k in range(1, min(BLUR_RADIUS + 1, x.shape[2])):
        y[:, :, k:].addcmul_(points[:, :, :-k], taps[k])
        y[:, :, :-k].addcmul_(points[:, :, k:], taps[k])
    return y.view(x.shape)


def reorder_joints(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """`y[..., v, m] = x[..., order[v], m]`.

    Args:
        x: Clips, (N, C, F, V, M).
        order: For each joint the index of the one it takes its values from.

    Returns:
        Clips, (N, C, F, V, M), contiguous.

    Raises:
        UsageError: `order` is of another number of joints.
    """
    v, m = x.shape[3:]
    return x.reshape(-1, v * m).index_select(1, _columns(order, v, m, x.device)).view(x.shape)


@lru_cache(maxsize=64)
def _columns(order: tuple[int, ...], num_joints: int, num_bodies: int, device: torch.device) -> Tensor:
    if len(order) != num_joints:
        raise UsageError(f"the layout has {len(order)} joints, the clips have {num_joints}: use the data's own layout")
    # Kept, since copying to a GPU at every call would wait for it. Never an inference tensor: autograd may save it.
    with torch.inference_mode(False):
        columns = [v * num_bodies + m for v in order for m in range(num_bodies)]
        return torch.tensor(columns, device=device)

"""Random parameters of the views, one set per sample, all from one explicit generator on the batch's device."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from prosl_lightning.errors import UsageError


def draw_uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    """Uniform float32 numbers in [low, high)."""
    return torch.rand(shape, device=generator.device, generator=generator) * (high - low) + low


def draw_flags(batch_size: int, probability: float, generator: Generator) -> Tensor:
    """Independent yes/no draws, (N,) bool."""
    return torch.rand(batch_size, device=generator.device, generator=generator) < probability


def draw_subset(batch_size: int, size: int, count: int, generator: Generator) -> Tensor:
    """Draw `count` of `size` items per sample, all equally likely.

    Args:
        batch_size: Number of samples N.
        size: Number of items.
        count: Number of items drawn.
        generator: Source of the draws.

    Returns:
        Which items were drawn, (N, size) bool.

    Raises:
        UsageError: More items are wanted than there are.
    """
    if not 0 <= count <= size:
        raise UsageError(f"cannot corrupt {count} of {size} joints: choose a number from 0 to {size}")
    return torch.rand(batch_size, size, device=generator.device, generator=generator).argsort(1) < count


def draw_angles(batch_size: int, generator: Generator) -> Tensor:
    """Rotation angles of HiCLR: up to 30 degrees about one axis, up to 1 degree about the others, none negative.

    Args:
        batch_size: Number of samples N.
        generator: Source of the draws.

    Returns:
        Angles about x, y and z, (N, 3), radians.
    """
    draw = torch.rand(batch_size, 4, device=generator.device, generator=generator)
    main = (draw[:, 3:] * 3).long() == torch.arange(3, device=generator.device)
    return draw[:, :3] * torch.where(main, math.radians(30), math.radians(1))


def draw_axis_mask(batch_size: int, probability: float, generator: Generator) -> Tensor:
    """Which coordinates survive HiCLR's axis mask: with `probability` one of the three is dropped.

    Args:
        batch_size: Number of samples N.
        probability: Probability that a sample loses a coordinate.
        generator: Source of the draws.

    Returns:
        1 where a coordinate is kept, 0 where it is dropped, (N, 3) float32.
    """
    draw = torch.rand(batch_size, 1, device=generator.device, generator=generator) * (3 / probability)
    return (draw.long() != torch.arange(3, device=generator.device)).float()


def draw_noise(batch_size: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normal noise: independent within a sample, and between samples at the same place.

    Normal draws are the dearest part of a view on the CPU. So about a quarter as many are made as there are entries,
    and each sample takes a window at its own random place of that pool: samples share values, but at different places.

    Args:
        batch_size: Number of samples N.
        shape: Shape of one sample.
        generator: Source of the draws.

    Returns:
        Noise, (N, *shape) float32.
    """
    size, fields = math.prod(shape), 2 + batch_size // 4
    pool = torch.randn(fields * size, device=generator.device, generator=generator)
    place = torch.randint(pool.numel() - size + 1, (batch_size,), device=generator.device, generator=generator)
    return pool.unfold(0, size, 1).index_select(0, place).view(batch_size, *shape)

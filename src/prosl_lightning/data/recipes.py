"""The recipes by which coordinates are normalised, and what is left of them where files were normalised before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.normalize import FloatArray, normalize_agcn
from prosl_lightning.data.normalize_crossclr import normalize_crossclr
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted

NORMALIZATIONS = ("agcn", "upright", "crossclr", "none")


def normalize_bodies(bodies: FloatArray, layout: SkeletonLayout, num_bodies: int, recipe: str) -> NDArray[np.float32]:
    """Bring one sequence into the archive's form.

    Args:
        bodies: Raw coordinates ``(T, B, V, C)``; absent bodies are zero.
        layout: The body model.
        num_bodies: Bodies to keep, M.
        recipe: ``agcn`` or ``upright`` (:func:`~prosl_lightning.data.normalize.normalize_agcn`), ``crossclr``
            (:func:`~prosl_lightning.data.normalize_crossclr.normalize_crossclr`; T is 50 then), or ``none`` (the first
            M bodies as they are).

    Returns:
        ``(T, V, M, C)`` float32.

    Raises:
        DataError: No frame, a value that is not finite or too large, or nobody in any frame.
        UsageError: The recipe is unknown.
    """
    if recipe not in NORMALIZATIONS:
        raise UsageError(f"normalize is '{recipe}'; expected {' or '.join(NORMALIZATIONS)}")
    if len(bodies) == 0:
        raise DataError("no frames")
    if bodies.shape[1] == 0:
        raise DataError("nobody in any frame")
    if not np.isfinite(bodies).all():
        finite = np.isfinite(bodies).all(axis=(1, 2, 3))
        raise DataError(
            f"NaN or infinity in {int((~finite).sum())} of {counted(len(bodies), 'frame')}, first in frame "
            f"{finite.argmin()}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # absurd values end as infinity, which is refused below
        chosen = _by_recipe(bodies, layout, num_bodies, recipe)
    if not np.isfinite(chosen).all():
        raise DataError(f"coordinates up to {np.abs(bodies).max():.3g} are too large to be normalised")
    if not chosen.any():
        raise DataError("nobody in any frame")
    return chosen.transpose(0, 2, 1, 3)


def left_to_do(wanted: str, already: str) -> str:
    """The recipe that makes coordinates of one recipe from those that were normalised before.

    None may be run twice: where the second turn of ``agcn`` ends depends on where the first one started. ``upright``
    depends on the body alone, so it can follow ``agcn``, which only moves and turns.

    Args:
        wanted: What the coordinates shall be.
        already: What they are; empty for coordinates as they were recorded.

    Raises:
        UsageError: The one cannot be made from the other.

    Example:
        >>> left_to_do("agcn", ""), left_to_do("agcn", "agcn"), left_to_do("upright", "agcn")
        ('agcn', 'none', 'upright')
    """
    if wanted == already:
        return "none"
    if not already or (wanted, already) == ("upright", "agcn"):
        return wanted
    raise UsageError(
        f"these coordinates were normalised before ('{already}'), from which '{wanted}' cannot be made; "
        "give the files as they were recorded"
    )


def _by_recipe(bodies: FloatArray, layout: SkeletonLayout, num_bodies: int, recipe: str) -> NDArray[np.float32]:
    if recipe == "crossclr":
        return normalize_crossclr(bodies, layout, num_bodies)
    if recipe != "none":
        moved = _away_from_origin(bodies, layout)
        return normalize_agcn(moved, layout, num_bodies, upright=recipe == "upright")
    chosen = np.zeros((len(bodies), num_bodies, *bodies.shape[2:]), dtype=np.float32)
    chosen[:, : bodies.shape[1]] = bodies[:, :num_bodies]
    return chosen


def _away_from_origin(bodies: FloatArray, layout: SkeletonLayout) -> FloatArray:
    """Several bodies that were centred before, moved so that a centre at the origin no longer looks absent.

    Where another body moves more, it becomes the first and its centre the origin; the old one has to move along.
    """
    if len(layout.center) != 1 or bodies.shape[1] < 2:
        return bodies
    center = layout.center[0]
    never = ~(bodies[:, :, center] != 0).any(axis=(0, 2))
    if not never.any():
        return bodies
    there = (bodies != 0).any(axis=3)
    occupied = there.any(axis=2)
    there[:, :, center] |= occupied & never
    return np.where(there[..., None], bodies.astype(np.float64) + 1.0, 0.0)

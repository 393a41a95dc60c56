"""Whether coordinates are of the size that their unit says: a body in metres is not two hundred high."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.normalize import FloatArray
from prosl_lightning.skeleton import SkeletonLayout

SMALLEST, LARGEST = 0.02, 20.0  # metres; hands and animals lie between, millimetres and pixels do not
_USUAL = 1.7
_MISTAKES = {
    1000.0: "they look like millimetres: divide them by 1000",
    100.0: "they look like centimetres: divide them by 100",
    0.01: "they look divided by 100 too often: multiply them by 100",
    0.001: "they look like kilometres: multiply them by 1000",
}


def size_warning(sizes: Sequence[float] | NDArray[np.float64], layout: SkeletonLayout) -> str:
    """What is wrong with the sizes of some bodies; empty where nothing is.

    Args:
        sizes: What :func:`body_size` says of each sequence.
        layout: Its unit tells what sizes there may be.
    """
    size = float(np.median(sizes)) if len(sizes) else 0.0
    if layout.unit != "metre" or size == 0 or SMALLEST <= size <= LARGEST:
        return ""
    factor = min(_MISTAKES, key=lambda factor: abs(math.log(size / factor / _USUAL)))
    return (
        f"a body measures {size:.4g}, but the unit of layout '{layout.name}' is the metre; {_MISTAKES[factor]},\n"
        "or, where they have no unit, say `unit: normalised` in the layout"
    )


def body_size(bodies: FloatArray) -> float:
    """Largest extent along an axis of the first body, in the first frame it is there; 0 where it never is.

    Args:
        bodies: Coordinates ``(T, B, V, C)``; absent joints are zero.
    """
    frame = next((body for body in bodies[:, 0] if body.any()), None) if bodies.shape[1] else None
    return 0.0 if frame is None else float(np.ptp(frame[(frame != 0).any(axis=1)], axis=0).max())

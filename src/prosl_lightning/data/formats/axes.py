"""Which axis of an array is which: found from the sizes where they tell, else from letters the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from prosl_lightning.errors import DataError, UsageError

LETTERS = {"N": "sample", "C": "coordinate", "T": "frame", "V": "joint", "M": "person", "D": "M*V*C in this order"}
_ORDERS = ("TD", "TVC", "CTV", "NTD", "CTVM", "NTVC", "TMVC", "MTVC", "NCTV", "NCTVM", "NTMVC", "NMTVC")
_MOST_BODIES, _FEWEST_FRAMES = 10, 5


def find_axes(shape: Sequence[int], num_joints: int, samples: bool, source: str) -> str:
    """The order of axes that fits an array's sizes.

    Guessing takes at most 10 persons and at least 5 frames for granted.

    Args:
        shape: The array's.
        num_joints: Joints of the body model, V.
        samples: Whether the array may hold several samples.
        source: For messages.

    Returns:
        One letter an axis, see ``LETTERS``.

    Raises:
        UsageError: Several orders fit.
        DataError: None fits.
    """
    orders = [order for order in _ORDERS if samples or "N" not in order]
    fitting = [order for order in orders if len(order) == len(shape) and _fits(order, shape, num_joints)]
    if len(fitting) == 1:
        return fitting[0]
    sizes = ", ".join(map(str, shape))
    if fitting:
        raise UsageError(
            f"{source}: ({sizes}) may be {' or '.join(fitting)}; give the order as --format npy:{fitting[0]} "
            f"({', '.join(f'{letter} {meaning}' for letter, meaning in LETTERS.items())})"
        )
    raise DataError(
        f"{source}: ({sizes}) fits no known order of axes with {num_joints} joints and 3 coordinates "
        f"({', '.join(orders)});\nis the layout right? another order can be given as --format npy:ORDER"
    )


def check_axes(axes: str, shape: Sequence[int], num_joints: int, source: str) -> str:
    """Check an order that the user gave against an array.

    Raises:
        UsageError: It is not an order of axes.
        DataError: The array has other sizes.
    """
    axes = axes.upper()
    parts = set(axes)
    if len(parts) != len(axes) or parts - set(LETTERS) or "T" not in parts or not _is_whole(parts):
        raise UsageError(f"axes '{axes}': expected some of {', '.join(LETTERS)}, with T and either D or both V and C")
    if len(axes) != len(shape) or not _fits(axes, shape, num_joints, guess=False):
        raise DataError(
            f"{source}: ({', '.join(map(str, shape))}) is not {axes} with V = {num_joints} joints and C = 3 coordinates"
        )
    return axes


def arrange(clip: NDArray[Any], axes: str, num_joints: int) -> NDArray[Any]:
    """Bring one sample into the order ``(T, B, V, C)``.

    Args:
        clip: The sample.
        axes: Its axes, without N.
        num_joints: Joints of the body model, V.
    """
    if "D" in axes:
        flat = clip.transpose([axes.index(letter) for letter in "TD"])
        return flat.reshape(len(flat), -1, num_joints, 3)
    if "M" not in axes:
        clip, axes = clip[..., None], axes + "M"
    return clip.transpose([axes.index(letter) for letter in "TMVC"])


def _is_whole(parts: set[str]) -> bool:
    return not parts & set("VCM") if "D" in parts else {"V", "C"} <= parts


def _fits(axes: str, shape: Sequence[int], num_joints: int, guess: bool = True) -> bool:
    size = dict(zip(axes, shape, strict=True))
    if size.get("C", 3) != 3 or size.get("V", num_joints) != num_joints:
        return False
    bodies, left = divmod(size["D"], 3 * num_joints) if "D" in size else (size.get("M", 1), 0)
    if left or bodies < 1 or size["T"] < 1 or size.get("N", 1) < 1:
        return False
    return not guess or (bodies <= _MOST_BODIES and size["T"] >= _FEWEST_FRAMES)

"""Which body model a file's joints belong to, and what the names of NTU RGB+D tell about its samples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prosl_lightning.data.ntu_sets import NTU60, NTU120, NtuSet, one_shot_part, parse_name
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts

NTU_JOINTS = 25


def choose_layout(layout: str | SkeletonLayout | None, usual: str | None, path: Path) -> SkeletonLayout:
    """The user's body model, else the one that is usual for the format.

    Raises:
        UsageError: There is neither.
    """
    if layout is None and usual is None:
        raise UsageError(
            f"{path.name}: whose joints are these? give the body model with --layout NAME or FILE.yaml;\n"
            f"packaged are {', '.join(packaged_layouts())}"
        )
    return SkeletonLayout.of(layout or usual or "")


def check_joints(layout: SkeletonLayout, num_joints: int, path: Path) -> None:
    """Refuse a body model with another number of joints than the file has.

    Raises:
        DataError: They differ.
    """
    if layout.num_joints != num_joints:
        raise DataError(
            f"{path}: {num_joints} joints, but layout '{layout.name}' has {layout.num_joints}; "
            "choose another with --layout"
        )


def ntu_columns(name: str) -> dict[str, int] | None:
    """Setup, camera, subject, replication and action of a sample of NTU RGB+D; None for other names.

    Example:
        >>> ntu_columns("S001C002P003R002A050.skeleton")["subject"]
        3
        >>> ntu_columns("walk_03") is None
        True
    """
    try:
        return parse_name(name.removesuffix(".skeleton"))
    except DataError:
        return None


def ntu_set(names: Iterable[str]) -> NtuSet | None:
    """NTU RGB+D 60 or 120, whichever holds all of these samples; None where a name is another's."""
    smallest: NtuSet | None = None
    for name in names:
        fields = ntu_columns(name)
        if fields is None or not NTU120.contains(fields):
            return None
        if smallest is not NTU120:
            smallest = NTU60 if NTU60.contains(fields) else NTU120
    return smallest


def index_columns(name: str, known: NtuSet | None) -> dict[str, int]:
    """What the name of a sample says, as columns that the protocols of its set split by.

    Args:
        name: The sample's.
        known: The set that all samples belong to, from :func:`ntu_set`; None: no columns.
    """
    columns = (ntu_columns(name) or {}) if known is not None else {}
    if known is NTU120:
        columns["one_shot"] = one_shot_part(columns)
    columns.pop("action", None)
    return columns

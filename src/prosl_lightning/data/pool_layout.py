"""The body model that several archives share: joints matched by name, parents linked past those that fall away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted


def shared_layout(layouts: Mapping[str, SkeletonLayout]) -> tuple[SkeletonLayout, dict[str, list[int]]]:
    """The joints all layouts have, in the order and with the names of the first.

    A joint's parent is its nearest ancestor that is shared. Centre, spine and shoulders are those of the first layout
    that keeps them all.

    Args:
        layouts: Layout by the name of its archive.

    Returns:
        The layout, and for each archive the index of every shared joint in its own layout.

    Raises:
        DataError: No layout keeps its centre, spine and shoulders; names what they lose.
    """
    by_place = {name: layout.places for name, layout in layouts.items()}
    first, *others = layouts.values()
    if all(other.to_dict() == first.to_dict() for other in others):
        return first, {name: list(range(first.num_joints)) for name in layouts}
    known = next(iter(by_place.values()))
    shared = sorted(set(known).intersection(*by_place.values()), key=known.__getitem__)
    joints = {name: [found[place] for place in shared] for name, found in by_place.items()}
    lost = []
    for name, layout in layouts.items():
        position = {joint: i for i, joint in enumerate(joints[name])}
        groups = [layout.center, *layout.spine, *layout.shoulders]
        gone = sorted({layout.joints[joint] for group in groups for joint in group} - _names(layout, joints[name]))
        if not gone:
            center, *ends = [tuple(position[joint] for joint in group) for group in groups]
            kept = [known[place] for place in shared]
            pooled = SkeletonLayout(
                f"shared-{len(shared)}",
                tuple(first.joints[joint] for joint in kept),
                _parents(first, kept),
                center,
                (ends[0], ends[1]),
                (ends[2], ends[3]),
                first.unit,
            )
            return _with_mirror(pooled, [(layouts[each], joints[each]) for each in layouts]), joints
        lost.append(f"{name} needs {', '.join(gone)}")
    raise DataError(
        f"the archives share {counted(len(shared), 'joint')} ({', '.join(shared) or 'none'}), too few to align them: "
        f"{'; '.join(lost)}\nleave out an archive, or pool those of similar bodies"
    )


def _with_mirror(pooled: SkeletonLayout, members: Sequence[tuple[SkeletonLayout, list[int]]]) -> SkeletonLayout:
    """The layout with the mirror pairs of the first that has any, declared where its joint names do not tell them."""
    for layout, joints in members:
        place = {joint: i for i, joint in enumerate(joints)}
        pairs = tuple(
            (place[joint], place[other]) for joint, other in _mirror_pairs(layout) if joint in place and other in place
        )
        if pairs:
            declared = replace(pooled, mirror_pairs=pairs)
            return pooled if pooled.mirror == declared.mirror else declared
    return pooled


def _mirror_pairs(layout: SkeletonLayout) -> Iterable[tuple[int, int]]:
    if layout.mirror_pairs is not None:
        return layout.mirror_pairs
    return ((joint, other) for joint, other in enumerate(layout.mirror) if joint < other)


def move_center(frames: NDArray[np.float32], old: Sequence[int], new: Sequence[int]) -> NDArray[np.float32]:
    """Move every frame of a centred sequence so that other joints of the first body are its origin.

    Args:
        frames: Coordinates ``(T, C, V, M)``; absent bodies and joints are zero.
        old: Joints whose mean is the origin now; a single one is zero in every frame without being absent.
        new: Joints whose mean becomes the origin.

    Returns:
        ``(T, C, V, M)``.
    """
    there = np.asarray(frames.any(axis=1))  # (T, V, M)
    if len(old) == 1:
        there[:, old[0], 0] |= there[:, :, 0].any(axis=1)
    center = frames[:, :, list(new), :1].mean(axis=2, keepdims=True)
    return np.where(there[:, None], frames - center, np.float32(0))


def _names(layout: SkeletonLayout, joints: Sequence[int]) -> set[str]:
    return {layout.joints[joint] for joint in joints}


def _parents(layout: SkeletonLayout, kept: Sequence[int]) -> tuple[int, ...]:
    """Position of each kept joint's nearest kept ancestor; where none is kept, the first such joint is the root."""
    position = {joint: i for i, joint in enumerate(kept)}
    parents: list[int | None] = []
    for joint in kept:
        seen, parent = {joint}, layout.parents[joint]
        while parent not in position and parent not in seen:
            seen.add(parent)
            parent = layout.parents[parent]
        own_root = layout.parents[joint] == joint
        parents.append(None if own_root else position.get(parent))
    root = parents.index(None) if None in parents else 0
    return tuple(root if parent is None else parent for parent in parents)

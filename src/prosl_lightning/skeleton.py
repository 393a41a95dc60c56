"""What a skeleton is: joint names, bones, mirror pairs and the joints that alignment uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from prosl_lightning.errors import DataError, UsageError

_KEYS = ("joints", "parents", "center", "spine", "shoulders")
UNITS = ("metre", "normalised")

STREAMS = ("joint", "bone", "motion")
"""What an encoder may see of a body: coordinates, joint minus parent, frame minus frame."""

# A place of the body and what else it is called; the first that a layout has counts.
SAME_PLACE: Mapping[str, tuple[str, ...]] = {
    "hip_center": ("spine_base", "waist", "hips"),
    "spine": ("spine_mid", "torso"),
    "shoulder_center": ("spine_shoulder", "neck"),
    "left_foot": ("left_toes",),
    "right_foot": ("right_toes",),
}


@dataclass(frozen=True)
class SkeletonLayout:
    """A body model. Everything that depends on the number or meaning of joints reads it from here.

    Attributes:
        name: The layout's name, e.g. ``kinect-v2``.
        joints: Joint names in the order of the data. Names that start with ``left_`` and ``right_`` form mirror pairs,
            unless ``mirror_pairs`` says otherwise.
        parents: For each joint the index of its parent; a root is its own parent. A bone is joint minus parent.
        center: Indices of the joints whose mean is moved to the origin in every frame.
        spine: Two index groups; the line between their means is turned to +z, lower end first.
        shoulders: Two index groups, left and right; the line from left to right is turned to +x.
        unit: Unit of the coordinates, ``metre`` or ``normalised``.
        mirror_pairs: Index pairs of joints that swap under mirroring; None: as the names say.

    Example:
        >>> layout = SkeletonLayout.of("kinect-v2")
        >>> layout.num_joints, layout.joints[4], layout.mirror[4]
        (25, 'left_shoulder', 8)
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    center: tuple[int, ...]
    spine: tuple[tuple[int, ...], tuple[int, ...]]
    shoulders: tuple[tuple[int, ...], tuple[int, ...]]
    unit: str = "metre"
    mirror_pairs: tuple[tuple[int, int], ...] | None = None

    @property
    def num_joints(self) -> int:
        """Number of joints V."""
        return len(self.joints)

    @property
    def mirror(self) -> tuple[int, ...]:
        """Permutation of the joints that swaps left and right; joints without a partner stay."""
        if self.mirror_pairs is not None:
            other = dict(self.mirror_pairs) | {second: first for first, second in self.mirror_pairs}
            return tuple(other.get(i, i) for i in range(self.num_joints))
        index = {name: i for i, name in enumerate(self.joints)}
        return tuple(index.get(_mirrored(name), i) for i, name in enumerate(self.joints))

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) index pairs, without the roots' own."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if child != parent)

    @property
    def places(self) -> dict[str, int]:
        """Joint index by place of the body: its joint names, those of :data:`SAME_PLACE` under their common name.

        Example:
            >>> SkeletonLayout.of("kinect-v2").places["hip_center"]
            0
        """
        found = {joint: index for index, joint in enumerate(self.joints)}
        for place, others in SAME_PLACE.items():
            called = next((name for name in others if name in found), None)
            if place not in found and called is not None:
                found[place] = found.pop(called)
        return found

    @classmethod
    def of(cls, layout: str | Path | Mapping[str, Any] | SkeletonLayout) -> SkeletonLayout:
        """Get a layout by packaged name, from a YAML file, or from plain data.

        Raises:
            UsageError: The name is neither packaged nor an existing file.
            DataError: The description is incomplete or contradicts itself.
        """
        if isinstance(layout, SkeletonLayout):
            return layout
        if isinstance(layout, Mapping):
            return cls._from_mapping(str(layout.get("name", "unnamed")), layout)
        if str(layout) in packaged_layouts():
            return _packaged(str(layout))
        path = Path(layout)
        if path.suffix in (".yaml", ".yml") and path.is_file():
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: cannot be read ({error})") from error
            return _from_yaml(path.stem, text, str(path))
        raise UsageError(
            f"unknown layout '{layout}': packaged are {', '.join(packaged_layouts())}; or name a YAML file that exists"
        )

    @classmethod
    def _from_mapping(cls, name: str, spec: Mapping[str, Any]) -> SkeletonLayout:
        missing = [key for key in _KEYS if key not in spec]
        if missing:
            raise DataError(f"layout '{name}' lacks {', '.join(missing)}; it needs {', '.join(_KEYS)}")
        joints = _joint_names(name, spec)
        index = {joint: i for i, joint in enumerate(joints)}

        def find(joint: Any) -> int:
            found = joint if isinstance(joint, int) and not isinstance(joint, bool) else index.get(str(joint), -1)
            if not 0 <= found < len(joints):
                raise DataError(f"layout '{name}' names joint '{joint}', which is not among its {len(joints)} joints")
            return found

        def group(value: Any) -> tuple[int, ...]:
            found = tuple(find(joint) for joint in (value if isinstance(value, list | tuple) else [value]))
            if not found:
                raise DataError(f"layout '{name}': a group of joints is empty; center, spine and shoulders need joints")
            return found

        def mirror_pairs() -> tuple[tuple[int, int], ...]:
            pairs = [group(pair) for pair in spec["mirror"]] if isinstance(spec["mirror"], list | tuple) else [()]
            if any(len(pair) != 2 for pair in pairs) or len({joint for pair in pairs for joint in pair}) < 2 * len(
                pairs
            ):
                raise DataError(f"layout '{name}': mirror must be a list of joint pairs, no joint in two of them")
            return tuple((first, second) for first, second in pairs)

        def pair(key: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
            if not isinstance(spec[key], list | tuple) or len(spec[key]) != 2:
                raise DataError(f"layout '{name}': {key} must be two groups of joints, found {spec[key]!r}")
            return group(spec[key][0]), group(spec[key][1])

        parents = tuple(find(parent) for parent in spec["parents"])
        if len(parents) != len(joints):
            raise DataError(
                f"layout '{name}' has {len(joints)} joints but {len(parents)} parents; a root is its own parent"
            )
        if (circle := _circle(parents)) is not None:
            raise DataError(f"layout '{name}': the parents of joint '{joints[circle]}' lead back to it and to no root")
        return cls(
            name, joints, parents, group(spec["center"]), pair("spine"), pair("shoulders"),
            _unit(name, spec), mirror_pairs() if spec.get("mirror") is not None else None,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain data (lists, numbers, strings) from which :meth:`of` rebuilds the layout."""
        mirror = {} if self.mirror_pairs is None else {"mirror": [list(pair) for pair in self.mirror_pairs]}
        return {
            "name": self.name,
            "joints": list(self.joints),
            "parents": list(self.parents),
            "center": list(self.center),
            "spine": [list(group) for group in self.spine],
            "shoulders": [list(group) for group in self.shoulders],
            "unit": self.unit,
            **mirror,
        }

    def to_plain(self) -> str | dict[str, Any]:
        """The name where it is enough to find the layout again, else :meth:`to_dict`: what a checkpoint stores."""
        packaged = self.name in packaged_layouts() and _packaged(self.name) == self
        return self.name if packaged else self.to_dict()


def packaged_layouts() -> tuple[str, ...]:
    """Names of the layouts shipped with the library."""
    return tuple(sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml")))


def _folder() -> Any:
    return resources.files("prosl_lightning.layouts")


@cache
def _packaged(name: str) -> SkeletonLayout:
    return _from_yaml(name, (_folder() / f"{name}.yaml").read_text(encoding="utf-8"), name)


def _from_yaml(name: str, text: str, source: str) -> SkeletonLayout:
    try:
        spec = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{source}: not valid YAML: {error}") from error
    if not isinstance(spec, dict):
        raise DataError(f"{source}: expected a mapping with {', '.join(_KEYS)}")
    return SkeletonLayout._from_mapping(str(spec.get("name", name)), spec)


def _joint_names(name: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
    for key in ("joints", "parents"):
        if not isinstance(spec[key], list | tuple):
            raise DataError(f"layout '{name}': {key} must be a list, found {spec[key]!r}")
    joints = tuple(str(joint) for joint in spec["joints"])
    if not joints:
        raise DataError(f"layout '{name}' has no joints")
    if len(set(joints)) != len(joints):
        raise DataError(f"layout '{name}' has a joint name twice")
    return joints


def _unit(name: str, spec: Mapping[str, Any]) -> str:
    unit = str(spec.get("unit", UNITS[0]))
    if unit not in UNITS:
        raise DataError(f"layout '{name}': unit is '{unit}'; expected {' or '.join(UNITS)} (convert the coordinates)")
    return unit


def _circle(parents: tuple[int, ...]) -> int | None:
    """A joint whose chain of parents ends in no root, i.e. in no joint that is its own parent."""
    for joint in range(len(parents)):
        last = joint
        for _ in parents:
            last = parents[last]
        if parents[last] != last:
            return joint
    return None


def _mirrored(name: str) -> str:
    for side, other in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(side):
            return other + name.removeprefix(side)
    return name

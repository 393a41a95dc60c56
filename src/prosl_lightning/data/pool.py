"""`prosl prepare pool`: several archives joined over the joints they share, each with its own split."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.data.archive_writer import refuse_occupied
from prosl_lightning.data.conversion import write_all
from prosl_lightning.data.ntu_sets import ntu_fields
from prosl_lightning.data.pool_layout import move_center, shared_layout
from prosl_lightning.data.prepare_report import PrepareReport, print_report
from prosl_lightning.data.source import RawSequence
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted, table

# column `part`: -1, or three times the member's number and one of these
_NEITHER, _TRAIN, _TEST, _TRAIN_ALONE = -1, 0, 1, 2
_SIDES = 3
_SAME = 0.01  # of the largest coordinate: what rounding to float16 and moved centres leave
_NAMED = 5


@dataclass(frozen=True)
class _Member:
    """One archive of the pool: its number, name, sides ``part`` by row, joints in the pool's order, first class."""

    number: int
    name: str
    archive: Archive
    protocol: str
    parts: NDArray[np.int64]
    joints: list[int]
    first_class: int
    class_names: tuple[str, ...]
    recenter: bool

    def joints_of(self, row: int, layout: SkeletonLayout, num_bodies: int) -> NDArray[np.float32]:
        """One sequence ``(T, M, V, C)`` with the pool's joints and bodies."""
        frames = self.archive.clip(row).astype(np.float32)  # (T, C, V, M)
        if self.recenter:
            frames = move_center(frames, self.archive.layout.center, [self.joints[joint] for joint in layout.center])
        joints = np.zeros((len(frames), num_bodies, layout.num_joints, 3), dtype=np.float32)
        joints[:, : self.archive.num_bodies] = frames[:, :, self.joints].transpose(0, 3, 2, 1)
        return joints


def pool(archives: list[str], *, out: str, protocol: str = "", overwrite: bool = False) -> PrepareReport:
    """Join archives over the joints they share, to pre-train on all of them and evaluate on each.

    Protocol `pool` trains on the training sequences of every archive, without recordings that another one tests on;
    NAME/SPLIT (e.g. nw-ucla/x-view) is one archive's own split; `all` trains on everything. Classes of different
    archives stay apart, as NAME/CLASS. Sequences are taken as they are; where centres differ they are moved to one.

    Args:
        archives: Folders of the archives; their names tell them apart.
        out: Folder of the archive to make.
        protocol: Which split of an archive counts where it has several, each NAME:SPLIT, blanks between; default: its
            first.
        overwrite: Replace an archive that exists.

    Returns:
        What was written.

    Raises:
        DataError: The archives do not fit together, or the pool cannot be written.
        UsageError: An option does not fit.
    """
    refuse_occupied(Path(out).absolute(), overwrite)
    opened = _open(archives)
    recipe = _common_recipe(opened)
    layout, joints = shared_layout({name: archive.layout for name, archive in opened.items()})
    members = list(_members(opened, layout, joints, recipe, _chosen_protocols(protocol, opened)))
    apart = _keep_tests_apart(members, layout)
    columns = _shared_columns(opened)
    bodies = max(archive.num_bodies for archive in opened.values())
    writer = ArchiveWriter(
        out,
        layout=layout,
        num_bodies=bodies,
        class_names=[name for member in members for name in member.class_names],
        protocols=_protocols(members),
        recipe={
            "importer": "pool",
            "normalize": recipe,
            "archives": {m.name: m.archive.meta["recipe"] for m in members},
        },
        source=", ".join(opened),
        dtype="float32" if any(archive.frames.dtype == np.float32 for archive in opened.values()) else "float16",
        overwrite=overwrite,
    )
    total = sum(map(len, opened.values()))
    report = write_all(writer, _sequences(members, layout, bodies, columns), total, strict=True)
    print_report(report)
    _print_members(members, layout)
    if apart:
        more = f" and {len(apart) - _NAMED} more" if len(apart) > _NAMED else ""
        print(
            f"warning: not trained on in 'pool', because another archive tests on the same recording: "
            f"{counted(len(apart), 'sequence')}: {', '.join(apart[:_NAMED])}{more}",
            file=sys.stderr,
        )
    return report


def _open(roots: Sequence[str]) -> dict[str, Archive]:
    if len(roots) < 2:
        given = counted(len(roots), "archive")
        raise UsageError(f"{given} to pool; expected two or more: prosl prepare pool A B C --out DIR")
    opened: dict[str, Archive] = {}
    for root in roots:
        archive = Archive.open(root)
        archive.verify()
        name = archive.root.resolve().name
        if name in opened:
            raise UsageError(f"two archives are called {name}; rename the folder of one")
        opened[name] = archive
    units = {name: archive.layout.unit for name, archive in opened.items()}
    if len(set(units.values())) > 1:
        raise DataError(f"units differ: {_listed(units)}; pool archives of one unit")
    return opened


def _common_recipe(opened: Mapping[str, Archive]) -> str:
    recipes = {
        name: str(archive.meta.get("recipe", {}).get("normalize", "unknown")) for name, archive in opened.items()
    }
    found = set(recipes.values())
    if len(found) > 1:
        raise DataError(
            f"the archives are normalised in different ways: {_listed(recipes)}\n"
            "prepare them alike, with the same --normalize (upright fits people who face any direction)"
        )
    recipe = found.pop()
    if recipe not in ("agcn", "upright", "none") and len({archive.layout.joints for archive in opened.values()}) > 1:
        raise DataError(f"archives normalised as '{recipe}' can be pooled only where they have the same joints")
    return recipe


def _chosen_protocols(text: str, opened: Mapping[str, Archive]) -> dict[str, str]:
    """The split of each archive that counts: the one that was asked for, else its first, else all its sequences."""
    chosen = {name: archive.protocols[0] for name, archive in opened.items()}
    for choice in text.split():
        name, colon, protocol = choice.partition(":")
        if not colon or name not in opened:
            raise UsageError(f"protocol '{choice}': expected NAME:SPLIT, NAME one of {', '.join(opened)}")
        opened[name].split(protocol)
        chosen[name] = protocol
    return chosen


def _members(
    opened: Mapping[str, Archive],
    layout: SkeletonLayout,
    joints: Mapping[str, list[int]],
    recipe: str,
    protocols: Mapping[str, str],
) -> Generator[_Member, None, None]:
    first_class = 0
    for number, (name, archive) in enumerate(opened.items()):
        own = archive.layout
        if recipe != "none" and _groups(own.shoulders) != _groups(layout.shoulders, joints[name]):
            raise DataError(
                f"{name} is turned by other shoulders (layout {own.name}) than the pool; "
                "prepare it with those of the others"
            )
        train, test = archive.split(protocols[name])
        parts = np.full(len(archive), _NEITHER)
        parts[train], parts[test] = _SIDES * number + _TRAIN, _SIDES * number + _TEST
        num_classes = max(len(archive.class_names), int(archive.labels.max()) + 1)
        names = archive.class_names or tuple(map(str, range(num_classes)))
        recenter = recipe in ("agcn", "upright") and _groups([own.center]) != _groups([layout.center], joints[name])
        class_names = tuple(f"{name}/{label}" for label in names)
        yield _Member(number, name, archive, protocols[name], parts, joints[name], first_class, class_names, recenter)
        first_class += len(names)


def _groups(groups: Sequence[Sequence[int]], joints: Sequence[int] | None = None) -> list[set[int]]:
    """Groups of joints without order, through an index list if there is one."""
    return [{joint if joints is None else joints[joint] for joint in group} for group in groups]


def _protocols(members: Sequence[_Member]) -> dict[str, dict[str, Any]]:
    """The rule that trains on all training parts, and each archive's own split, all over the column ``part``."""
    train, test = ([_SIDES * member.number + side for member in members] for side in (_TRAIN, _TEST))
    rules: dict[str, dict[str, Any]] = {"pool": {"column": "part", "train": train, "test": test}}
    for member in members:
        if member.protocol != "all":
            first = _SIDES * member.number
            sides = {"train": [first + _TRAIN, first + _TRAIN_ALONE], "test": [first + _TEST]}
            rules[f"{member.name}/{member.protocol}"] = {"column": "part", **sides}
    return rules


def _shared_columns(opened: Mapping[str, Archive]) -> list[str]:
    """Columns all archives have, without those whose numbers stand for different texts."""
    shared = set.intersection(*({*archive.columns} - {"source", "row", "part"} for archive in opened.values()))
    meanings = [archive.meta["recipe"].get("column_names", {}) for archive in opened.values()]
    unlike = {column for column in shared if any(m.get(column) != meanings[0].get(column) for m in meanings)}
    if unlike:
        print(f"left out, because their numbers mean different things: {', '.join(sorted(unlike))}", file=sys.stderr)
    return sorted(shared - unlike)


def _keep_tests_apart(members: Sequence[_Member], layout: SkeletonLayout) -> list[str]:
    """Take out of the pool's training what another archive tests on: recordings of one name, length and motion.

    Returns:
        Names of the sequences, which from now on train in their own archive's split only.
    """
    tested: dict[tuple[str, int], list[tuple[_Member, int]]] = {}
    for member in members:
        for row in np.flatnonzero(member.parts == _SIDES * member.number + _TEST).tolist():
            tested.setdefault(_key(member, row), []).append((member, row))
    apart = []
    for member in members:
        for row in np.flatnonzero(member.parts == _SIDES * member.number + _TRAIN).tolist():
            if any(_are_same(layout, (member, row), other) for other in tested.get(_key(member, row), ())):
                member.parts[row] = _SIDES * member.number + _TRAIN_ALONE
                apart.append(f"{member.name}/{member.archive.names[row]}")
    return apart


def _key(member: _Member, row: int) -> tuple[str, int]:
    """Name (in a pool of pools without its archive's) and length; a name of NTU RGB+D says enough by itself."""
    name = str(member.archive.names[row]).rsplit("/", 1)[-1]
    return name, 0 if ntu_fields(name) else int(member.archive.lengths[row])


def _are_same(layout: SkeletonLayout, *places: tuple[_Member, int]) -> bool:
    (member, row), (other, _) = places
    if _key(member, row)[1] == 0:  # copies that others cut or denoised differ, and are the same recording
        return member is not other
    bodies = min(member.archive.num_bodies for member, _ in places)
    first, second = (m.joints_of(r, layout, m.archive.num_bodies)[:, :bodies] for m, r in places)
    return member is not other and bool(np.abs(first - second).max() <= _SAME * np.abs(first).max())


def _sequences(
    members: Sequence[_Member], layout: SkeletonLayout, num_bodies: int, columns: Sequence[str]
) -> Generator[RawSequence, None, None]:
    for member in members:
        archive = member.archive
        for row, name in enumerate(archive.names.tolist()):
            label = int(archive.labels[row])
            yield RawSequence(
                f"{archive.root}, sequence {row}",
                f"{member.name}/{name}",
                member.joints_of(row, layout, num_bodies),
                label=label + member.first_class if label >= 0 else -1,
                columns={
                    "source": member.number,
                    "row": row,
                    "part": int(member.parts[row]),
                    **{column: int(archive.columns[column][row]) for column in columns},
                },
            )


def _print_members(members: Sequence[_Member], layout: SkeletonLayout) -> None:
    header = ["source", "archive", "sequences", "split", "joints left out", "centre"]
    rows = []
    for member in members:
        own = member.archive.layout
        gone = [joint for i, joint in enumerate(own.joints) if i not in member.joints]
        moved = "moved" if member.recenter else "as it was"
        rows.append(
            [member.number, member.name, len(member.archive), member.protocol, ", ".join(gone) or "none", moved]
        )
    print(f"\nshared: {counted(layout.num_joints, 'joint')}: {', '.join(layout.joints)}")
    print(table(header, rows))


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())

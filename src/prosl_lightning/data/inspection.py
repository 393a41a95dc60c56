"""Goes through an archive or through raw files once and collects what `prosl inspect` tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.faults import Faults, measure
from prosl_lightning.data.ntu_sets import NTU60, NTU120
from prosl_lightning.data.protocols import IntArray
from prosl_lightning.data.source import RawSequence, Source
from prosl_lightning.data.units import body_size
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted

_BLOCK_FRAMES = 8192
_STRIP_FRAMES = 6
_STRIP_BODIES = 2
_UNLABELLED, _LABELLED = 24, 180  # sequences that are kept to be drawn; no sheet can show more classes


@dataclass(frozen=True)
class Strip:
    """A few frames of one sequence, to be drawn.

    Attributes:
        name: The sequence.
        label: Its class, -1 where unknown.
        frames: Coordinates ``(K, C, V, M)``, evenly spread over the frames in which somebody is there; absent is zero.
    """

    name: str
    label: int
    frames: NDArray[np.float32]


@dataclass
class Inspection:
    """What was found, one row a sequence.

    Attributes:
        path: The archive, or the raw file or folder.
        kind: ``archive`` or ``raw``.
        format: Name of the format.
        layout: The body model.
        names: Name of each sequence.
        lengths: Frames of each sequence, ``(N,)``.
        labels: Class of each sequence, ``(N,)``, -1 where unknown.
        columns: Further integer columns ``(N,)`` by name.
        faults: What is wrong with each sequence.
        sizes: Extent of a body in each sequence, ``(N,)``, in the layout's unit; 0 where unknown.
        class_names: Names of the classes in label order; may be empty.
        protocols: Split rules by name.
        official: Published sizes (train, test) by protocol.
        made: How an archive was made: ``written_by``, ``source``, ``recipe``, ``counts``, ``dtype``, ``bytes``.
        left_out: What reading raw files passes over on purpose: reason -> number.
        bad: Source and reason of everything that cannot be read.
        notes: Further lines of the reader.
        strips: One sequence of each class, of 180 at most; of unlabelled data the first ones.
        verified: Whether every byte was compared with its checksum.
    """

    path: Path
    kind: str
    format: str
    layout: SkeletonLayout
    names: list[str]
    lengths: IntArray
    labels: IntArray
    columns: dict[str, IntArray]
    faults: Faults
    sizes: NDArray[np.float64]
    class_names: tuple[str, ...] = ()
    protocols: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    official: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    verified: bool = False

    def __len__(self) -> int:
        """Number of sequences N."""
        return len(self.lengths)

    @property
    def num_bodies(self) -> int:
        """List positions per frame, M."""
        return self.faults.absent.shape[1]


def inspect_archive(archive: Archive, verify: bool = False) -> Inspection:
    """Measure all sequences of an archive, block by block.

    Args:
        archive: The archive.
        verify: Read every byte first and compare the checksums.

    Raises:
        DataError: It is damaged.
    """
    if verify:
        archive.verify()
    faults = Faults.join([measure(frames, lengths, archive.layout) for frames, lengths in _blocks(archive)])
    strips = _Strips()
    labels, first = np.unique(archive.labels, return_index=True)
    unlabelled = np.flatnonzero(archive.labels < 0)[:_UNLABELLED]
    for row in [*first[labels >= 0][:_LABELLED].tolist(), *unlabelled.tolist()]:
        strips.offer(str(archive.names[row]), int(archive.labels[row]), archive.clip(row))
    stored = np.asarray(archive.frames)  # slices of a memmap object take ten times as long
    meta = archive.meta
    made = {key: meta.get(key) for key in ("written_by", "source", "recipe", "counts", "dtype")}
    made["bytes"] = sum(file.stat().st_size for file in archive.root.iterdir())
    return Inspection(
        archive.root,
        "archive",
        f"{meta['format']} {meta['version']}",
        archive.layout,
        archive.names.tolist(),
        archive.lengths,
        archive.labels,
        dict(archive.columns),
        faults,
        np.array([body_size(clip.transpose(0, 3, 2, 1)) for clip in np.split(stored, archive.offsets[1:])]),
        class_names=archive.class_names,
        protocols=meta["protocols"],
        official=_official(archive),
        made=made,
        strips=strips.sorted(),
        verified=verify,
    )


def _official(archive: Archive) -> dict[str, tuple[int, int]]:
    """Published sizes of an archive's protocols: those of the known set that has its class names."""
    for known in (NTU60, NTU120):
        if archive.class_names == known.class_names:
            return {name: size for name, size in known.official.items() if name in archive.protocols}
    return {}


def _blocks(archive: Archive) -> Iterator[tuple[NDArray[Any], IntArray]]:
    """Frames and lengths of as many sequences at a time as fit into a block, at least one."""
    ends = archive.offsets + archive.lengths
    row = 0
    while row < len(archive):
        start = int(archive.offsets[row])
        after = max(row + 1, int(np.searchsorted(ends, start + _BLOCK_FRAMES, side="right")))
        yield archive.frames[start : int(ends[after - 1])], archive.lengths[row:after]
        row = after


def inspect_source(source: Source, sequences: Iterable[RawSequence] | None = None) -> Inspection:
    """Measure raw sequences one after another; none is kept.

    Args:
        source: The opened files.
        sequences: What it yields, if it is already being read (to show progress).

    Raises:
        DataError: Not a single sequence can be read.
    """
    names: list[str] = []
    labels: list[int] = []
    columns: list[Mapping[str, int]] = []
    sizes: list[float] = []
    faults: list[Faults] = []
    lengths: list[int] = []
    bad, strips = list(source.bad), _Strips()
    for sequence in source if sequences is None else sequences:
        if sequence.bodies is None or len(sequence.bodies) == 0:
            bad.append((sequence.source, sequence.error or "no frames"))
            continue
        frames = np.asarray(sequence.bodies).transpose(0, 3, 2, 1)
        faults.append(measure(frames, np.array([len(frames)]), source.layout))
        lengths.append(len(frames))
        strips.offer(sequence.name, sequence.label, frames)
        sizes.append(body_size(sequence.bodies))
        names.append(sequence.name)
        labels.append(sequence.label)
        columns.append(dict(sequence.columns))
    if not names:
        first = f"; the first: {bad[0][0]}: {bad[0][1]}" if bad else ""
        raise DataError(f"{source.path}: none of {counted(len(source), 'sequence')} can be read{first}")
    known = dict.fromkeys(name for row in columns for name in row)
    return Inspection(
        source.path,
        "raw",
        source.format,
        source.layout,
        names,
        np.array(lengths, dtype=np.int64),
        np.array(labels, dtype=np.int64),
        {name: np.array([row.get(name, -1) for row in columns], dtype=np.int64) for name in known},
        _join_ragged(faults, lengths),
        np.nan_to_num(sizes, posinf=0.0),
        class_names=source.class_names,
        protocols={name: rule for name, rule in source.protocols.items() if rule["column"] in known},
        official=source.official,
        left_out={reason: len(left) for reason, left in source.left_out.items()},
        bad=bad,
        notes=list(source.notes),
        strips=strips.sorted(),
    )


def _join_ragged(parts: Sequence[Faults], lengths: Sequence[int]) -> Faults:
    """One sequence after another; bodies that a sequence does not list are absent from all its frames."""
    bodies = max(part.absent.shape[1] for part in parts)
    padded = []
    for part, length in zip(parts, lengths, strict=True):
        absent = np.full((1, bodies), length)
        absent[:, : part.absent.shape[1]] = part.absent
        padded.append(replace(part, absent=absent))
    return Faults.join(padded)


class _Strips:
    """Keeps the first sequence of each class, and the first unlabelled ones."""

    def __init__(self) -> None:
        self._kept: dict[int, Strip] = {}

    def offer(self, name: str, label: int, frames: NDArray[Any]) -> None:
        unlabelled = sum(key < 0 for key in self._kept)
        key = label if label >= 0 else -1 - unlabelled
        if key in self._kept or (label < 0 and unlabelled >= _UNLABELLED):
            return
        if label >= 0 and len(self._kept) - unlabelled >= _LABELLED:
            return
        there = np.isfinite(frames).all(axis=(1, 2)) & np.asarray(frames != 0).any(axis=(1, 2))  # (T, M)
        times = np.flatnonzero(there.any(axis=1))
        if len(times) == 0:
            return
        times = times[np.linspace(0, len(times) - 1, min(_STRIP_FRAMES, len(times))).round().astype(np.int64)]
        bodies = np.sort(np.argsort(-there.sum(axis=0), kind="stable")[:_STRIP_BODIES])
        chosen = np.where(there[times][:, None, None], frames[times], 0)[..., bodies]
        self._kept[key] = Strip(name, label, chosen.astype(np.float32))

    def sorted(self) -> list[Strip]:
        """By label, the unlabelled last and in their order."""
        return [self._kept[key] for key in sorted(self._kept, key=lambda key: (key < 0, abs(key)))]

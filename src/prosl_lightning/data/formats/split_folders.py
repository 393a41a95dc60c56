"""Reads folders of padded npy arrays, one folder a protocol: 2s-AGCN and HiCo, ST-GCN, and CrosSCLR's fifty frames."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prosl_lightning.data.formats.clips import first_clips, is_centered, note_normalized, true_length
from prosl_lightning.data.formats.labels import (
    TEST,
    TRAIN,
    UNKNOWN,
    Sample,
    add_ntu_facts,
    integer_labels,
    named_samples,
    protocol_name,
    split_rule,
    text_names,
)
from prosl_lightning.data.formats.npy import MappedArray, check_sequence_size, read_npy
from prosl_lightning.data.formats.pickles import read_pickle
from prosl_lightning.data.protocols import IntArray
from prosl_lightning.data.source import FloatArray, RawSequence, Source, check_joints, choose_layout
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

SUFFIXES = {"agcn": "data_joint", "stgcn": "data", "frame50": "position"}
DERIVED = ("_data_bone.npy", "_data_joint_motion.npy", "_data_bone_motion.npy", "_motion.npy", "_bone.npy")
_PARTS = {"train": TRAIN, "val": TEST}


class _Place(NamedTuple):
    """Where one sequence stands, and how long it is; -1 where its frames must tell."""

    file: int
    row: int
    length: int


@dataclass(frozen=True)
class _Reader:
    """Reads single clips from memory-mapped arrays; ``resized`` clips are all of one length."""

    arrays: tuple[MappedArray, ...]
    resized: bool

    def __call__(self, sample: Sample) -> RawSequence:
        path, row = self.arrays[sample.place.file].path, sample.place.row
        where = f"{path.parent.name}/{path.name}, row {row} ({sample.name})"
        return sample.read(where, partial(self._bodies, sample.place))

    def _bodies(self, place: _Place) -> FloatArray:
        if place.length == 0:
            raise DataError("its number of frames is 0")
        bodies = np.array(self.arrays[place.file].array[place.row].transpose(1, 3, 2, 0))
        if place.length > 0:
            return bodies[: place.length]
        return bodies if self.resized else bodies[: true_length(bodies)]


@dataclass
class _Collected:
    """The sequences of all protocol folders, each once."""

    arrays: list[MappedArray] = field(default_factory=list)
    rows: dict[str, tuple[_Place, str, int]] = field(default_factory=dict)
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    counted: bool = False


def protocol_folders(root: Path, format: str) -> list[Path]:
    """The folder itself or those in it that hold ``{train,val}_<suffix>.npy``, by name."""

    def holds_part(folder: Path) -> bool:
        return any((folder / f"{part}_{SUFFIXES[format]}.npy").is_file() for part in _PARTS)

    return [root] if holds_part(root) else sorted(path for path in root.iterdir() if path.is_dir() and holds_part(path))


def open_split_folders(path: str | Path, format: str, layout: str | SkeletonLayout | None = None) -> Source:
    """Open a protocol folder with the files of a format, see ``SUFFIXES``, or the folder that holds several of them.

    The folders of several protocols hold the same samples; each becomes one sequence. The layout is Kinect v2 unless
    given.
    """
    root = Path(path)
    folders = protocol_folders(root, format) if root.is_dir() else []
    if not folders:
        wanted = f"train_{SUFFIXES[format]}.npy or val_{SUFFIXES[format]}.npy"
        raise DataError(f"{root}: format {format} needs a folder with {wanted}, or one with such folders in it")
    body_model = choose_layout(layout, "kinect-v2", root)
    found = _Collected()
    for folder in folders:
        _collect(folder, format, body_model, len(folders) > 1, found)
    if not found.rows:
        raise DataError(f"{root}: the arrays hold no sequences")
    samples = named_samples(found.rows.values(), found.parts)
    source = Source(
        root,
        format,
        body_model,
        num_bodies=min(max(array.shape[4] for array in found.arrays), 2),
        items=samples,
        read=_Reader(tuple(found.arrays), resized=format == "frame50"),
        protocols={name: split_rule(name) for name in found.parts},
        bad=found.bad,
    )
    add_ntu_facts(source, samples)
    _describe(source, found)
    return source


def _describe(source: Source, found: _Collected) -> None:
    """Say how the arrays are normalised, and tell the user what they do not say."""
    if source.format == "stgcn":
        note_normalized(source, first_clips(source))
    elif source.format == "agcn" and not is_centered(first_clips(source), source.layout):
        center = " and ".join(source.layout.joints[joint] for joint in source.layout.center)
        source.notes.append(
            f"warning: their origin is not the body's centre ({center}) in every frame, as 2s-AGCN's is: "
            "they are normalised as coordinates that were only recorded"
        )
    else:
        source.already = {"agcn": "agcn", "frame50": "crossclr"}[source.format]
        source.notes.append(
            f"these arrays were normalised when they were made, as --normalize {source.already} does it"
        )
    if source.format != "frame50" and not found.counted:
        source.notes.append("no *_num_frame.npy: lengths are found from the frames (zeros or replay at the end)")
    if found.unnamed:
        source.notes.append(f"no names in {', '.join(found.unnamed)}: sequences are numbered")


def _collect(folder: Path, format: str, layout: SkeletonLayout, several: bool, found: _Collected) -> None:
    name = Path(os.path.abspath(folder)).name  # a dot has none
    protocol = protocol_name(name)
    parts = found.parts.setdefault(name if several and protocol == UNKNOWN else protocol, {})
    for part, side in _PARTS.items():
        path = folder / f"{part}_{SUFFIXES[format]}.npy"
        if not path.is_file():
            found.bad.append((str(path), "there is no such file, so this part is missing"))
            continue
        array = MappedArray(path)
        if len(array.shape) != 5 or array.shape[1] != 3 or not all(array.shape[2:]):
            raise DataError(f"{path}: {array.dtype} {array.shape}, expected numbers (N, 3, T, V, M)")
        check_joints(layout, array.shape[3], path)
        check_sequence_size(math.prod(array.shape[1:]) * array.dtype.itemsize, str(path))
        names, labels = _names_and_labels(folder, part, array.shape[0], found)
        if several and not names:
            raise DataError(
                f"{folder}: no {part}_label.pkl with names, so its samples cannot be matched; open it alone"
            )
        lengths = _lengths(folder, part, array, found)
        found.arrays.append(array)
        for row, name in enumerate(names or [f"{part}_{row:06d}" for row in range(array.shape[0])]):
            if name in parts:
                found.bad.append((f"{folder.name}/{path.name}, row {row} ({name})", "the same name as an earlier row"))
                continue
            parts[name] = side
            if name not in found.rows:
                found.rows[name] = (_Place(len(found.arrays) - 1, row, lengths[row]), name, labels[row])


def _names_and_labels(folder: Path, part: str, number: int, found: _Collected) -> tuple[list[str], list[int]]:
    """Names without ``.skeleton`` (empty where there are none) and labels (-1 where there are none)."""
    pickled, plain = folder / f"{part}_label.pkl", folder / f"{part}_label.npy"
    names: list[str] = []
    if pickled.is_file():
        content = read_pickle(pickled)
        if not isinstance(content, tuple | list) or len(content) != 2:
            raise DataError(f"{pickled}: expected the pair (names, labels), found {type(content).__name__}")
        names = [name.removesuffix(".skeleton") for name in text_names(content[0], pickled)]
        labels = integer_labels(content[1], pickled)
        if len(names) != number:
            raise DataError(f"{pickled}: {len(names)} names, but the array beside it has {number} rows")
    elif plain.is_file():
        labels = integer_labels(read_npy(plain), plain)
    else:
        labels = [-1] * number
    if len(labels) != number:
        raise DataError(f"{folder}: {len(labels)} labels of {part}, but the array beside them has {number} rows")
    if not names:
        found.unnamed.append(f"{folder.name}/{part}")
    return names, labels


def _lengths(folder: Path, part: str, array: MappedArray, found: _Collected) -> list[int]:
    """True lengths, at most those of the array; -1 where they must be found from the frames."""
    path = folder / f"{part}_num_frame.npy"
    if not path.is_file():
        return [-1] * array.shape[0]
    counts: IntArray = read_npy(path).reshape(-1)
    if len(counts) != array.shape[0] or counts.dtype.kind not in "iu":
        raise DataError(f"{path}: {counts.dtype} {counts.shape}, expected integers ({array.shape[0]},), one a row")
    found.counted = True
    return [int(count) for count in np.clip(counts, 0, array.shape[2])]

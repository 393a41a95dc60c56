"""Reads a user's own skeletons: one npy array of any order of axes, or a folder of csv, txt and npy files."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.formats.axes import arrange, check_axes, find_axes
from prosl_lightning.data.formats.clips import first_clips, last_frame, note_normalized, true_length
from prosl_lightning.data.formats.index_table import INDEX_FILES, SEQUENCE_SUFFIXES, IndexTable, read_index
from prosl_lightning.data.formats.labels import Sample
from prosl_lightning.data.formats.npy import MappedArray, check_sequence_size, read_npy
from prosl_lightning.data.formats.text import read_text_frames
from prosl_lightning.data.ntu import NUM_JOINTS as NTU_JOINTS
from prosl_lightning.data.raw_files import check_file
from prosl_lightning.data.source import RawSequence, Source, choose_layout
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout

ARRAY_FORMAT, FOLDER_FORMAT = "npy", "files"
NONE_USABLE = "nothing usable among the first files; "


def open_array(path: str | Path, layout: str | SkeletonLayout | None = None, axes: str | None = None) -> Source:
    """Open one npy array of a single sequence or of many.

    The order of axes follows from the sizes where only one fits; else it is given. Zero frames at a clip's end are
    padding. A csv table of the same name beside the file, one row a sample, gives labels and columns. The layout is
    Kinect v2 for ([N,] 3, T, 25, M), needed for everything else.
    """
    file = Path(path)
    mapped = MappedArray(file)
    looks_like_ntu = mapped.shape[-4:-3] == (3,) and mapped.shape[-2:-1] == (NTU_JOINTS,) and mapped.shape[-1] <= 2
    body_model = choose_layout(layout, "kinect-v2" if looks_like_ntu and axes is None else None, file)
    if axes is None:
        axes = find_axes(mapped.shape, body_model.num_joints, True, str(file))
    axes = check_axes(axes, mapped.shape, body_model.num_joints, str(file))
    number = mapped.shape[axes.index("N")] if "N" in axes else 1
    check_sequence_size(math.prod(mapped.shape) // max(number, 1) * mapped.dtype.itemsize, str(file))
    names = [f"{file.stem}_{row:06d}" for row in range(number)] if "N" in axes else [file.stem]
    beside = file.with_suffix(".csv")
    table = read_index(beside) if beside.is_file() else None
    if table is not None and len(table.labels) != number:
        raise DataError(f"{beside}: {len(table.labels)} rows, but {file.name} holds {number} samples")
    if table is not None and table.names:
        names = table.names
    items = [_sample(row, names[row], table, row) for row in range(number)]
    bodies = mapped.shape[axes.index("M")] if "M" in axes else 1
    if "D" in axes:
        bodies = mapped.shape[axes.index("D")] // (3 * body_model.num_joints)
    reader = _ArrayReader(mapped, axes, body_model.num_joints)
    source = Source(file, ARRAY_FORMAT, body_model, min(bodies, 2), items, read=reader)
    source.notes.append(f"axes {axes}: {', '.join(map(str, mapped.shape))}")
    _add_table(source, table)
    note_normalized(source, first_clips(source))
    return source


def open_files(path: str | Path, layout: str | SkeletonLayout | None = None, axes: str | None = None) -> Source:
    """Open a folder of csv, txt and npy files, one sequence each, with an optional ``index.csv``.

    All folders below it are searched too; a sequence's name is its path without suffix. The layout is always needed.
    Of the first eight files one must be usable.
    """
    root = Path(path)
    files = sequence_files(root) if root.is_dir() else []
    if not files:
        raise DataError(f"{root}: format {FOLDER_FORMAT} needs a folder with {', '.join(SEQUENCE_SUFFIXES)} files")
    body_model = choose_layout(layout, None, root)
    tables = sorted(file for file in root.iterdir() if file.name.lower() in INDEX_FILES and file.is_file())
    if len(tables) > 1:
        raise DataError(f"{root}: both {' and '.join(file.name for file in tables)} are there; keep one of them")
    table = read_index(tables[0]) if tables else None
    if table is not None and not table.names:
        raise DataError(f"{table.path}: lacks a column 'name' with the files' names")
    reader = _FileReader(root, body_model, axes)
    source = Source(root, FOLDER_FORMAT, body_model, 1, [], read=reader)
    source.items = _match(root, files, table, source)
    sample = [reader(item) for item in source.items[:8]]
    usable = [sequence.bodies.shape[1] for sequence in sample if sequence.bodies is not None]
    if not usable:
        first = f"{sample[0].source}: {sample[0].error}" if sample else "no file is named in the table"
        raise DataError(f"{root}: {NONE_USABLE}{first}")
    source.num_bodies = min(max(usable), 2)
    _add_table(source, table)
    note_normalized(source, first_clips(source))
    return source


def is_sequence_name(name: str) -> bool:
    """Whether a file of this name may hold a sequence."""
    return name.lower().endswith(SEQUENCE_SUFFIXES) and not name.lower().startswith((".", "readme", "licen"))


def sequence_files(root: Path) -> list[Path]:
    """Files that may hold a sequence, in the folder and below, without hidden ones and the table."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        top = Path(folder) == root
        tables = INDEX_FILES if top else ()
        found += [Path(folder, name) for name in names if is_sequence_name(name) and name.lower() not in tables]
    return found


@dataclass(frozen=True)
class _ArrayReader:
    """Reads single samples of one memory-mapped array."""

    mapped: MappedArray
    axes: str
    num_joints: int

    def __call__(self, sample: Sample) -> RawSequence:
        source = f"{self.mapped.path.name}, sample {sample.place} ({sample.name})"
        return sample.read(source, partial(self._bodies, sample.place))

    def _bodies(self, row: int) -> NDArray[Any]:
        clip, axes = self.mapped.array, self.axes
        if "N" in axes:
            clip, axes = clip.take(row, axis=axes.index("N")), axes.replace("N", "")
        bodies = np.array(arrange(clip, axes, self.num_joints))
        return bodies[: true_length(bodies) if self.num_joints == NTU_JOINTS else last_frame(bodies)]


@dataclass(frozen=True)
class _FileReader:
    """Reads single files of a folder."""

    root: Path
    layout: SkeletonLayout
    axes: str | None

    def __call__(self, sample: Sample) -> RawSequence:
        file = sample.place
        return sample.read(str(file.relative_to(self.root)), partial(self._bodies, file), file)

    def _bodies(self, file: Path) -> NDArray[Any]:
        check_file(file)
        if file.suffix.lower() != ".npy":
            return read_text_frames(file, self.layout)
        array = read_npy(file)
        check_sequence_size(array.nbytes, str(file))
        axes = self.axes or find_axes(array.shape, self.layout.num_joints, False, str(file))
        if "N" in axes.upper():
            raise UsageError(f"axes '{axes}': each file of a folder is one sequence, so there is no N")
        axes = check_axes(axes, array.shape, self.layout.num_joints, str(file))
        return arrange(array, axes, self.layout.num_joints)


def _sample(place: int | Path, name: str, table: IndexTable | None, row: int) -> Sample:
    return Sample(place, name, -1, {}) if table is None else Sample(place, name, table.labels[row], table.row(row))


def _match(root: Path, files: list[Path], table: IndexTable | None, source: Source) -> list[Sample]:
    """Files by name, with their rows of the table; what has no partner is named."""
    by_name: dict[str, Path] = {}
    for file in sorted(files):
        name = file.relative_to(root).with_suffix("").as_posix()
        if name in by_name:
            source.bad.append((str(file.relative_to(root)), f"the same name as {by_name[name].name}"))
        else:
            by_name[name] = file
    if table is None:
        return [_sample(file, name, None, 0) for name, file in sorted(by_name.items())]
    rows = {name: row for row, name in enumerate(table.names)}
    source.bad += [(f"{table.path.name}, row {row + 2}", f"no file {n}") for n, row in rows.items() if n not in by_name]
    if unlisted := sorted(set(by_name) - set(rows)):
        source.left_out[f"not in {table.path.name}"] = unlisted
    return [_sample(by_name[name], name, table, rows[name]) for name in sorted(set(by_name) & set(rows))]


def _add_table(source: Source, table: IndexTable | None) -> None:
    if table is not None:
        source.class_names, source.protocols = table.class_names, table.protocols
        source.text_labels, source.column_names = bool(table.class_names), table.values
        source.notes += table.notes

"""Reads the npz files of CTR-GCN, which MAMP and many others keep: flat frames and one-hot labels, no names."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.formats.clips import last_frame
from prosl_lightning.data.formats.labels import (
    TEST,
    TRAIN,
    class_indices,
    protocol_name,
    split_rule,
)
from prosl_lightning.data.formats.npy import NpyHeader, check_sequence_size, read_header, read_member
from prosl_lightning.data.ntu_sets import NTU60, NTU120
from prosl_lightning.data.raw_files import opened_zip
from prosl_lightning.data.source import RawSequence, Source, check_joints, choose_layout
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

FORMAT = "ctrgcn-npz"
_ALMOST_ZERO = 1e-7  # metres; the least that float16 still tells from 0
_PARTS = {"train": TRAIN, "test": TEST}


def open_ctrgcn(path: str | Path, layout: str | SkeletonLayout | None = None) -> Source:
    """Open an npz file with ``x_train``, ``x_test`` (N, T, M*V*C) and one-hot ``y_train``, ``y_test`` (N, classes).

    Samples have no names; they are numbered in their order. Zero frames at the end are padding. The name of the file,
    e.g. ``NTU60_CS.npz``, tells the protocol. The layout is Kinect v2 unless given.
    """
    file = Path(path)
    body_model = choose_layout(layout, "kinect-v2", file)
    protocol = protocol_name(file.stem)
    with opened_zip(file) as archive:
        parts = [part for name in _PARTS if (part := _open_part(archive, name, file, body_model))]
    if not parts:
        raise DataError(f"{file}: lacks x_train and x_test")
    source = Source(
        file,
        FORMAT,
        body_model,
        num_bodies=min(max(part.num_bodies for part in parts), 2),
        items=range(sum(part.header.shape[0] for part in parts)),
        stream=partial(_sequences, file, parts, protocol, body_model.num_joints),
        protocols={protocol: split_rule(protocol)},
        notes=["samples have no names: they are numbered in the order of the file"],
    )
    for known in (NTU60, NTU120):
        if re.search(rf"(?<![a-z])NTU(RGB\+?D)?_?{known.num_classes}(?!\d)", file.stem, flags=re.IGNORECASE):
            source.class_names = known.class_names
            source.official = {name: size for name, size in known.official.items() if name == protocol}
    return source


@dataclass(frozen=True)
class _Part:
    """One of the two sides: header of its frames and class of each sample."""

    name: str
    header: NpyHeader
    labels: tuple[int, ...]
    num_bodies: int


def _sequences(file: Path, parts: Sequence[_Part], protocol: str, num_joints: int) -> Iterator[RawSequence]:
    """Yield the samples of both sides in order, one held at a time."""
    with opened_zip(file) as archive:
        for part in parts:
            number, length, _ = part.header.shape
            row_bytes = part.header.size // max(number, 1)
            with archive.open(f"x_{part.name}.npy") as stream:
                read_header(stream, str(file))
                for row in range(number):
                    source = f"{file.name}, x_{part.name}, row {row}"
                    content = stream.read(row_bytes)
                    if len(content) < row_bytes:
                        raise DataError(f"{source}: the file is cut off")
                    bodies = np.frombuffer(content, part.header.dtype).reshape(length, part.num_bodies, num_joints, 3)
                    bodies = _off_origin(bodies[: last_frame(bodies)])
                    columns = {protocol: _PARTS[part.name]}
                    yield RawSequence(source, f"{part.name}_{row:06d}", bodies, label=part.labels[row], columns=columns)


def _off_origin(bodies: NDArray[Any]) -> NDArray[Any]:
    """Move joints that lie exactly at the origin by next to nothing.

    These clips were moved so that one joint of the first frame is (0, 0, 0), which would mean that it is absent.
    """
    there = (bodies != 0).any(axis=3)
    at_origin = ~there & there.any(axis=2, keepdims=True)
    return np.where(at_origin[..., None], bodies.dtype.type(_ALMOST_ZERO), bodies) if at_origin.any() else bodies


def _open_part(archive: zipfile.ZipFile, part: str, file: Path, layout: SkeletonLayout) -> _Part | None:
    names = set(archive.namelist())
    if f"x_{part}.npy" not in names:
        return None
    with archive.open(f"x_{part}.npy") as stream:
        header = read_header(stream, f"{file}: x_{part}")
    found = f"{file}: x_{part} is {header.dtype} {header.shape}"
    if len(header.shape) != 3 or header.fortran or header.shape[2] == 0 or header.shape[2] % 3:
        raise DataError(f"{found}, expected numbers (N, T, M*V*3) in C order")
    num_bodies, left = divmod(header.shape[2] // 3, layout.num_joints)
    if left:
        check_joints(layout, header.shape[2] // 3, file)
    check_sequence_size(header.shape[1] * header.shape[2] * header.dtype.itemsize, found)
    labels = [-1] * min(header.shape[0], archive.getinfo(f"x_{part}.npy").file_size)
    if f"y_{part}.npy" in names:
        labels = class_indices(read_member(archive, f"y_{part}", str(file)), file, f"y_{part}")
    if len(labels) != header.shape[0]:
        raise DataError(f"{found}, but there are {len(labels)} labels in y_{part}")
    return _Part(part, header, tuple(labels), num_bodies)

"""Reads the ragged npz format: the frames of all sequences one after another, lengths, and integers per sequence.

``joints`` float (F, bodies, joints, 3) and ``lengths`` int (N) are needed; ``labels``, ``subjects`` int (N) and
``names`` str (N) are usual (``label`` and so on will do); every further int (N) array becomes an index column. Joints
are streamed, never held whole.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.formats.clips import NUM_LOOKED_AT, note_normalized
from prosl_lightning.data.formats.known_sets import column_name, known_sets
from prosl_lightning.data.formats.labels import note_repeated
from prosl_lightning.data.formats.npy import INDEX_BYTES, check_sequence_size, read_header, read_member
from prosl_lightning.data.protocols import IntArray
from prosl_lightning.data.raw_files import opened_zip
from prosl_lightning.data.source import RawSequence, Source, check_joints
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts

FORMAT = "ragged-npz"
_COMMON = ("labels", "subjects", "names")  # their singular will do


def open_ragged(path: str | Path, layout: str | SkeletonLayout | None = None) -> Source:
    """Open an npz file in the ragged format; one named after a known data set brings layout, classes and splits."""
    file = RaggedFile(path)
    known = known_sets().get(file.path.stem)
    if layout is None and known is None:
        raise UsageError(
            f"{file.path.name} is not a known data set ({', '.join(known_sets())}): give its body model with\n"
            f"--layout NAME or FILE.yaml; packaged are {', '.join(packaged_layouts())}"
        )
    body_model = SkeletonLayout.of(layout or known.layout)  # type: ignore[union-attr]
    check_joints(body_model, file.num_joints, file.path)
    source = Source(
        file.path,
        FORMAT,
        body_model,
        num_bodies=min(file.num_bodies, 2),
        items=range(len(file)),
        stream=file.sequences,
    )
    if known:
        source.class_names, source.protocols, source.normalize = known.class_names, known.protocols, known.normalize
        if body_model.joints != (own := SkeletonLayout.of(known.layout)).joints:
            source.notes.append(f"warning: {file.path.stem} has layout {own.name}, not {body_model.name}")
    else:
        note_normalized(source, islice(file, NUM_LOOKED_AT))
    if file.ignored:
        source.notes.append(f"not used, because not integers (N,): {', '.join(file.ignored)}")
    note_repeated(source, file.names)
    return source


class RaggedFile:
    """One npz file in the ragged format; the joints are read sequence by sequence.

    Attributes:
        path: The file.
        num_bodies: Bodies per frame B.
        num_joints: Joints per body V.
        lengths: Frames of each sequence, ``(N,)``.
        labels: Class of each sequence, ``(N,)``, -1 where unknown.
        names: Name of each sequence; numbers where the file has none.
        columns: Index columns ``(N,)`` by name.
        ignored: Keys of the file that are not integer arrays ``(N,)``.

    Raises:
        DataError: The file cannot be read, or its arrays do not fit together; while reading, also that it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path}: there is no such file")
        if not zipfile.is_zipfile(self.path):
            raise DataError(f"{self.path}: not a (whole) npz file; expected one with 'joints' and 'lengths'")
        with opened_zip(self.path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            missing = {"joints", "lengths"} - set(keys)
            if missing:
                raise DataError(f"{self.path}: lacks {', '.join(sorted(missing))}; it has {', '.join(keys)}")
            if sum(info.file_size for info in archive.infolist() if info.filename != "joints.npy") > INDEX_BYTES:
                raise DataError(f"{self.path}: the arrays beside joints are too large for an index")
            small = {key: read_member(archive, key, str(self.path)) for key in keys if key != "joints"}
            with archive.open("joints.npy") as member:
                header = read_header(member, f"{self.path}: joints", kinds="fiuUSbcmMV")
        self._shape, self._dtype = header.shape, header.dtype
        if header.fortran:
            raise DataError(f"{self.path}: joints are stored in Fortran order; save them with np.ascontiguousarray")
        if len(self._shape) != 4 or self._shape[3] != 3 or self._dtype.kind not in "fiu" or not all(self._shape[1:]):
            raise DataError(
                f"{self.path}: joints are {self._dtype} {self._shape}, expected numbers (frames, bodies, joints, 3)"
            )
        _, self.num_bodies, self.num_joints, _ = self._shape
        self.lengths = self._read_lengths(small.pop("lengths"))
        self._read_index(small)

    def __len__(self) -> int:
        """Number of sequences N."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Yield the joints of each sequence in order, ``(T, B, V, C)`` = frame, body, joint, coordinate."""
        frame = self._shape[1:]
        frame_bytes = int(np.prod(frame)) * self._dtype.itemsize
        check_sequence_size(int(self.lengths.max()) * frame_bytes, str(self.path))
        with opened_zip(self.path) as archive, archive.open("joints.npy") as member:
            read_header(member, str(self.path))
            for length in self.lengths.tolist():
                content = member.read(length * frame_bytes)
                yield np.frombuffer(content, self._dtype).reshape(length, *frame)

    def sequences(self) -> Iterator[RawSequence]:
        """Yield all sequences in order, with name, label and columns."""
        for row, (name, bodies) in enumerate(zip(self.names, self, strict=True)):
            columns = {column: int(values[row]) for column, values in self.columns.items()}
            source = f"{self.path.name}, sequence {row} ({name})"
            yield RawSequence(source, name, bodies, label=int(self.labels[row]), columns=columns)

    def _read_lengths(self, lengths: NDArray[Any]) -> IntArray:
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or len(lengths) == 0 or lengths.min() < 0:
            raise DataError(f"{self.path}: lengths are {lengths.dtype} {lengths.shape}, expected counts (N,), N >= 1")
        total = sum(lengths.tolist())
        if total != self._shape[0]:
            raise DataError(f"{self.path}: lengths add up to {total}, but joints hold {self._shape[0]} frames")
        return lengths.astype(np.int64)

    def _read_index(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        number, arrays = len(self.lengths), self._common_keys(arrays)
        for key in _COMMON:
            array = arrays.get(key)
            if array is not None and (array.shape != (number,) or (key != "names" and array.dtype.kind not in "iu")):
                wanted = f"{'strings' if key == 'names' else 'integers'} ({number},), one for each of lengths"
                raise DataError(f"{self.path}: {key} are {array.dtype} {array.shape}, expected {wanted}")
        integers = {k: v for k, v in arrays.items() if v.shape == (number,) and v.dtype.kind in "iu" and k != "names"}
        self.labels: IntArray = integers.pop("labels", np.full(number, -1)).astype(np.int64)
        names = arrays.get("names", np.arange(number))
        self.names = [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names.tolist()]
        self.columns = {column_name(key): array.astype(np.int64) for key, array in integers.items()}
        self.ignored = sorted(set(arrays) - set(integers) - set(_COMMON))

    def _common_keys(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The arrays with common keys in the plural.

        Raises:
            DataError: Two keys would become the same column.
        """
        found: dict[str, str] = {}
        for key in arrays:
            if (other := found.setdefault(column_name(key), key)) != key:
                raise DataError(f"{self.path}: has {other} and {key}, which are one column; keep one of them")
        return {f"{key}s" if f"{key}s" in _COMMON else key: array for key, array in arrays.items()}

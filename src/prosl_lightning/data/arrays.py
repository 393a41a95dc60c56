"""Reads the ragged npz format: the frames of all sequences one after another, lengths, and integers per sequence.

``joints`` float (F, bodies, joints, 3) and ``lengths`` int (N) are needed; ``labels``, ``subjects`` int (N) and
``names`` str (N) are usual; every further int (N) array becomes an index column. Joints are streamed, never held whole.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from prosl_lightning.data.protocols import IntArray
from prosl_lightning.errors import DataError, UsageError

_COMMON = ("labels", "subjects", "names")
_BROKEN = (OSError, ValueError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile, NotImplementedError)


@dataclass(frozen=True)
class KnownSet:
    """What the library knows of a data set by its name.

    Attributes:
        layout: Name of its body model.
        class_names: Classes in label order.
        protocols: Split rules by name.
        normalize: The normalisation that suits it.
    """

    layout: str
    class_names: tuple[str, ...]
    protocols: Mapping[str, Mapping[str, Any]]
    normalize: str = "agcn"


@cache
def known_sets() -> dict[str, KnownSet]:
    """Data sets whose layout, classes and splits are shipped with the library."""
    text = (resources.files("prosl_lightning.data") / "datasets.yaml").read_text(encoding="utf-8")
    return {
        name: KnownSet(
            spec["layout"],
            tuple(map(str, spec["classes"])),
            spec.get("protocols", {}),
            spec.get("normalize", "agcn"),
        )
        for name, spec in yaml.safe_load(text).items()
    }


def column_name(key: str) -> str:
    """The index column of an npz key: its singular (``subjects`` -> ``subject``, ``correctness`` stays)."""
    return key[:-1] if key.endswith("s") and not key.endswith("ss") else key


def parse_protocol(text: str) -> tuple[str, dict[str, Any]]:
    """Read a split rule written as ``NAME:COLUMN=1,2,3``, the values that train; all others test.

    Raises:
        UsageError: The text has another form.

    Example:
        >>> parse_protocol("x-sub:subject=1,3,5")
        ('x-sub', {'column': 'subject', 'train': [1, 3, 5]})
    """
    name, colon, rule = text.partition(":")
    column, equals, values = rule.partition("=")
    try:
        train = [int(value) for value in values.split(",")]
    except ValueError:
        train = []
    if not (colon and equals and name and column and train):
        raise UsageError(f"protocol '{text}': expected NAME:COLUMN=1,2,3 (the values of the column that train)")
    return name, {"column": column_name(column), "train": train}


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
        DataError: The file cannot be read, or its arrays do not fit together.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path}: there is no such file")
        if not zipfile.is_zipfile(self.path):
            raise DataError(f"{self.path}: not a (whole) npz file; expected one with 'joints' and 'lengths'")
        try:
            with zipfile.ZipFile(self.path) as archive:
                keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
                missing = {"joints", "lengths"} - set(keys)
                if missing:
                    raise DataError(f"{self.path}: lacks {', '.join(sorted(missing))}; it has {', '.join(keys)}")
                small = {key: _read_array(archive, key) for key in keys if key != "joints"}
                with archive.open("joints.npy") as member:
                    self._shape, self._dtype = _read_header(member)
        except _BROKEN as error:
            raise self._broken(error) from error
        if len(self._shape) != 4 or self._shape[3] != 3 or self._dtype.kind not in "fiu":
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
        """Yield the joints of each sequence in order, ``(T, B, V, C)`` = frame, body, joint, coordinate.

        Raises:
            DataError: The file ends too soon or is damaged.
        """
        frame = self._shape[1:]
        frame_bytes = int(np.prod(frame)) * self._dtype.itemsize
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open("joints.npy") as member:
                _read_header(member)
                for length in self.lengths.tolist():
                    content = member.read(length * frame_bytes)
                    yield np.frombuffer(content, self._dtype).reshape(length, *frame)
        except _BROKEN as error:
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> DataError:
        return error if isinstance(error, DataError) else DataError(f"{self.path}: damaged or not readable ({error})")

    def _read_lengths(self, lengths: NDArray[Any]) -> IntArray:
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or len(lengths) == 0 or lengths.min() < 0:
            raise DataError(f"{self.path}: lengths are {lengths.dtype} {lengths.shape}, expected counts (N,), N >= 1")
        if lengths.sum(dtype=np.int64) != self._shape[0]:
            raise DataError(f"{self.path}: lengths add up to {lengths.sum()}, but joints hold {self._shape[0]} frames")
        return lengths.astype(np.int64)

    def _read_index(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        number = len(self.lengths)
        for key in _COMMON:
            array = arrays.get(key)
            if array is not None and (array.shape != (number,) or (key != "names" and array.dtype.kind not in "iu")):
                wanted = f"{'strings' if key == 'names' else 'integers'} ({number},), one for each of lengths"
                raise DataError(f"{self.path}: {key} are {array.dtype} {array.shape}, expected {wanted}")
        integers = {k: v for k, v in arrays.items() if v.shape == (number,) and v.dtype.kind in "iu" and k != "names"}
        self.labels: IntArray = integers.pop("labels", np.full(number, -1)).astype(np.int64)
        names = arrays.get("names", np.arange(number))
        self.names = [str(name) for name in names.tolist()]
        self.columns = {column_name(key): array.astype(np.int64) for key, array in integers.items()}
        self.ignored = sorted(set(arrays) - set(integers) - set(_COMMON))


def _read_array(archive: zipfile.ZipFile, key: str) -> NDArray[Any]:
    with archive.open(f"{key}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if fortran:
        raise ValueError("joints are stored in Fortran order; save them with np.ascontiguousarray")
    return shape, dtype

"""Reads npy arrays without trusting them: headers are checked against the bytes there are, pickled objects refused."""

from __future__ import annotations

import math
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.errors import DataError

NUMBERS, STRINGS = "fiu", "US"
INDEX_BYTES = 1 << 27  # labels and the like, read at once
SEQUENCE_BYTES = 1 << 26  # one sequence: an hour of two Kinect bodies in float32


@dataclass(frozen=True)
class NpyHeader:
    """What the header of an npy file says.

    Attributes:
        shape: Sizes of the axes.
        dtype: Number format.
        fortran: The first axis runs fastest.
        offset: Where the values begin.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], source: str, kinds: str = NUMBERS) -> NpyHeader:
    """Read and check the header at the beginning of a stream.

    Args:
        stream: An open npy file, or such a member of a zip file.
        source: Its name, for messages.
        kinds: Kinds of dtype that are admitted.

    Raises:
        DataError: No npy header, a kind that is not admitted (objects never are), or impossible sizes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
    except Exception as error:  # NumPy parses it as Python text: damage raises errors of a dozen kinds
        raise DataError(f"{source}: not a whole npy array ({_line(error)})") from error
    if dtype.hasobject:
        raise DataError(f"{source}: holds pickled Python objects, which are never loaded; save numbers")
    if dtype.kind not in kinds or dtype.itemsize == 0 or min(shape, default=0) < 0:
        wanted = "numbers" if kinds == NUMBERS else "numbers or strings"
        raise DataError(f"{source}: {dtype} {shape}, expected {wanted}")
    return NpyHeader(tuple(map(int, shape)), dtype, fortran, stream.tell())


class MappedArray:
    """An npy file that stays on the disk; only what is asked for is read. Picklable: a copy opens the file again.

    Attributes:
        path: The file.
        shape: Sizes of the axes.
        dtype: Number format.

    Raises:
        DataError: The file cannot be read, is no npy file, or ends before its last value.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                self._header = read_header(stream, str(path))
            found = path.stat().st_size - self._header.offset
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        self.shape, self.dtype = self._header.shape, self._header.dtype
        if found < self._header.size:
            raise DataError(
                f"{path}: cut off: {found} bytes of values, expected {self._header.size} for {self.dtype} {self.shape}"
            )
        self._array: NDArray[Any] | None = None

    @property
    def array(self) -> NDArray[Any]:
        """The values, memory-mapped."""
        if self._array is None:
            self._array = self._map()
        return self._array

    def _map(self) -> NDArray[Any]:
        if self._header.size == 0:
            return np.zeros(self.shape, self.dtype)
        order: Any = "F" if self._header.fortran else "C"
        try:
            return np.memmap(self.path, self.dtype, "r", self._header.offset, self.shape, order)
        except (OSError, ValueError, OverflowError) as error:
            raise DataError(f"{self.path}: cannot be mapped ({_line(error)})") from error

    def __reduce__(self) -> tuple[type[MappedArray], tuple[Path]]:
        return MappedArray, (self.path,)


def read_npy(path: Path) -> NDArray[Any]:
    """Read a small npy file whole, see :func:`read_values`."""
    try:
        with path.open("rb") as stream:
            return read_values(stream, str(path), NUMBERS)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_member(archive: zipfile.ZipFile, key: str, source: str) -> NDArray[Any]:
    """Read a small array of an npz file whole, numbers or strings, see :func:`read_values`."""
    with archive.open(f"{key}.npy") as stream:
        return read_values(stream, f"{source}: {key}", NUMBERS + STRINGS)


def read_values(stream: IO[bytes], source: str, kinds: str) -> NDArray[Any]:
    """Read a whole small array from a stream.

    Raises:
        DataError: It is damaged, of another kind, or larger than 128 MB.
    """
    header = read_header(stream, source, kinds)
    if header.size > INDEX_BYTES:
        raise DataError(f"{source}: {header.dtype} {header.shape} is too large to be read at once")
    content = stream.read(header.size)
    if len(content) < header.size:
        raise DataError(f"{source}: cut off: {len(content)} of {header.size} bytes")
    values = np.frombuffer(content, header.dtype)
    return values.reshape(header.shape, order="F" if header.fortran else "C")


def check_sequence_size(size: int, source: str) -> None:
    """Refuse a sequence of so many bytes that it would take gigabytes once it is normalised."""
    if size > SEQUENCE_BYTES:
        raise DataError(
            f"{source}: a sequence of {min(size, 1 << 60) / 1e6:.0f} MB; at most {SEQUENCE_BYTES >> 20} MB, cut it up"
        )


def _line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]

"""Writes archives: streamed, checksummed, and under their final name only when complete."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import operator
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data import staging
from prosl_lightning.data.protocols import check_rule
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.version import __version__

FORMAT = "prosl-archive"
VERSION = 1
FRAMES, INDEX, META = "frames.npy", "index.npy", "meta.json"
RESERVED = ("name", "length", "label")
HEADER_BYTES = 128
MAX_LABEL, MAX_BODIES = 1_000_000, 100  # more are a mistake, and whoever counts by them would fill the memory
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UnwritableError(DataError):
    """An archive cannot be written: no space, no permission. Unlike a bad sequence it ends the work."""


class ArchiveWriter:
    """Writes an archive, sequence by sequence; use it as a context manager.

    Everything is written under a temporary name beside ``root`` and renamed when complete, so a folder called ``root``
    is always whole. An exception inside the ``with`` block removes what was written. Frames are streamed to disk.

    Args:
        root: The archive's folder; must not exist, or be empty, unless ``overwrite``.
        layout: The body model.
        num_bodies: Persons per frame, M.
        class_names: Names of the classes in label order.
        protocols: Split rules by name, see :mod:`prosl_lightning.data.protocols`.
        recipe: How the sequences were made (plain data), kept for the reader.
        source: Where they came from, one line.
        dtype: ``float16`` (rounding at most 0.25 mm below 1 m) or ``float32``.
        overwrite: Replace an existing archive once the new one is complete.

    Attributes:
        counts: How many sources were read, left out and so on, for the reader; fill it before the block ends. Numbers
            only: equal input gives equal bytes.

    Raises:
        DataError: ``root`` exists, or cannot be written (:class:`UnwritableError`).
        UsageError: An argument does not fit.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        layout: SkeletonLayout,
        num_bodies: int,
        class_names: Sequence[str] = (),
        protocols: Mapping[str, Mapping[str, Any]] | None = None,
        recipe: Mapping[str, Any] | None = None,
        source: str = "",
        dtype: str = "float16",
        overwrite: bool = False,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise UsageError(f"dtype is '{dtype}'; expected float16 or float32")
        if not 1 <= num_bodies <= MAX_BODIES:
            raise UsageError(f"num_bodies is {num_bodies}; expected 1 to {MAX_BODIES}")
        self.root = Path(os.path.abspath(root))
        self.layout, self.num_bodies, self.overwrite = layout, num_bodies, overwrite
        self.class_names = [str(name) for name in class_names]
        self.protocols = {name: check_rule(name, rule) for name, rule in (protocols or {}).items()}
        self.recipe, self.source, self.dtype = dict(recipe or {}), source, np.dtype(dtype)
        self.counts: dict[str, int] = {}
        self._rows: list[tuple[bytes, int, int, tuple[int, ...]]] = []
        self._column_names: tuple[str, ...] | None = None
        self._num_frames = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._new_parents: list[Path] = []
        self._partial = staging.temporary_name(self.root)
        refuse_occupied(self.root, overwrite)

    def __enter__(self) -> ArchiveWriter:
        staging.remove_leftovers(self.root)
        self._new_parents = [parent for parent in self.root.parents if not parent.exists()]
        try:
            self._partial.mkdir(parents=True)
            self._file = (self._partial / FRAMES).open("wb")
            self._file.write(bytes(HEADER_BYTES))
        except OSError as error:
            self._discard()
            place = next(parent for parent in self.root.parents if parent.exists())
            raise self._unwritable(error, f"{place} takes no new folder") from error
        except BaseException:  # interrupted or terminated: `__exit__` will not be called
            self._discard()
            raise
        return self

    def add(self, name: str, joints: NDArray[Any], /, *, label: int = -1, **columns: int) -> None:
        """Append one sequence.

        Args:
            name: Its name, e.g. the source file's stem.
            joints: Coordinates ``(T, V, M, C)`` = frame, joint, person, coordinate, C = 3, in ``layout.unit``.
            label: Its class, -1 where unknown.
            columns: Integers for the index, the same names in every call.

        Raises:
            DataError: Wrong shape, a value that is not finite (or too large for ``dtype``), or a label that is none.
            UsageError: The columns differ from those of the first sequence.
        """
        if self._file is None:
            raise UsageError("ArchiveWriter.add works inside its `with` block only")
        expected = (self.layout.num_joints, self.num_bodies, 3)
        if joints.ndim != 4 or joints.shape[1:] != expected or len(joints) == 0:
            wanted = ", ".join(map(str, expected))
            raise DataError(
                f"{name}: shape {joints.shape}, expected (T, {wanted}) of layout '{self.layout.name}', T >= 1"
            )
        if self._column_names is None:
            self._column_names = tuple(columns)
            self._check_columns()
        if set(columns) != set(self._column_names):
            raise UsageError(
                f"{name}: columns {sorted(columns)}, but the first sequence has {sorted(self._column_names)}"
            )
        self._check_label(name, label)
        with np.errstate(over="ignore"):
            frames = np.ascontiguousarray(joints.transpose(0, 3, 1, 2), dtype=self.dtype)
        if not np.isfinite(frames).all():
            finite = np.isfinite(joints).all()
            problem = f"a value too large for {self.dtype}; use float32" if finite else "NaN or infinity"
            raise DataError(f"{name}: holds {problem}")
        try:
            self._file.write(frames.data)
        except OSError as error:
            raise self._unwritable(error) from error
        self._digest.update(frames.data)
        self._num_frames += len(frames)
        values = tuple(int(columns[column]) for column in self._column_names)
        self._rows.append((name.encode("utf-8", "backslashreplace"), len(frames), int(label), values))

    def __len__(self) -> int:
        """Number of sequences added so far."""
        return len(self._rows)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._complete()
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self._discard()

    def _check_columns(self) -> None:
        known = self._column_names or ()
        for column in known:
            if column in RESERVED:
                raise UsageError(f"'{column}' is a column of every archive; choose another name")
        for name, rule in self.protocols.items():
            if rule["column"] not in known:
                raise UsageError(
                    f"protocol '{name}' splits by column '{rule['column']}'; columns are {', '.join(known) or 'none'}"
                )

    def _check_label(self, name: str, label: int) -> None:
        if label < -1 or (self.class_names and label >= len(self.class_names)):
            known = f"are {len(self.class_names)} classes" if len(self.class_names) != 1 else "is 1 class"
            raise DataError(f"{name}: label {label}, but there {known} (-1 = unknown)")
        if label > MAX_LABEL:
            raise DataError(f"{name}: label {label}, expected classes counted from 0, at most {MAX_LABEL:,}")

    def _complete(self) -> None:
        if not self._rows:
            raise DataError(f"nothing to write to {self.root}: there is no sequence")
        assert self._file is not None
        self._file.seek(0)
        self._file.write(frames_header(self.dtype, (self._num_frames, 3, self.layout.num_joints, self.num_bodies)))
        staging.sync_and_close(self._file)
        table = self._table()
        buffer = io.BytesIO()
        np.save(buffer, table, allow_pickle=False)
        index = buffer.getvalue()
        staging.write_bytes(self._partial / INDEX, index)
        staging.write_bytes(self._partial / META, meta_text(self._meta(index)).encode())
        staging.sync_folder(self._partial)
        refuse_occupied(self.root, self.overwrite)
        staging.publish(self._partial, self.root)
        self._new_parents = []

    def _table(self) -> NDArray[Any]:
        names, lengths, labels, values = zip(*self._rows, strict=True)
        data = {"name": np.array(names), "length": np.array(lengths), "label": np.array(labels)}
        data |= dict(zip(self._column_names or (), np.array(values, dtype=np.int64).T, strict=True))
        table = np.empty(len(names), [(field, _narrowest(array)) for field, array in data.items()])
        for field, array in data.items():
            table[field] = array
        return table

    def _meta(self, index: bytes) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "written_by": f"prosl-lightning {__version__}",
            "layout": self.layout.to_dict(),
            "num_bodies": self.num_bodies,
            "unit": self.layout.unit,
            "class_names": self.class_names,
            "protocols": self.protocols,
            "recipe": self.recipe,
            "source": self.source,
            "counts": {name: operator.index(number) for name, number in self.counts.items()},
            "dtype": self.dtype.name,
            "num_sequences": len(self._rows),
            "num_frames": self._num_frames,
            "frames": {"bytes": (self._partial / FRAMES).stat().st_size, "sha256": self._digest.hexdigest()},
            "index": {"bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()},
        }

    def _discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk fails once more when the buffer is flushed
                self._file.close()
            self._file = None
        shutil.rmtree(self._partial, ignore_errors=True)
        for parent in self._new_parents:
            with suppress(OSError):
                parent.rmdir()

    def _unwritable(self, error: OSError, otherwise: str = "") -> UnwritableError:
        hint = "free some space" if error.errno in _FULL else otherwise
        told = f"cannot write the archive {self.root}: {error.strerror or error}"
        return UnwritableError(f"{told}; {hint + ' or ' if hint else ''}choose another folder")


def refuse_occupied(root: Path, overwrite: bool) -> None:
    """Check that an archive may be written to ``root``.

    Raises:
        DataError: Something stands there already (only an archive is ever overwritten), or cannot be looked into.
    """
    try:
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return
    except OSError as error:
        raise UnwritableError(f"{root} cannot be used ({error.strerror}); choose another folder") from error
    if not root.is_dir() or not (root / META).is_file():
        raise DataError(f"{root} exists and is not an archive; choose another folder")
    if not overwrite:
        raise DataError(f"{root} exists already; choose another folder, or pass --overwrite to replace it")


def frames_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The first bytes of the frames' file: like NumPy's, but of one size whatever the shape, which is known last."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    magic = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return magic + text.ljust(HEADER_BYTES - 11).encode() + b"\n"


def meta_text(meta: Mapping[str, Any]) -> str:
    """The text of ``meta.json``, its last entry the checksum of all before it."""
    content = {key: value for key, value in meta.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()
    return json.dumps(content | {"sha256": digest}, indent=1)


def _narrowest(array: NDArray[Any]) -> np.dtype[Any]:
    if array.dtype.kind == "S":
        return array.dtype
    info = np.iinfo(np.int32)
    return np.dtype("<i4" if info.min <= array.min() and array.max() <= info.max else "<i8")

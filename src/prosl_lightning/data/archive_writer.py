"""Writes archives: streamed, checksummed, and under their final name only when complete."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import shutil
import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.protocols import check_rule
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.version import __version__

FORMAT = "prosl-archive"
VERSION = 1
FRAMES, INDEX, META = "frames.npy", "index.npy", "meta.json"
RESERVED = ("name", "length", "label")
HEADER_BYTES = 128


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
        if num_bodies < 1:
            raise UsageError(f"num_bodies is {num_bodies}; expected at least 1")
        self.root = Path(os.path.abspath(root))
        self.layout, self.num_bodies, self.overwrite = layout, num_bodies, overwrite
        self.class_names = [str(name) for name in class_names]
        self.protocols = {name: check_rule(name, rule) for name, rule in (protocols or {}).items()}
        self.recipe, self.source, self.dtype = dict(recipe or {}), source, np.dtype(dtype)
        self._rows: list[tuple[bytes, int, int, tuple[int, ...]]] = []
        self._column_names: tuple[str, ...] | None = None
        self._num_frames = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._new_parents: list[Path] = []
        self._partial = self.root.with_name(f"{self._prefix}{os.getpid()}-{uuid.uuid4().hex[:8]}")
        refuse_occupied(self.root, overwrite)

    @property
    def _prefix(self) -> str:
        return f".{self.root.name}.partial-{socket.gethostname()}-"

    def _remove_leftovers(self) -> None:
        """Remove what killed processes of this machine left beside the target."""
        for folder in self.root.parent.glob(f"{glob.escape(self._prefix)}*"):
            process = folder.name.removeprefix(self._prefix).split("-")[0]
            if process.isdecimal() and not _is_alive(int(process)):
                shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> ArchiveWriter:
        self._remove_leftovers()
        self._new_parents = [parent for parent in self.root.parents if not parent.exists()]
        try:
            self._partial.mkdir(parents=True)
            self._file = (self._partial / FRAMES).open("wb")
            self._file.write(bytes(HEADER_BYTES))
        except OSError as error:
            self._discard()
            raise self._unwritable(error) from error
        return self

    def add(self, name: str, joints: NDArray[Any], *, label: int = -1, **columns: int) -> None:
        """Append one sequence.

        Args:
            name: Its name, e.g. the source file's stem.
            joints: Coordinates ``(T, V, M, C)`` = frame, joint, person, coordinate, C = 3, in ``layout.unit``.
            label: Its class, -1 where unknown.
            columns: Integers for the index, the same names in every call.

        Raises:
            DataError: Wrong shape, a value that is not finite (or too large for ``dtype``), or a label without a name.
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
        if label < -1 or (self.class_names and label >= len(self.class_names)):
            raise DataError(f"{name}: label {label}, but there are {len(self.class_names)} classes (-1 = unknown)")
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

    def _complete(self) -> None:
        if not self._rows:
            raise DataError(f"nothing to write to {self.root}: there is no sequence")
        assert self._file is not None
        self._file.seek(0)
        self._file.write(self._header())
        _sync_and_close(self._file)
        table = self._table()
        buffer = io.BytesIO()
        np.save(buffer, table, allow_pickle=False)
        index = buffer.getvalue()
        _write_bytes(self._partial / INDEX, index)
        text = json.dumps(self._meta(index), indent=1)
        _write_bytes(self._partial / META, text.encode())
        _sync_folder(self._partial)
        self._publish()

    def _header(self) -> bytes:
        # numpy's own header grows with the number of frames, which is known only now: ours has a fixed size.
        shape = (self._num_frames, 3, self.layout.num_joints, self.num_bodies)
        text = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        magic = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
        return magic + text.ljust(HEADER_BYTES - 11).encode() + b"\n"

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
            "dtype": self.dtype.name,
            "num_sequences": len(self._rows),
            "num_frames": self._num_frames,
            "frames": {"bytes": (self._partial / FRAMES).stat().st_size, "sha256": self._digest.hexdigest()},
            "index": {"bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()},
        }

    def _publish(self) -> None:
        refuse_occupied(self.root, self.overwrite)
        if not self.root.exists():
            os.rename(self._partial, self.root)
        elif not any(self.root.iterdir()):
            self.root.rmdir()
            os.rename(self._partial, self.root)
        else:
            old = self._partial.with_suffix(".old")
            os.rename(self.root, old)
            try:
                os.rename(self._partial, self.root)
            except OSError:
                os.rename(old, self.root)
                raise
            shutil.rmtree(old, ignore_errors=True)
        _sync_folder(self.root.parent)
        self._new_parents = []

    def _discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk fails once more when the buffer is flushed
                self._file.close()
            self._file = None
        shutil.rmtree(self._partial, ignore_errors=True)
        for parent in self._new_parents:
            with suppress(OSError):
                parent.rmdir()

    def _unwritable(self, error: OSError) -> UnwritableError:
        return UnwritableError(
            f"cannot write the archive {self.root}: {error.strerror or error}; free some space or choose another folder"
        )


def refuse_occupied(root: Path, overwrite: bool) -> None:
    """Check that an archive may be written to ``root``.

    Raises:
        DataError: Something stands there already (only an archive is ever overwritten).
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    if not root.is_dir() or not (root / META).is_file():
        raise DataError(f"{root} exists and is not an archive; choose another folder")
    if not overwrite:
        raise DataError(f"{root} exists already; choose another folder, or pass --overwrite to replace it")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _narrowest(array: NDArray[Any]) -> np.dtype[Any]:
    if array.dtype.kind == "S":
        return array.dtype
    info = np.iinfo(np.int32)
    return np.dtype("<i4" if info.min <= array.min() and array.max() <= info.max else "<i8")


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        _sync_and_close(file)


def _sync_and_close(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _sync_folder(path: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

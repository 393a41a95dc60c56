"""The one on-disk format: a folder with all frames in one flat array, a small index, and a JSON description.

``frames.npy`` holds the frames of all sequences one after another, ``(F, C, V, M)`` = frame, coordinate, joint, person,
so that a random sequence is one contiguous slice of a memory map. ``index.npy`` is a table with one row a sequence
(name, length, label and any further integer columns). ``meta.json`` says what the numbers mean and carries sizes and
checksums. There are no pickles and no time stamps: equal input gives equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.archive_writer import (
    FORMAT,
    FRAMES,
    HEADER_BYTES,
    INDEX,
    MAX_LABEL,
    META,
    RESERVED,
    VERSION,
    ArchiveWriter,
    frames_header,
    meta_text,
)
from prosl_lightning.data.protocols import IntArray, check_rule, split_rows
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout

__all__ = ["Archive", "ArchiveWriter"]

_BLOCK = 1 << 22
_NEEDED = {"layout", "num_bodies", "class_names", "protocols", "dtype", "num_frames", "frames", "index"}
_UNCOUNTED = _NEEDED | {"format", "version", "written_by", "unit", "recipe", "source", "num_sequences"}


class Archive:
    """A read-only archive of skeleton sequences; the frames stay on disk and are memory-mapped.

    Attributes:
        root: The archive's folder.
        meta: The content of ``meta.json``.
        layout: The body model of the joints.
        num_bodies: Persons per frame, M; an absent person is all zeros.
        class_names: Names of the classes in label order; may be empty.
        frames: Coordinates ``(F, C, V, M)``, float16 or float32, in ``layout.unit``.
        offsets: First frame of each sequence in ``frames``, ``(N,)``.
        lengths: Number of frames of each sequence, ``(N,)``.
        labels: Class of each sequence, ``(N,)``, -1 where unknown.
        columns: Further integer columns ``(N,)`` by name, e.g. ``subject`` and ``camera``.
    """

    def __init__(self, root: Path, meta: dict[str, Any], index: NDArray[Any], frames: NDArray[Any]) -> None:
        self.root = root
        self.meta = meta
        self.layout = SkeletonLayout.of(meta["layout"])
        self.num_bodies = int(meta["num_bodies"])
        self.class_names: tuple[str, ...] = tuple(meta["class_names"])
        self.frames = frames
        self.lengths: IntArray = index["length"].astype(np.int64)
        self.labels: IntArray = index["label"].astype(np.int64)
        self.offsets: IntArray = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)
        fields = index.dtype.names or ()
        self.columns: dict[str, IntArray] = {
            field: index[field].astype(np.int64) for field in fields if field not in RESERVED
        }
        self._raw_names = index["name"]

    @classmethod
    def open(cls, root: str | Path) -> Archive:
        """Open and validate an archive; reads the index, maps the frames.

        Raises:
            DataError: There is no archive, it is of another version, or its files are damaged or incomplete.
        """
        root = Path(root)
        meta = _read_meta(root)
        try:
            index = _read_index(root, meta)
            frames = _map_frames(root, meta)
            if int(index["length"].sum(dtype=np.int64)) != len(frames):
                raise DataError(f"{root / INDEX}: lengths do not add up to the {len(frames)} frames; {_remedy()}")
            archive = cls(root, meta, index, frames)
            archive._check()
            return archive
        except DataError as error:
            if str(root) in str(error):
                raise
            raise DataError(f"{root / META}: {error}; {_remedy()}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{root / META}: incomplete or damaged ({error!r}); {_remedy()}") from error

    def _check(self) -> None:
        """Whether labels and rules can be used; what a writer makes always can."""
        labels = self.labels
        if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) <= MAX_LABEL:
            raise DataError(f"labels from {labels.min()} to {labels.max()}, expected -1 to {MAX_LABEL:,}")
        for name, rule in self.meta["protocols"].items():
            try:
                column = check_rule(name, rule)["column"]
            except UsageError as error:
                raise DataError(str(error)) from error
            if column not in self.columns:
                columns = ", ".join(self.columns) or "none"
                raise DataError(f"protocol '{name}' splits by column '{column}'; the index has {columns}")

    def __len__(self) -> int:
        """Number of sequences N."""
        return len(self.lengths)

    @cached_property
    def names(self) -> NDArray[np.str_]:
        """Name of each sequence, ``(N,)`` str: the source file's stem."""
        return np.char.decode(self._raw_names, "utf-8")

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names :meth:`split` knows; ``all`` is always among them."""
        return (*self.meta["protocols"], "all")

    def clip(self, index: int) -> NDArray[Any]:
        """Frames of one sequence, ``(T, C, V, M)``, a read-only view of the map."""
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of an archive of {len(self)}")
        start = int(self.offsets[index])
        return self.frames[start : start + int(self.lengths[index])]

    def split(self, protocol: str) -> tuple[IntArray, IntArray]:
        """Rows that train and rows that test under a protocol, both ascending.

        Raises:
            UsageError: The archive has no such protocol; the text names those it has.
        """
        rows = np.arange(len(self), dtype=np.int64)
        if protocol == "all":
            return rows, rows[:0]
        if protocol not in self.meta["protocols"]:
            raise UsageError(f"{self.root} has no protocol '{protocol}'; it has {', '.join(self.protocols)}")
        return split_rows(self.meta["protocols"][protocol], self.columns)

    def verify(self) -> None:
        """Read every byte of the three files and compare it with what was written; seconds per gigabyte.

        Raises:
            DataError: A file is not what was written; the text names it.
        """
        _read_index(self.root, self.meta)
        _verify_meta(self.root / META)
        path = self.root / FRAMES
        try:
            with path.open("rb") as file:
                header = file.read(HEADER_BYTES)
                digest = hashlib.sha256()
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); {_remedy()}") from error
        if header != frames_header(self.frames.dtype, self.frames.shape):
            raise DataError(f"{path}: its first bytes are not those that were written; {_remedy()}")
        if digest.hexdigest() != self.meta["frames"]["sha256"]:
            raise DataError(f"{path}: wrong checksum, the frames are damaged; {_remedy()}")


def _remedy() -> str:
    return "prepare it again (`prosl prepare`)"


def _verify_meta(path: Path) -> None:
    """Archives made before `counts` were recorded have no checksum here; of those nothing can be said."""
    try:
        text = path.read_bytes()
        meta = json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_remedy()}") from error
    if not isinstance(meta, dict) or (set(meta) != _UNCOUNTED and text != meta_text(meta).encode()):
        raise DataError(f"{path}: changed since it was written; {_remedy()}")


def _read_meta(root: Path) -> dict[str, Any]:
    path = root / META
    if not path.is_file():
        found = f"{root} is not an archive ({META} is missing)" if root.exists() else f"there is no archive {root}"
        raise DataError(
            f"{found}\nmake one: `prosl prepare ntu60 RAW_DIR --out {root}` for NTU RGB+D 60, likewise ntu120, or "
            f"`prosl prepare arrays FILE --out {root}`"
        )
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_remedy()}") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError(f"{path}: does not describe an archive of this library; {_remedy()}")
    if meta.get("version") != VERSION:
        raise DataError(f"{path}: archive version {meta.get('version')}, this library reads {VERSION}; {_remedy()}")
    missing = _NEEDED - set(meta)
    if missing:
        raise DataError(f"{path}: lacks {', '.join(sorted(missing))}; {_remedy()}")
    return meta


def _read_index(root: Path, meta: dict[str, Any]) -> NDArray[Any]:
    path = root / INDEX
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_remedy()}") from error
    if hashlib.sha256(content).hexdigest() != meta["index"].get("sha256"):
        raise DataError(f"{path}: wrong checksum, the index is damaged or of another archive; {_remedy()}")
    table = np.load(io.BytesIO(content), allow_pickle=False)
    if not set(RESERVED) <= set(table.dtype.names or ()):
        raise DataError(f"{path}: lacks the columns {', '.join(RESERVED)}; {_remedy()}")
    return table


def _map_frames(root: Path, meta: dict[str, Any]) -> NDArray[Any]:
    path = root / FRAMES
    try:
        size = path.stat().st_size
        if size != meta["frames"].get("bytes"):
            raise DataError(f"{path}: {size} bytes, expected {meta['frames'].get('bytes')}: truncated; {_remedy()}")
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        dtype, shape = (
            np.dtype(meta["dtype"]),
            (meta["num_frames"], 3, len(meta["layout"]["joints"]), meta["num_bodies"]),
        )
        if header == frames_header(dtype, shape):
            return np.memmap(path, dtype, "r", HEADER_BYTES, shape)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_remedy()}") from error
    try:
        other = np.load(path, mmap_mode="r", allow_pickle=False)
        found = f"{other.dtype} {other.shape}"
    except Exception:  # whatever NumPy makes of a damaged header: its parser's errors are of many kinds
        found = "not a NumPy array"
    raise DataError(f"{path}: {found}, expected {dtype} {shape}; {_remedy()}")

"""Names, labels and splits as other repositories store them, checked and turned into plain integers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.ntu_sets import index_columns, ntu_fields, ntu_set_of
from prosl_lightning.data.source import FloatArray, RawSequence, Source
from prosl_lightning.errors import DataError

TRAIN, TEST, NOT_IN_SPLIT = 0, 1, -1
_PROTOCOLS = {
    "xsub": "x-sub", "csub": "x-sub", "cs": "x-sub", "crosssubject": "x-sub",
    "xview": "x-view", "cview": "x-view", "cv": "x-view", "crossview": "x-view",
    "xset": "x-set", "xsetup": "x-set", "cset": "x-set", "csetup": "x-set",
}  # fmt: skip
UNKNOWN = "given"  # the split that a source brings without a name
_LARGEST_LABEL = 100_000


class Sample(NamedTuple):
    """One sample of a file or folder: where it stands in it, and what is known of it before it is read."""

    place: Any
    name: str
    label: int
    columns: Mapping[str, int]

    def read(self, source: str, bodies: Callable[[], FloatArray], path: object = None) -> RawSequence:
        """Read it; an error becomes that of the sequence, see :meth:`RawSequence.unusable`."""
        try:
            return RawSequence(source, self.name, bodies(), label=self.label, columns=self.columns)
        except DataError as error:
            return RawSequence.unusable(source, self.name, error, path)


def named_samples(
    found: Iterable[tuple[Any, str, int]], splits: Mapping[str, Mapping[str, int]] | None = None
) -> list[Sample]:
    """Samples in the order of their names.

    Args:
        found: Place, name and label of each.
        splits: Part of each name by protocol; those that are not in a protocol are in neither of its parts.

    Returns:
        Samples whose columns are what names of NTU RGB+D tell, and the part of every protocol.
    """
    found = list(found)
    known = ntu_set_of(name for _, name, _ in found)
    samples = []
    for place, name, label in found:
        columns = index_columns(ntu_fields(name) or {}, known) if known else {}
        columns |= {split: members.get(name, NOT_IN_SPLIT) for split, members in (splits or {}).items()}
        samples.append(Sample(place, name, label, columns))
    return sorted(samples, key=lambda sample: sample.name)


def protocol_name(text: str) -> str:
    """Our name of a protocol that others call ``xsub``, ``CSub``, ``xsetup``, ...; what is unknown is ``given``.

    Example:
        >>> [protocol_name(text) for text in ("xsub", "NTU120_CSet", "x_view", "mine")]
        ['x-sub', 'x-set', 'x-view', 'given']
    """
    whole = re.sub(r"[^a-z]", "", text.lower())
    last = re.split(r"[_\-. ]", text.lower())[-1]
    return _PROTOCOLS.get(whole) or _PROTOCOLS.get(last) or UNKNOWN


def ntu_action(name: str) -> int:
    """Action of a sample of NTU RGB+D, from 1; 0 for other names."""
    return (ntu_fields(name) or {"action": 0})["action"]


def note_repeated(source: Source, names: Iterable[str]) -> None:
    """Warn in an opened source of names that several sequences have."""
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        stand = "name stands" if len(repeated) == 1 else "names stand"
        more = ", ..." if len(repeated) > 5 else ""
        shown = ", ".join(repeated[:5])
        source.notes.append(f"warning: {len(repeated)} {stand} for several sequences: {shown}{more}")


def split_rule(protocol: str) -> dict[str, Any]:
    """The rule over a column of the protocol's own name: 0 trains, 1 tests, -1 is in neither."""
    return {"column": protocol, "train": [TRAIN], "test": [TEST]}


def text_names(values: Any, path: Path) -> list[str]:
    """Names as strings; anything else is a DataError."""
    values = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(values, list | tuple) or not all(isinstance(name, str | bytes) for name in values):
        raise DataError(f"{path}: names are not a list of strings")
    return [name.decode("latin1") if isinstance(name, bytes) else name for name in values]


def integer_labels(values: Any, path: Path) -> list[int]:
    """Labels as integers from -1 to 100,000; whole floats are (PKU-MMD's are), anything else is a DataError."""
    try:
        numbers = as_numbers(values).astype(np.float64).reshape(-1)
    except DataError as error:
        raise DataError(f"{path}: labels are not a list of numbers") from error
    whole = (numbers == np.floor(numbers)) & (numbers >= -1) & (numbers <= _LARGEST_LABEL)
    if not whole.all():
        row = int(np.argmin(whole))
        raise DataError(f"{path}: label {numbers[row]} in row {row}, expected classes as whole numbers from 0")
    return [int(label) for label in numbers]


def as_numbers(values: Any) -> NDArray[Any]:
    """An array of numbers from such an array or from a flat list; nested lists may be endless and are not looked into.

    Raises:
        DataError: It is something else.
    """
    if isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values):
        try:
            values = np.array(values) if values else np.zeros(0, dtype=np.int64)
        except OverflowError:
            values = None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        found = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f"{found}, expected numbers")
    return values


def class_indices(values: Any, path: Path, key: str) -> list[int]:
    """Labels from one-hot rows ``(N, classes)`` or numbers ``(N,)``; anything else is a DataError."""
    if values.ndim != 2 or values.shape[1] == 1:
        return integer_labels(values, path)
    hot = values != 0
    if not (hot.sum(axis=1) == 1).all():
        row = int(np.argmin(hot.sum(axis=1) == 1))
        raise DataError(f"{path}: row {row} of {key} has {int(hot[row].sum())} classes, expected exactly one (one-hot)")
    return [int(label) for label in hot.argmax(axis=1)]


def add_ntu_facts(source: Source, samples: Sequence[Sample]) -> None:
    """Add classes, official sizes and further protocols where all names are those of NTU RGB+D.

    Protocols that the source has already stay; the others follow from subject, camera and setup in the names.
    """
    known = ntu_set_of(sample.name for sample in samples)
    if known is None:
        return
    if all(sample.label in (-1, ntu_action(sample.name) - 1) for sample in samples):
        source.class_names = known.class_names
    else:
        source.notes.append("labels are not the action numbers of the names, so classes have no names")
    source.protocols = dict(known.protocols) | dict(source.protocols)
    source.official = {name: size for name, size in known.official.items() if name in source.protocols}

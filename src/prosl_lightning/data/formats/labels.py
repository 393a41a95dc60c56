"""Names, labels and splits as other repositories store them, checked and turned into plain integers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.formats.layouts import ntu_columns, ntu_set
from prosl_lightning.data.source import Source
from prosl_lightning.errors import DataError

TRAIN, TEST, NOT_IN_SPLIT = 0, 1, -1
_PROTOCOLS = {
    "xsub": "x-sub", "csub": "x-sub", "cs": "x-sub", "crosssubject": "x-sub",
    "xview": "x-view", "cview": "x-view", "cv": "x-view", "crossview": "x-view",
    "xset": "x-set", "xsetup": "x-set", "cset": "x-set", "csetup": "x-set",
}  # fmt: skip
UNKNOWN = "given"  # the split that a source brings without a name
_LARGEST_LABEL = 100_000


def protocol_name(text: str) -> str:
    """Our name of a protocol that others call ``xsub``, ``CSub``, ``xsetup``, ...; what is unknown is ``given``.

    Example:
        >>> [protocol_name(text) for text in ("xsub", "NTU120_CSet", "x_view", "mine")]
        ['x-sub', 'x-set', 'x-view', 'given']
    """
    whole = re.sub(r"[^a-z]", "", text.lower())
    last = re.split(r"[_\-. ]", text.lower())[-1]
    return _PROTOCOLS.get(whole) or _PROTOCOLS.get(last) or UNKNOWN


def split_rule(protocol: str) -> dict[str, Any]:
    """The rule over a column of the protocol's own name: 0 trains, 1 tests, -1 is in neither."""
    return {"column": protocol, "train": [TRAIN], "test": [TEST]}


def text_names(values: Any, path: Path) -> list[str]:
    """Names as strings.

    Raises:
        DataError: They are not strings.
    """
    values = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(values, list | tuple) or not all(isinstance(name, str | bytes) for name in values):
        raise DataError(f"{path}: names are not a list of strings")
    return [name.decode("latin1") if isinstance(name, bytes) else name for name in values]


def integer_labels(values: Any, path: Path) -> list[int]:
    """Labels as integers; whole floats are (PKU-MMD's are), anything else is not.

    Raises:
        DataError: They are not whole numbers from -1 to 100,000.
    """
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
    """Labels from one-hot rows ``(N, classes)`` or numbers ``(N,)``.

    Raises:
        DataError: A row is not one-hot.
    """
    if values.ndim != 2 or values.shape[1] == 1:
        return integer_labels(values, path)
    hot = values != 0
    if not (hot.sum(axis=1) == 1).all():
        row = int(np.argmin(hot.sum(axis=1) == 1))
        raise DataError(f"{path}: row {row} of {key} has {int(hot[row].sum())} classes, expected exactly one (one-hot)")
    return [int(label) for label in hot.argmax(axis=1)]


def add_ntu_facts(source: Source, names: Sequence[str], labels: Sequence[int]) -> None:
    """Add classes, official sizes and further protocols where all names are those of NTU RGB+D.

    Protocols that the source has already stay; the others follow from subject, camera and setup in the names.
    """
    known = ntu_set(names)
    if known is None:
        return
    actions = [(ntu_columns(name) or {}).get("action", 0) for name in names]
    if all(label in (-1, action - 1) for label, action in zip(labels, actions, strict=True)):
        source.class_names = known.class_names
    else:
        source.notes.append("labels are not the action numbers of the names, so classes have no names")
    source.protocols = dict(known.protocols) | dict(source.protocols)
    source.official = {name: size for name, size in known.official.items() if name in source.protocols}

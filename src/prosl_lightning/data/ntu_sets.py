"""What is published about NTU RGB+D 60 and 120: file names, protocols, missing samples, class names, split sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from prosl_lightning.errors import DataError

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
_FIELDS = ("setup", "camera", "subject", "replication", "action")

_TRAIN_SUBJECTS_60 = (1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38)
_TRAIN_SUBJECTS_120 = (
    *_TRAIN_SUBJECTS_60,
    *(45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78, *range(80, 87), 89, *range(91, 96), 97, 98, 100, 103),
)  # fmt: skip


# Column `one_shot` of NTU-120: classes A1, A7, ... A115 are evaluated from one exemplar each, the others are auxiliary.
ONE_SHOT_AUXILIARY, ONE_SHOT_EXEMPLAR, ONE_SHOT_TEST = range(3)


@dataclass(frozen=True)
class NtuSet:
    """One of the two data sets.

    Attributes:
        name: ``ntu60`` or ``ntu120``.
        num_classes: Actions, numbered from 1 in file names and from 0 as labels.
        num_setups: Setups, numbered from 1.
        protocols: Split rules by name.
        official: Published numbers of training and test sequences by protocol, missing samples left out; of one-shot
            computed: 948 recordings of each action up to A060, 960 of each beyond, less the missing ones.
    """

    name: str
    num_classes: int
    num_setups: int
    protocols: Mapping[str, Mapping[str, Any]]
    official: Mapping[str, tuple[int, int]]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the actions in label order."""
        return _lines("ntu120_classes.txt")[: self.num_classes]

    @property
    def missing(self) -> frozenset[str]:
        """Names of the samples whose skeletons are missing or incomplete, as published."""
        return frozenset(name for name in _lines("ntu120_missing.txt") if self.contains(parse_name(name)))

    def contains(self, fields: Mapping[str, int]) -> bool:
        """Whether a sample belongs to this set; ``fields`` as from :func:`parse_name`."""
        return 1 <= fields["action"] <= self.num_classes and 1 <= fields["setup"] <= self.num_setups


NTU60 = NtuSet(
    name="ntu60",
    num_classes=60,
    num_setups=17,
    protocols={
        "x-sub": {"column": "subject", "train": list(_TRAIN_SUBJECTS_60)},
        "x-view": {"column": "camera", "train": [2, 3]},
    },
    official={"x-sub": (40091, 16487), "x-view": (37646, 18932)},
)
NTU120 = NtuSet(
    name="ntu120",
    num_classes=120,
    num_setups=32,
    protocols={
        "x-sub": {"column": "subject", "train": list(_TRAIN_SUBJECTS_120)},
        "x-set": {"column": "setup", "train": list(range(2, 33, 2))},
        "one-shot": {"column": "one_shot", "train": [ONE_SHOT_EXEMPLAR], "test": [ONE_SHOT_TEST]},
        "one-shot-auxiliary": {"column": "one_shot", "train": [ONE_SHOT_AUXILIARY], "test": []},
    },
    official={
        "x-sub": (63026, 50919),
        "x-set": (54468, 59477),
        "one-shot": (20, 18924),
        "one-shot-auxiliary": (95001, 0),
    },
)


def parse_name(stem: str) -> dict[str, int]:
    """Read setup, camera, subject (performer), replication and action off a file's stem, all numbered from 1.

    Raises:
        DataError: The stem is not of the form ``SsssCcccPpppRrrrAaaa``.

    Example:
        >>> parse_name("S001C002P003R002A050")
        {'setup': 1, 'camera': 2, 'subject': 3, 'replication': 2, 'action': 50}
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        raise DataError(f"name '{stem}' is not of the form SsssCcccPpppRrrrAaaa")
    return dict(zip(_FIELDS, map(int, match.groups()), strict=True))


def ntu_fields(name: str) -> dict[str, int] | None:
    """What :func:`parse_name` reads, with or without the suffix ``.skeleton``; None for names of another form.

    Example:
        >>> ntu_fields("S001C002P003R002A050.skeleton")["subject"], ntu_fields("walk_03")
        (3, None)
    """
    try:
        return parse_name(name.removesuffix(".skeleton"))
    except DataError:
        return None


def ntu_set_of(names: Iterable[str]) -> NtuSet | None:
    """NTU RGB+D 60 or 120, whichever holds all of these samples; None where a name is another's."""
    smallest: NtuSet | None = None
    for name in names:
        fields = ntu_fields(name)
        if fields is None or not NTU120.contains(fields):
            return None
        if smallest is not NTU120:
            smallest = NTU60 if NTU60.contains(fields) else NTU120
    return smallest


def index_columns(fields: Mapping[str, int], ntu: NtuSet) -> dict[str, int]:
    """The columns of a sample that the protocols of its set split by; ``fields`` as from :func:`parse_name`."""
    columns = {field: fields[field] for field in _FIELDS if field != "action"}
    return columns | ({"one_shot": one_shot_part(fields)} if ntu.name == "ntu120" else {})


def one_shot_part(fields: Mapping[str, int]) -> int:
    """Part of a sample in NTU-120's one-shot protocol: auxiliary (0), exemplar (1) or test (2).

    The exemplar of an evaluation class is C003P008R001 of S001 up to A060, of S018 beyond.

    Args:
        fields: As from :func:`parse_name`.

    Example:
        >>> [one_shot_part(parse_name(name)) for name in ("S001C003P008R001A002", "S018C003P008R001A061")]
        [0, 1]
    """
    if fields["action"] % 6 != 1:
        return ONE_SHOT_AUXILIARY
    taken = tuple(fields[field] for field in ("setup", "camera", "subject", "replication"))
    first_setup = 1 if fields["action"] <= NTU60.num_classes else 18
    return ONE_SHOT_EXEMPLAR if taken == (first_setup, 3, 8, 1) else ONE_SHOT_TEST


@cache
def _lines(file: str) -> tuple[str, ...]:
    text = (resources.files("prosl_lightning.data") / file).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))

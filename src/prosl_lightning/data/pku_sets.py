"""What is published about PKU-MMD I and II: names of videos and clips, classes, who tests, sizes that papers tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from prosl_lightning.data.raw_files import read_text
from prosl_lightning.errors import DataError
from prosl_lightning.tables import counted

VIEWS = "LMR"  # left, middle, right: 1, 2, 3 as numbers
TRAIN, TEST = 1, 2  # in the columns x_sub and x_view; 0 is neither
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "x-sub": {"column": "x_sub", "train": [TRAIN], "test": [TEST]},
    "x-view": {"column": "x_view", "train": [TRAIN], "test": [TEST]},
}

_VIDEOS = {
    1: re.compile(r"(?P<video>\d{4})-(?P<view>[LMR])"),
    2: re.compile(r"A(?P<video>\d\d)N(?P<subject>\d\d)-(?P<view>[LMR])"),
}
_CLIPS = {
    1: re.compile(r"F(?P<video>\d{3})V(?P<view>\d{3})C(?P<action>\d{3})L(?P<clip>\d{3})"),
    2: re.compile(r"A(?P<video>\d{3})N(?P<subject>\d{3})V(?P<view>\d{3})C(?P<action>\d{3})L(?P<clip>\d{3})"),
}
_SPLIT = re.compile(r"cross[-_]?(sub|view)", re.IGNORECASE)


@dataclass(frozen=True)
class PkuSet:
    """One of the two phases.

    Attributes:
        part: 1 or 2.
        test_column: Which number of a video's name the known cross-subject list goes by.
        test_values: Its values that test; all others train.
        told: Sizes that papers tell, for comparison.
    """

    part: int
    test_column: str
    test_values: frozenset[int]
    told: str

    @property
    def name(self) -> str:
        """``pku1`` or ``pku2``."""
        return f"pku{self.part}"


PKU1 = PkuSet(
    part=1,
    test_column="video",
    test_values=frozenset(range(291, 335)),
    told="papers tell other sizes, depending on what they leave out: 21,545 clips (the data set's authors), 21,539 "
    "(ProSL); x-sub often 18,841 / 2,704",
)
PKU2 = PkuSet(
    part=2,
    test_column="subject",
    test_values=frozenset({2, 3, 7}),
    told="papers tell other sizes, depending on what they leave out: 6,904 clips (ProSL), 6,952 (others); x-sub often "
    "5,339 / 1,613",
)


def class_names() -> tuple[str, ...]:
    """Names of the 51 actions of both phases in label order; phase II shows a part of them."""
    text = (resources.files("prosl_lightning.data") / "pku_classes.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


def parse_video_name(stem: str) -> tuple[int, dict[str, int]] | None:
    """Part and numbers (video, view, in part II subject) of a video's name; None if it is none.

    Example:
        >>> parse_video_name("0002-L"), parse_video_name("A10N08-R")
        ((1, {'video': 2, 'view': 1}), (2, {'video': 10, 'subject': 8, 'view': 3}))
    """
    for part, pattern in _VIDEOS.items():
        if match := pattern.fullmatch(stem):
            fields = match.groupdict()
            view = VIEWS.index(fields.pop("view")) + 1
            return part, {key: int(value) for key, value in fields.items()} | {"view": view}
    return None


def parse_clip_name(stem: str) -> tuple[int, dict[str, int]] | None:
    """Part and numbers (video, view, action, clip, in part II subject) of a cut clip's name; None if it is none.

    Example:
        >>> parse_clip_name("F002V001C049L003")
        (1, {'video': 2, 'view': 1, 'action': 49, 'clip': 3})
    """
    for part, pattern in _CLIPS.items():
        if match := pattern.fullmatch(stem):
            return part, {key: int(value) for key, value in match.groupdict().items()}
    return None


def video_name(part: int, fields: Mapping[str, int]) -> str:
    """The name of the video that numbers belong to.

    Raises:
        DataError: The view is not 1, 2 or 3.
    """
    if not 1 <= fields["view"] <= len(VIEWS):
        raise DataError(f"view {fields['view']}, expected 1 (L), 2 (M) or 3 (R)")
    view = VIEWS[fields["view"] - 1]
    return f"{fields['video']:04d}-{view}" if part == 1 else f"A{fields['video']:02d}N{fields['subject']:02d}-{view}"


def split_protocol(file_name: str) -> str:
    """Protocol of a published split file (`cross-subject.txt`, `cross_view_v2.txt`, ...); empty if it is none."""
    match = _SPLIT.match(file_name)
    return {"sub": "x-sub", "view": "x-view"}[match[1].lower()] if match else ""


def read_split_file(path: Path, part: int) -> dict[str, int]:
    """Read a split file: heading, comma-separated training videos, heading, comma-separated test videos.

    Returns:
        :data:`TRAIN` or :data:`TEST` by the name of the video; empty if it names none of this part.

    Raises:
        DataError: The file is not such a text, or a video trains and tests.
    """
    rows = [[name.strip().removesuffix(".txt") for name in line.split(",")] for line in read_text(path).splitlines()]
    sides = [names for row in rows if (names := [name for name in row if _VIDEOS[part].fullmatch(name)])]
    if not sides:
        return {}
    if len(sides) != 2:
        raise DataError(
            f"{path}: {counted(len(sides), 'line')} of video names, expected two: heading, training names, heading, "
            "test names"
        )
    if both := set(sides[0]) & set(sides[1]):
        raise DataError(f"{path}: on both sides: {counted(len(both), 'video')}, e.g. {min(both)}")
    return dict.fromkeys(sides[0], TRAIN) | dict.fromkeys(sides[1], TEST)


def known_side(pku: PkuSet, protocol: str, fields: Mapping[str, int]) -> int:
    """:data:`TRAIN` or :data:`TEST` where there is no split file: known subjects test, or the left view tests."""
    tests = fields["view"] == 1 if protocol == "x-view" else fields[pku.test_column] in pku.test_values
    return TEST if tests else TRAIN

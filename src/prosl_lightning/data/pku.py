"""Reads PKU-MMD text: videos of which clips are asked for, labels, and clips that others have cut out.

A video's line is a frame: 150 numbers or more, of which the first 150 count: two bodies of 25 joints, x y z in metres,
zeros for a body that is not there. Only the lines a clip needs are parsed, by NumPy; where it refuses, they are read
once more one by one to say what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.line_reader import LineReader
from prosl_lightning.data.raw_files import read_file
from prosl_lightning.errors import DataError
from prosl_lightning.tables import counted

NUM_JOINTS, NUM_BODIES = 25, 2
NUM_COLUMNS = NUM_BODIES * NUM_JOINTS * 3
# of one file: several times the longest, so that no damaged one fills the memory
MAX_CLIP_BYTES, MAX_LABEL_BYTES = 20_000_000, 1_000_000
MAX_FRAMES = 50_000  # of a video or clip: half an hour
_BODY_COLUMNS = 10  # of the line about a body in a clip that was cut out
_LONG_LINE, _BLOCK = 20_000, 1000  # characters of a line, and lines, that NumPy is given at a time

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PkuLabel:
    """One action in a video.

    Attributes:
        row: Line of the label file, from 1.
        action: The class as in the file, from 1.
        start: First frame as in the file.
        end: Last frame as in the file.
        confidence: How well it is performed, 1 or 2; -1 where the file does not tell.
    """

    row: int
    action: int
    start: int
    end: int
    confidence: int = -1


class PkuVideo:
    """The text of one video's skeleton file; frames are parsed when they are asked for.

    Args:
        content: The bytes of the file.
        source: What to call it in messages.

    Raises:
        DataError: There is no line in it, or more than any video has.
    """

    def __init__(self, content: bytes, source: str = "text") -> None:
        content = content.rstrip()
        if not content:
            raise DataError(f"{source}: empty file")
        if (lines := content.count(b"\n") + 1) > MAX_FRAMES:
            raise DataError(f"{source}: {lines:,} lines, which no video has")
        self._source, self._content = source, content
        breaks = np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord("\n"))
        self._starts = np.concatenate([[0], breaks + 1, [len(content) + 1]])

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._starts) - 1

    def frames(self, first: int, last: int) -> FloatArray:
        """Coordinates of the frames ``first`` to ``last - 1``, counted from 0.

        Returns:
            ``(T, B, V, C)`` = frame, body, joint, coordinate; metres; B = 2, V = 25, C = 3; absent bodies are zero.

        Raises:
            DataError: A line does not hold 150 finite numbers; names the file and the line.
        """
        values = np.zeros((max(last - first, 0), NUM_COLUMNS))
        for start in range(first, last, _BLOCK):
            end = min(start + _BLOCK, last)
            values[start - first : end - first] = self._block(start, end)
        return values.reshape(-1, NUM_BODIES, NUM_JOINTS, 3)

    def _block(self, first: int, last: int) -> FloatArray:
        content = self._content[self._starts[first] : self._starts[last] - 1]
        lines = content.decode("ascii", errors="replace").split("\n")
        values = _parse_regular(lines)
        if values is None:
            values = np.array([self._row(line, number) for number, line in enumerate(lines, start=first + 1)])
        return values

    def _row(self, line: str, number: int) -> list[float]:
        tokens = line.split(None, NUM_COLUMNS)
        if len(tokens) < NUM_COLUMNS:
            columns = counted(len(tokens), "column")
            raise DataError(f"{self._source}: line {number}: {columns}, expected {NUM_COLUMNS} or more")
        try:
            return _numbers(tokens[:NUM_COLUMNS])
        except DataError as error:
            raise DataError(f"{self._source}: line {number}: {error}") from None


def read_video(path: str | Path) -> PkuVideo:
    """Read a video's skeleton file.

    Raises:
        DataError: The file cannot be read or is empty.
    """
    return PkuVideo(read_file(path), str(path))


def read_labels(path: str | Path) -> tuple[list[PkuLabel], list[tuple[str, str]]]:
    """Read a label file: a line an action, ``class,start,end,confidence``.

    Returns:
        The actions in the order of the file, and source and reason of each line that is none.

    Raises:
        DataError: The file cannot be read.
    """
    labels, bad = [], []
    for row, line in enumerate(read_file(path, MAX_LABEL_BYTES).decode("utf-8-sig", "replace").splitlines(), start=1):
        tokens = line.replace(",", " ").split()
        if not tokens:
            continue
        try:
            numbers = [_whole(token) for token in tokens[:4]]
            if len(numbers) < 3:
                raise DataError(f"'{line.strip()[:60]}', expected class,start,end,confidence")
        except DataError as error:
            bad.append((f"{path}, line {row}", str(error)))
        else:
            labels.append(PkuLabel(row, *numbers))
    return labels, bad


def read_clip(path: str | Path) -> FloatArray:
    """Read a clip that was cut out of a video beforehand, as AimCLR's tools write it.

    The text is the frame count, then per frame the body count, a line of 10 numbers about the first body, the joint
    count and 25 lines ``x y z``; a second body follows with its 25 lines only. Where the video ended early, there are
    fewer frames than the count says.

    Returns:
        Coordinates ``(T, B, V, C)`` as :meth:`PkuVideo.frames`.

    Raises:
        DataError: The file cannot be read or is not such a text; names the file and the line.
    """
    text = LineReader(read_file(path, MAX_CLIP_BYTES), str(path))
    announced = text.count("the frame count", MAX_FRAMES)
    frames: list[FloatArray] = []
    while not text.ended:
        if len(frames) == announced:
            says = counted(announced, "frame")
            raise DataError(f"{path}: goes on after line {text.number}, but its first line says {says}")
        bodies = np.zeros((NUM_BODIES, NUM_JOINTS, 3))
        for number in range(text.count("a body count", NUM_BODIES)):
            if number == 0:
                text.row(_BODY_COLUMNS, "about a body")
                text.count("the joint count", NUM_JOINTS, NUM_JOINTS)
            bodies[number] = [text.row(3, "of a joint") for _ in range(NUM_JOINTS)]
            if not np.isfinite(bodies[number]).all():
                raise text.error("NaN or infinity in the body that ends here, expected finite numbers")
        frames.append(bodies)
    return np.array(frames).reshape(-1, NUM_BODIES, NUM_JOINTS, 3)


def _parse_regular(lines: list[str]) -> FloatArray | None:
    """The fast reader: ``(lines, 150)``, or None where a line is not plainly 150 finite numbers or more."""
    if not lines:
        return np.zeros((0, NUM_COLUMNS))
    if not all(map(str.strip, lines)) or max(map(len, lines)) > _LONG_LINE:
        return None
    try:
        values = np.loadtxt(lines, comments=None, usecols=range(NUM_COLUMNS), ndmin=2)
    except ValueError:
        return None
    return values if len(values) == len(lines) and np.isfinite(values).all() else None


def _numbers(tokens: list[str]) -> list[float]:
    values = []
    for token in tokens:
        try:
            value = float(token.replace("_", "?"))
        except ValueError:
            raise DataError(f"'{token[:40]}' is not a number") from None
        if not np.isfinite(value):
            raise DataError(f"{token[:40]}, expected finite numbers")
        values.append(value)
    return values


def _whole(token: str) -> int:
    """A whole number, also one written as 12.0."""
    (value,) = _numbers([token])
    if not value.is_integer() or abs(value) > 1e9:
        raise DataError(f"'{token[:40]}' is not a whole number")
    return int(value)

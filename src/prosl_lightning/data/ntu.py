"""Reads NTU RGB+D `.skeleton` text: a fast vectorised reader, and a plain one that explains what is wrong with a file.

The text is the frame count, then per frame the body count, then per body a line of 10 numbers about the body, the joint
count, and a line of 12 numbers per joint of which the first three are x, y, z in metres (camera space, y up).

The fast reader finds all line ends and blanks in one pass, parses nothing but x, y and z, and computes them from their
digits with exact integer arithmetic and one division, so they equal the correctly rounded values. Whenever a text is
not plainly regular it gives up, and the plain reader decides. Of the other columns the fast reader checks only that
they are there and hold no letters or signs that numbers cannot have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.errors import DataError

NUM_JOINTS = 25
MAX_BODIES = 4  # list positions that are read; the tracker may report more
MAX_FRAMES = 100_000  # an hour at 30 frames a second: more is a damaged count
_BODY_COLUMNS, _JOINT_COLUMNS = 10, 12
_WIDEST = 15  # characters whose digits still fit the 53 bits of a float64
_POWERS = 10.0 ** np.arange(_WIDEST + 1)
_LINE_FEED, _RETURN, _SPACE, _MINUS, _DOT, _ZERO = 10, 13, 32, 45, 46, 48

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]


def read_skeleton(path: str | Path) -> FloatArray:
    """Read one `.skeleton` file.

    Args:
        path: The file; LF and CRLF line ends both occur.

    Returns:
        Coordinates ``(T, B, V, C)`` = frame, list position, joint, coordinate; metres; V = 25, C = 3, B at most 4.
        A list position without a body in a frame is zero.

    Raises:
        DataError: The file cannot be read or is not such a text; names the file and the line.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse_skeleton(content, str(path))


def parse_skeleton(content: bytes, source: str = "text") -> FloatArray:
    """Parse the content of a `.skeleton` file; see :func:`read_skeleton`.

    Args:
        content: The bytes of the file.
        source: What to call it in messages.
    """
    bodies = _parse_regular(content)
    return _PlainReader(content, source).read() if bodies is None else bodies


def _parse_regular(content: bytes) -> FloatArray | None:
    """The fast reader: coordinates ``(T, B, V, C)``, or None where the text is not plainly regular."""
    if not content.endswith(b"\n"):
        content += b"\n"
    text = np.frombuffer(content, dtype=np.uint8)
    # all but - . / and digits; the subtraction wraps around below '-'
    marks = np.flatnonzero(text - np.uint8(_MINUS) > ord("9") - _MINUS)
    kinds = text[marks]
    returns = kinds == _RETURN
    if (returns[:-1] & (kinds[1:] != _LINE_FEED)).any():
        return None
    is_break = (kinds == _SPACE) | (kinds == _LINE_FEED)
    exponents = (kinds == ord("e")) | (kinds == ord("E")) | (kinds == ord("+"))
    if not (is_break | returns | exponents).all():
        return None
    breaks = marks[is_break]  # the end of every token
    line_ends = np.flatnonzero(text[breaks] == _LINE_FEED)  # positions in `breaks`
    found = _walk(content, breaks[line_ends].tolist())
    if found is None:
        return None
    num_frames, frames, slots, lines = found
    columns = np.diff(line_ends)  # of every line but the first
    joint_lines = lines[:, None] + np.arange(2, 2 + NUM_JOINTS)
    if (columns[lines - 1] != _BODY_COLUMNS).any() or (columns[joint_lines - 1] != _JOINT_COLUMNS).any():
        return None
    kept = slots < MAX_BODIES
    # the break that ends the line before is the one before a joint line's first token
    first = line_ends[joint_lines[kept] - 1][..., None] + np.arange(3)
    values = _numbers(text, breaks[first] + 1, breaks[first + 1])
    if values is None:
        return None
    bodies = np.zeros((num_frames, int(slots[kept].max()) + 1, NUM_JOINTS, 3))
    bodies[frames[kept], slots[kept]] = values
    return bodies


def _walk(content: bytes, ends: list[int]) -> tuple[int, IndexArray, IndexArray, IndexArray] | None:
    """Follow the counts: number of frames, and for every body its frame, list position and first line."""
    frames, slots, lines = [], [], []
    try:
        num_frames = int(content[: ends[0]])
        line = 1
        if not 0 < num_frames <= min(MAX_FRAMES, len(ends)):
            return None
        for frame in range(num_frames):
            num_bodies = int(content[ends[line - 1] + 1 : ends[line]])
            line += 1
            for slot in range(num_bodies):
                if int(content[ends[line] + 1 : ends[line + 1]]) != NUM_JOINTS:
                    return None
                frames.append(frame)
                slots.append(slot)
                lines.append(line)
                line += 2 + NUM_JOINTS
            if num_bodies < 0:
                return None
    except (ValueError, IndexError):
        return None
    if line != len(ends) or not lines:
        return None
    return num_frames, np.array(frames), np.array(slots), np.array(lines)


def _numbers(text: NDArray[np.uint8], starts: IndexArray, ends: IndexArray) -> FloatArray | None:
    """Values of decimal tokens ``text[start:end]``, correctly rounded; None where one is not a finite number."""
    shape = starts.shape
    starts, ends = starts.ravel(), ends.ravel()
    negative = text[starts] == _MINUS
    lengths = ends - starts - negative
    width = min(int(lengths.max()), _WIDEST)
    # (width, tokens): each token's characters, right-aligned, so that a row has one power of ten for all tokens
    characters = text.take(ends - np.arange(width, 0, -1)[:, None], mode="clip")
    inside = lengths.clip(0, _WIDEST + 1).astype(np.uint8) >= np.arange(width, 0, -1, dtype=np.uint8)[:, None]
    digits = characters - np.uint8(_ZERO)
    is_digit = (digits <= 9) & inside
    is_dot = (characters == _DOT) & inside
    decimals = (is_dot * np.arange(width - 1, -1, -1, dtype=np.uint8)[:, None]).sum(axis=0, dtype=np.uint8)
    # digits with one dot among or before them; all else (no dot, exponents, long tokens) is read one by one below
    regular = (is_dot.sum(axis=0, dtype=np.uint8) == 1) & (is_digit.sum(axis=0, dtype=np.uint8) == lengths - 1)
    regular &= lengths > 1
    # the dot counts as a digit zero; taking it out moves the part before it one place to the right
    joined = _POWERS[:width][::-1] @ (digits * is_digit)
    scale = _POWERS[np.where(regular, decimals, 0)]
    whole = np.floor(joined / (scale * 10.0))
    values = (joined - 9.0 * whole * scale) / scale
    np.negative(values, out=values, where=negative)
    for token in np.flatnonzero(~regular).tolist():
        try:
            values[token] = float(text[starts[token] : ends[token]].tobytes())
        except ValueError:
            return None
    return values.reshape(shape) if np.isfinite(values).all() else None


class _PlainReader:
    """Reads line by line and says where and why a text is wrong."""

    def __init__(self, content: bytes, source: str) -> None:
        self._source = source
        self._lines = content.decode("ascii", errors="replace").split("\n")
        while self._lines and not self._lines[-1].strip():
            self._lines.pop()
        self._next = 0
        self._where = "before the first frame"

    def read(self) -> FloatArray:
        if not self._lines:
            raise DataError(f"{self._source}: empty file")
        num_frames = self._count("the frame count", MAX_FRAMES)
        if num_frames == 0:
            raise self._error("0 frames")
        found: list[tuple[int, int, list[list[float]]]] = []
        for frame in range(num_frames):
            self._where = f"in frame {frame + 1} of {num_frames}"
            for slot in range(self._count("a body count", len(self._lines))):
                body = self._body()
                if slot < MAX_BODIES:
                    found.append((frame, slot, body))
        if self._next < len(self._lines):
            self._next += 1
            raise self._error(
                f"text after the last of {num_frames} frames: '{self._lines[self._next - 1][:40].strip()}'"
            )
        if not found:
            raise DataError(f"{self._source}: nobody in any of {num_frames} frames")
        bodies = np.zeros((num_frames, max(slot for _, slot, _ in found) + 1, NUM_JOINTS, 3))
        for frame, slot, body in found:
            bodies[frame, slot] = body
        return bodies

    def _body(self) -> list[list[float]]:
        self._row(_BODY_COLUMNS, "about a body")
        joints = self._count("a joint count", len(self._lines))
        if joints != NUM_JOINTS:
            raise self._error(f"{joints} joints, expected {NUM_JOINTS}")
        return [self._joint() for _ in range(NUM_JOINTS)]

    def _joint(self) -> list[float]:
        position = self._row(_JOINT_COLUMNS, "of a joint")[:3]
        if not np.isfinite(position).all():
            raise self._error(f"coordinates are {position}, expected finite numbers")
        return position

    def _row(self, columns: int, what: str) -> list[float]:
        tokens = self._line().split()
        if len(tokens) < columns and self._next == len(self._lines):
            raise self._error("truncated: the file ends within this line")
        if len(tokens) != columns:
            raise self._error(f"{len(tokens)} columns, expected the {columns} numbers {what}")
        return [self._number(token) for token in tokens]

    def _number(self, token: str) -> float:
        try:
            if "_" not in token:
                return float(token)
        except ValueError:
            pass
        raise self._error(f"'{token[:40]}' is not a number")

    def _count(self, what: str, limit: int) -> int:
        text = self._line().strip()
        try:
            count = int(text.replace("_", "?"))
        except ValueError:
            raise self._error(f"'{text[:40]}', expected {what}") from None
        if not 0 <= count <= limit:
            raise self._error(f"{text[:40]} cannot be {what}")
        return count

    def _line(self) -> str:
        if self._next >= len(self._lines):
            raise DataError(f"{self._source}: truncated: ends after line {len(self._lines)}, {self._where}")
        self._next += 1
        return self._lines[self._next - 1]

    def _error(self, problem: str) -> DataError:
        return DataError(f"{self._source}: line {self._next} ({self._where}): {problem}")

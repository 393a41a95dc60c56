"""Reads NTU RGB+D `.skeleton` text: a fast vectorised reader, and a plain one that explains what is wrong with a file.

The text is the frame count, then per frame the body count, then per body a line of 10 numbers about the body, the joint
count, and a line of 12 numbers per joint of which the first three are x, y, z in metres (camera space, y up).

The fast reader finds all blanks and line ends in one pass, checks by the counts that line ends are where they must be,
and parses nothing but x, y and z, all at once and correctly rounded. Whenever a text is not plainly regular it gives
up, and the plain reader decides. Of the other columns the fast reader checks only that they are there and hold no
letters or signs that numbers cannot have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.decimals import FloatArray, IndexArray, read_decimals
from prosl_lightning.data.line_reader import LineReader
from prosl_lightning.data.raw_files import read_file
from prosl_lightning.errors import DataError
from prosl_lightning.tables import counted

NUM_JOINTS = 25
MAX_BODIES = 4  # list positions that are read; the tracker may report more
MAX_FRAMES = 20_000  # eleven minutes at 30 frames a second: more is a damaged count, and does not fit in 50 MB
_BODY_COLUMNS, _JOINT_COLUMNS = 10, 12
# positions among the breaks of a body, counted from the end of its first token
_LINE_ENDS = np.cumsum([_BODY_COLUMNS - 1, 1] + [_JOINT_COLUMNS] * NUM_JOINTS)
_COORDINATES = (_LINE_ENDS[1:-1, None] + np.arange(1, 4)).ravel()
_BODY_BREAKS = int(_LINE_ENDS[-1]) + 1
_LINE_FEED, _RETURN, _SPACE, _MINUS = 10, 13, 32, 45


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
    return parse_skeleton(read_file(path), str(path))


def parse_skeleton(content: bytes, source: str = "text") -> FloatArray:
    """Parse the content of a `.skeleton` file; see :func:`read_skeleton`.

    Args:
        content: The bytes of the file.
        source: What to call it in messages.
    """
    bodies = _parse_regular(content)
    return _read_plainly(content, source) if bodies is None else bodies


def _parse_regular(content: bytes) -> FloatArray | None:
    """The fast reader: coordinates ``(T, B, V, C)``, or None where the text is not plainly regular."""
    if not content.endswith(b"\n"):
        content += b"\n"
    text = np.frombuffer(content, dtype=np.uint8)
    is_break = text == _LINE_FEED
    num_lines = np.count_nonzero(is_break)
    is_break |= text == _SPACE
    # a body has 27 lines and more than 600 characters; places of breaks beyond that would only fill the memory
    if num_lines > 1 + MAX_FRAMES + len(text) // 20 or np.count_nonzero(is_break) > _JOINT_COLUMNS * num_lines:
        return None
    breaks = np.flatnonzero(is_break)  # the end of every token
    counts = _walk(content, breaks)
    if counts is None:
        return None
    before = np.cumsum(counts) - counts  # bodies in earlier frames
    frames = np.repeat(np.arange(len(counts)), counts)
    first = frames + 2 + _BODY_BREAKS * np.arange(len(frames))  # the break that ends a body's first token
    body_ends = first[:, None] + _LINE_ENDS
    count_ends = np.arange(1, len(counts) + 1) + _BODY_BREAKS * before
    line_ends = breaks[np.concatenate([[0], count_ends, body_ends.ravel()])]
    # where line feeds are in these places and nowhere else, all lines have the columns they should have
    if num_lines != len(line_ends) or not _is_plain(text, len(breaks), line_ends):
        return None
    if not _are_joint_counts(text, breaks[body_ends[:, 0]] + 1):
        return None
    slots = np.arange(len(frames)) - before[frames]
    kept = slots < MAX_BODIES
    tokens = first[kept][:, None] + _COORDINATES
    values = read_decimals(content, breaks[tokens - 1].ravel() + 1, breaks[tokens].ravel())
    if values is None:
        return None
    bodies = np.zeros((len(counts), min(int(counts.max()), MAX_BODIES), NUM_JOINTS, 3))
    bodies[frames[kept], slots[kept]] = values.reshape(-1, NUM_JOINTS, 3)
    return bodies


def _walk(content: bytes, breaks: IndexArray) -> IndexArray | None:
    """Follow the counts: number of bodies in every frame; None where text is missing, left over, or nobody's."""
    ends, counts, token = breaks.data, [], 1
    try:
        num_frames = int(content[: ends[0]])
        if not 0 < num_frames <= min(MAX_FRAMES, len(ends)):
            return None
        for _ in range(num_frames):
            counts.append(int(content[ends[token - 1] + 1 : ends[token]]))
            token += 1 + _BODY_BREAKS * counts[-1]
    except (ValueError, IndexError):
        return None
    if token != len(ends) or token == 1 + num_frames or min(counts) < 0:
        return None
    return np.array(counts)


def _is_plain(text: NDArray[np.uint8], num_breaks: int, line_ends: IndexArray) -> bool:
    """Whether these are line feeds, and a text holds but numbers, breaks and returns before line feeds."""
    if (text[line_ends] != _LINE_FEED).any():
        return False
    count = num_breaks + np.count_nonzero(text[line_ends - 1] == _RETURN)
    count += np.count_nonzero(text - np.uint8(_MINUS) <= ord("9") - _MINUS)  # - . / digits; wraps around below '-'
    for rarer in b"Ee+":
        if count < len(text):
            count += np.count_nonzero(text == rarer)
    return bool(count == len(text))


def _are_joint_counts(text: NDArray[np.uint8], starts: IndexArray) -> bool:
    """Whether each of these lines is 25."""
    after = text[starts + 2]
    is_number = (text[starts] == ord("2")) & (text[starts + 1] == ord("5"))
    return bool((is_number & ((after == _LINE_FEED) | (after == _RETURN))).all())


def _read_plainly(content: bytes, source: str) -> FloatArray:
    """The plain reader: follows the text line by line and says where and why it is wrong."""
    text = LineReader(content, source, "before the first frame")
    num_lines = content.count(b"\n") + 1
    num_frames = text.count("the frame count", MAX_FRAMES)
    if num_frames == 0:
        raise text.error("0 frames")
    found: list[tuple[int, int, list[list[float]]]] = []
    for frame in range(num_frames):
        text.where = f"in frame {frame + 1} of {num_frames}"
        for slot in range(text.count("a body count", num_lines)):
            body = _read_body(text)
            if slot < MAX_BODIES:
                found.append((frame, slot, body))
    if not text.ended:
        rest = text.line()[:40].strip()
        raise text.error(f"text after the last of {counted(num_frames, 'frame')}: '{rest}'")
    if not found:
        raise DataError(f"{source}: nobody in any of {counted(num_frames, 'frame')}")
    bodies = np.zeros((num_frames, max(slot for _, slot, _ in found) + 1, NUM_JOINTS, 3))
    for frame, slot, body in found:
        bodies[frame, slot] = body
    return bodies


def _read_body(text: LineReader) -> list[list[float]]:
    text.row(_BODY_COLUMNS, "about a body")
    joints = text.count("a joint count", MAX_FRAMES)
    if joints != NUM_JOINTS:
        raise text.error(f"{counted(joints, 'joint')}, expected {NUM_JOINTS}")
    body = []
    for _ in range(NUM_JOINTS):
        body.append(text.row(_JOINT_COLUMNS, "of a joint")[:3])
        if not np.isfinite(body[-1]).all():
            raise text.error(f"coordinates are {body[-1]}, expected finite numbers")
    return body

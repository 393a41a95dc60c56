"""Reads one sequence from a text file: a line a frame, numbers with commas, semicolons, tabs or blanks between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

_MAX_BYTES = 1 << 26


def read_text_frames(path: Path, layout: SkeletonLayout) -> NDArray[Any]:
    """Read the frames of a text file.

    A line holds x y z of every joint in the layout's order, body after body: 3 * V numbers for one body, 6 * V for two.
    A first line with words is a header. Where it names ``<joint>_x``, ``<joint>_y`` and ``<joint>_z`` of every joint,
    the columns are picked by name, so that their order and further columns do not matter.

    Args:
        path: The file.
        layout: The body model.

    Returns:
        ``(T, B, V, C)`` float64; empty cells are NaN.

    Raises:
        DataError: The file cannot be read, a cell is no number, or lines have another number of cells.
    """
    lines = _read_lines(path)
    separator = next((mark for mark in (",", ";", "\t") if mark in lines[0]), None)
    header = _cells(lines[0], separator)
    if any(_is_number(cell) for cell in header):
        header = []
    first = 1 if header else 0
    if len(lines) == first:
        raise DataError(f"{path}: no frames below the header")
    rows = [_numbers(line, separator, f"{path}: line {i}") for i, line in enumerate(lines[first:], start=first + 1)]
    width, frame = len(rows[0]), 3 * layout.num_joints
    for number, row in enumerate(rows, start=first + 1):
        if len(row) != width:
            raise DataError(f"{path}: line {number} has {len(row)} numbers, the first has {width}")
    picked = _named_columns(header, layout) if len(header) == width else None
    if picked is None and width % frame:
        raise DataError(
            f"{path}: {width} numbers a line, expected {frame} or {2 * frame} "
            f"(x y z of {layout.num_joints} joints of '{layout.name}', one or two bodies)"
        )
    values = np.stack(rows) if picked is None else np.stack(rows)[:, picked]
    return values.reshape(len(rows), -1, layout.num_joints, 3)


def _read_lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: more than {_MAX_BYTES >> 20} MB of text")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path}: empty file")
    return lines


def _cells(line: str, separator: str | None) -> list[str]:
    cells = [cell.strip() for cell in line.split(separator)]
    if len(cells) > 1 and not cells[-1]:  # a separator at the end of the line
        cells.pop()
    return cells


def _numbers(line: str, separator: str | None, source: str) -> NDArray[np.float64]:
    """The numbers of one line; an empty cell is NaN."""
    cells = _cells(line, separator)
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        wrong = next(cell for cell in cells if cell and not _is_number(cell))
        raise DataError(f"{source}: '{wrong[:40]}' is no number") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _named_columns(header: list[str], layout: SkeletonLayout) -> list[int] | None:
    """Columns of x, y, z of each joint, where all are named."""
    places = {name.lower(): place for place, name in enumerate(header)}
    wanted = [f"{joint.lower()}_{axis}" for joint in layout.joints for axis in "xyz"]
    return [places[name] for name in wanted] if all(name in places for name in wanted) else None

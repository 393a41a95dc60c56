"""Reads one sequence from a text file: a line a frame, numbers with commas, semicolons, tabs or blanks between."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.formats.npy import check_sequence_size
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

_MAX_LINE = 1 << 20  # characters
_DECIMAL_COMMA = re.compile(r'"?[+-]?\d*,\d+([eE][+-]?\d+)?"?')


def read_text_frames(path: Path, layout: SkeletonLayout) -> NDArray[Any]:
    """Read the frames of a text file.

    A line holds x y z of every joint in the layout's order, body after body: 3 * V numbers for one body, 6 * V for two.
    A first line with words is a header. Where it names ``<joint>_x``, ``<joint>_y`` and ``<joint>_z`` of every joint,
    the columns are picked by name, so that their order and further columns do not matter. Cells may stand in quotes; a
    header with one cell less than the lines leaves the first column (R's row names) without a name. A first line that
    counts the columns (0, 1, 2, ..., as pandas writes it) is a header too; an empty cell before it is the row names'.

    Args:
        path: The file.
        layout: The body model.

    Returns:
        ``(T, B, V, C)`` float64; empty cells are NaN.

    Raises:
        DataError: The file cannot be read, a cell is no number, lines have another number of cells, the header names
            some joints only, or it is too long.
    """
    header: list[str] | None = None
    values, width, separator = array("d"), 0, None
    for number, line in _lines(path):
        if header is None:
            separator = next((mark for mark in (",", ";", "\t") if mark in line), None)
            header = _cells(line, separator)
            if _counts_columns(header) or not any(_is_number(cell) for cell in header):
                continue
            header = []
        row = _numbers(line, separator, f"{path}: line {number}")
        width = width or len(row)
        if len(row) != width:
            raise DataError(f"{path}: line {number} has {len(row)} numbers, the first has {width}")
        values.extend(row)
        check_sequence_size(8 * len(values), str(path))
    if header is None:
        raise DataError(f"{path}: empty file")
    if not width:
        raise DataError(f"{path}: no frames below the header")
    frames = np.frombuffer(values).reshape(-1, width)
    picked = _named_columns(header, layout, width, path)
    if picked is not None:
        frames = frames[:, picked]
    if frames.shape[1] % (frame := 3 * layout.num_joints):
        raise DataError(
            f"{path}: {frames.shape[1]} numbers a line, expected {frame} or {2 * frame} "
            f"(x y z of {layout.num_joints} joints of '{layout.name}', one or two bodies)"
        )
    return frames.reshape(len(frames), -1, layout.num_joints, 3)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            number = 0
            while line := file.readline(_MAX_LINE + 1):
                number += 1
                if len(line) > _MAX_LINE:
                    raise DataError(f"{path}: line {number} is longer than a million characters")
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _cells(line: str, separator: str | None) -> list[str]:
    if '"' not in line:
        parts = line.split(separator)
    else:
        try:
            parts = next(csv.reader([line.strip()], delimiter=separator or " ", skipinitialspace=True))
        except csv.Error:
            parts = line.split(separator)
    cells = [cell.strip() for cell in parts]
    if len(cells) > 1 and not cells[-1]:  # a separator at the end of the line
        cells.pop()
    return cells


def _numbers(line: str, separator: str | None, source: str) -> list[float]:
    """The numbers of one line; an empty cell is NaN."""
    cells = _cells(line, separator)
    try:
        return [float(cell) if cell else np.nan for cell in cells]
    except ValueError:
        commas = [word for word in re.split(r"[;\s]+", line.strip()) if _DECIMAL_COMMA.fullmatch(word)]
        if len(commas) > 1:
            raise DataError(f"{source}: decimal comma found ({commas[0][:40]}); use points") from None
        wrong = next(cell for cell in cells if cell and not _is_number(cell))
        raise DataError(f"{source}: '{wrong[:40]}' is no number") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _counts_columns(header: list[str]) -> bool:
    """Whether the cells are 0, 1, 2, ..., at least six, with or without an empty one before them."""
    numbers = header[1:] if header[:1] == [""] else header
    return len(numbers) >= 6 and numbers == [str(number) for number in range(len(numbers))]


def _named_columns(header: list[str], layout: SkeletonLayout, width: int, path: Path) -> list[int] | None:
    """Columns of x, y, z of each joint, where all are named; those that are counted, where the header counts them.

    Raises:
        DataError: They are named or counted, but the lines have another number of cells; or half of them are named.
    """
    if _counts_columns(header):
        if len(header) != width:
            raise DataError(f"{path}: the header names {len(header)} columns, the lines have {width}")
        return list(range(1 if header[0] == "" else 0, width))
    names = [name.lower() for name in header]
    wanted = [f"{joint.lower()}_{axis}" for joint in layout.joints for axis in "xyz"]
    found = set(names)
    missing = [name for name in wanted if name not in found]
    if 2 * len(missing) > len(wanted):
        return None
    if missing:
        raise DataError(
            f"{path}: the header lacks {len(missing)} of {len(wanted)} columns of '{layout.name}': "
            f"{', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}"
        )
    if len(names) == width - 1:
        names.insert(0, "")
    if len(names) != width:
        raise DataError(f"{path}: the header names {len(names)} columns, the lines have {width}")
    places = {name: place for place, name in enumerate(names)}
    return [places[name] for name in wanted]

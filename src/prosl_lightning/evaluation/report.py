"""Results on the screen and in `results.json` beside the checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prosl_lightning.errors import DataError


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Plain text table; numbers are right-aligned, floats get one decimal.

    Example:
        >>> print(table(["encoder", "accuracy"], [["trained", 81.25]]))
        encoder  accuracy
        -------  --------
        trained      81.2
    """
    cells = [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    numeric = [all(isinstance(row[i], int | float) for row in rows) and bool(rows) for i in range(len(header))]

    def line(values: Sequence[str]) -> str:
        parts = [v.rjust(w) if n else v.ljust(w) for v, w, n in zip(values, widths, numeric, strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, cells)])


def _rows(path: Path) -> list[Any]:
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): move it away") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds no list of results: move it away")
    return rows


def append_result(checkpoint: str | Path, row: dict[str, Any]) -> Path:
    """Add a row to `results.json` in the checkpoint's folder and return that file's path.

    Raises:
        DataError: The file is there and is not a list of results.
    """
    path = Path(checkpoint).parent / "results.json"
    rows = _rows(path)
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps([*rows, row], indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path

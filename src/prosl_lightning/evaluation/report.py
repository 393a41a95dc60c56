"""Results on the screen and in `results.json` beside the checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prosl_lightning.errors import DataError


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

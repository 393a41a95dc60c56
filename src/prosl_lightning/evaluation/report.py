"""Rows of `results.json`: everything that is needed to know what a number means, written so that none is lost."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError
from prosl_lightning.evaluation.features import labelled_positions
from prosl_lightning.evaluation.fingerprint import describe_checkpoint, describe_data, versions

RESULTS = "results.json"
CENTRE_CROP = 0.95

Number = (int, float, type(None))
# What every row holds: key -> type, or the keys of a mapping, or of the mappings in a list that is not empty.
_SHAPE: Mapping[str, Any] = {
    "evaluation": str,
    "numbers": dict,
    "protocol": {"split": str, "train": int, "test": int},
    "data": {"frames_sha256": str, "index_sha256": str, "recipe": dict},
    "checkpoints": [{"sha256": str, "epochs": int, "semantic": str, "stream": str, "trained_on": dict}],
    "versions": dict,
    "seeds": list,
    "device": str,
    "date": str,
}
_LOCK_SECONDS = 30.0


def result_row(
    evaluation: str,
    ckpts: Sequence[str | Path],
    data: SkeletonDataModule,
    numbers: Mapping[str, float],
    protocol: Mapping[str, Any],
    seeds: Sequence[int] = (),
    device: str = "cpu",
    *,
    runs: Sequence[Mapping[str, float]] = (),
    files: str | Path | None = None,
) -> dict[str, Any]:
    """One result with everything it depends on, as plain data.

    Args:
        evaluation: Which one: `knn`, `linear`, `semi`, `transfer`, ...
        ckpts: The checkpoints that were judged; several are fused.
        data: What they were judged on, after `setup`.
        numbers: Name -> value; percent unless the name says otherwise.
        protocol: Settings of the evaluation; they stand beside the split, which is added here.
        seeds: Seeds of the evaluation, empty where nothing is drawn.
        device: Where it ran.
        runs: The numbers of each seed, where `numbers` are means.
        files: Folder of the classifier and the pictures, where there are any.
    """
    checkpoints = [describe_checkpoint(ckpt, data) for ckpt in ckpts]
    unlabelled = data.num_samples - len(labelled_positions(data))
    split = {
        "split": data.protocol,
        "rule": data.archive.meta["protocols"].get(data.protocol, {}),
        "train": data.num_samples,
        "test": len(data.test_rows),
        "train_crop": CENTRE_CROP,
        "test_crop": CENTRE_CROP,
        "stream": "+".join(dict.fromkeys(str(each["stream"]) for each in checkpoints)),
    } | ({"unlabelled": unlabelled} if unlabelled else {})
    return {
        "evaluation": evaluation,
        "numbers": _plain_numbers(numbers),
        "runs": [_plain_numbers(run) for run in runs],
        "files": None if files is None else str(files),
        "protocol": split | dict(protocol),
        "data": describe_data(data),
        "checkpoints": checkpoints,
        "versions": versions(),
        "seeds": [int(seed) for seed in seeds],
        "device": device,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _plain_numbers(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: round(float(value), 4) if math.isfinite(value) else None for name, value in numbers.items()}


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a `results.json`; empty where there is no such file.

    Raises:
        DataError: The file is not a list of results as :func:`append_result` writes them.
    """
    rows = _read_list(Path(path))
    for number, row in enumerate(rows, start=1):
        missing = list(_missing(row, _SHAPE)) or [
            f"numbers.{name}" for name, value in row["numbers"].items() if not isinstance(value, Number)
        ]
        if missing:
            raise DataError(
                f"{path}: row {number} lacks {', '.join(sorted(missing))}; it was not written by an evaluation of this "
                "version: move the file away and evaluate again"
            )
    return rows


def _missing(value: Any, shape: Any, path: str = "") -> Iterator[str]:
    """Paths of what is not there, or is not of the type it should be."""
    if isinstance(shape, type):
        if not isinstance(value, shape):
            yield path
    elif isinstance(shape, list):
        if not isinstance(value, list) or not value:
            yield path
        else:
            for each in value:
                yield from _missing(each, shape[0], path)
    elif not isinstance(value, dict):
        yield from [path] if path else shape
    else:
        for key, inner in shape.items():
            yield from _missing(value.get(key), inner, f"{path}.{key}" if path else key)


def _read_list(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): move it away") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds no list of results: move it away")
    return rows


def check_results(checkpoint: str | Path) -> None:
    """Refuse, before any work is done, a checkpoint beside which no result can be kept.

    Raises:
        DataError: `results.json` there is damaged, or the folder cannot be written.
    """
    path = Path(checkpoint).parent / RESULTS
    _read_list(path)
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{path.parent} cannot be written: results and classifiers are kept there")


def append_result(checkpoint: str | Path, row: dict[str, Any]) -> Path:
    """Add a row to `results.json` in the checkpoint's folder; several processes may do so at once.

    Returns:
        The file's path.

    Raises:
        DataError: The file is there and is not a list of results, or the folder cannot be written.
    """
    path = Path(checkpoint).parent / RESULTS
    temporary = path.with_name(f"{RESULTS}.{os.getpid()}.tmp")
    try:
        with _locked(path.with_name(f"{RESULTS}.lock")):
            rows = _read_list(path)
            temporary.write_text(json.dumps([*rows, row], indent=2) + "\n", encoding="utf-8")
            os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}): the result above is not kept") from error
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which works on every system and network folder; one left by a killed process is taken over."""
    start = time.monotonic()
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            if time.monotonic() - start > _LOCK_SECONDS:  # a writer needs milliseconds
                break
            time.sleep(0.02)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)

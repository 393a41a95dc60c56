"""Rows of `results.json`: everything that is needed to know what a number means, written so that none is lost."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch

from prosl_lightning._lightning import pl
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError
from prosl_lightning.version import __version__

RESULTS = "results.json"
CENTRE_CROP = 0.95

_KEYS = {
    "evaluation", "numbers", "protocol", "data", "checkpoints", "versions", "seeds", "device", "date",
}  # fmt: skip
_BLOCK = 1 << 22
_LOCK_SECONDS = 30.0


def result_row(
    evaluation: str,
    ckpts: Sequence[str | Path],
    data: SkeletonDataModule,
    numbers: Mapping[str, float],
    protocol: Mapping[str, Any],
    seeds: Sequence[int] = (),
    device: str = "cpu",
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
    """
    checkpoints = [describe_checkpoint(ckpt) for ckpt in ckpts]
    rule = data.archive.meta["protocols"].get(data.protocol, {})
    split = {
        "split": data.protocol,
        "rule": rule,
        "train": data.num_samples,
        "test": len(data.test_rows),
        "test_crop": CENTRE_CROP,
        "stream": "+".join(dict.fromkeys(str(each["stream"]) for each in checkpoints)),
    }
    return {
        "evaluation": evaluation,
        "numbers": {name: _plain_number(value) for name, value in numbers.items()},
        "protocol": split | dict(protocol),
        "data": describe_data(data),
        "checkpoints": checkpoints,
        "versions": versions(),
        "seeds": [int(seed) for seed in seeds],
        "device": device,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _plain_number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def describe_data(data: SkeletonDataModule) -> dict[str, Any]:
    """Fingerprint of an archive: its name, what it was made from, counts, and the checksums it carries."""
    meta = data.archive.meta
    return {
        "name": data.archive.root.resolve().name,
        "root": str(data.root),
        "source": meta.get("source", ""),
        "recipe": meta.get("recipe", {}),
        "layout": data.layout.name,
        "num_bodies": data.num_bodies,
        "sequences": len(data.archive),
        "frames": len(data.archive.frames),
        "classes": len(data.archive.class_names),
        "frames_sha256": meta["frames"].get("sha256"),
        "index_sha256": meta["index"].get("sha256"),
    }


def describe_checkpoint(path: str | Path) -> dict[str, Any]:
    """Fingerprint of a checkpoint: checksum of the file, epochs trained, method, and the data it was trained on."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    options, recipe = content.get("hyper_parameters", {}), content.get("recipe", {})
    epochs = int(content.get("epoch", -1)) + 1
    return {
        "path": str(path),
        "sha256": file_sha256(path),
        "epochs": epochs,
        "base": options.get("base"),
        "semantic": _semantic_stage(options, epochs),
        "stream": options.get("stream"),
        "seed": options.get("seed"),
        "trained_on": {
            "data": recipe.get("data"),
            "recipe": recipe.get("normalisation"),
            "protocol": recipe.get("protocol"),
            "sequences": recipe.get("num_samples"),
        },
    }


def _semantic_stage(options: Mapping[str, Any], epochs: int) -> str:
    """`off`, `warm-up` (the codebook has never had a say), or `on`."""
    if not options.get("semantic"):
        return "off"
    return "on" if epochs > options.get("semantic_start", 0) else "warm-up"


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    return {
        "prosl-lightning": __version__,
        "torch": torch.__version__,
        pl.__name__.replace("_", "-"): pl.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a `results.json`; empty where there is no such file.

    Raises:
        DataError: The file is not a list of results as :func:`append_result` writes them.
    """
    rows = _read_list(Path(path))
    for number, row in enumerate(rows, start=1):
        missing = _KEYS - set(row) if isinstance(row, dict) else _KEYS
        if missing:
            raise DataError(
                f"{path}: row {number} lacks {', '.join(sorted(missing))}; it was not written by an evaluation of this "
                "version: move the file away and evaluate again"
            )
    return rows


def _read_list(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): move it away") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds no list of results: move it away")
    return rows


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

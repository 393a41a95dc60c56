"""Reads the json folder of NW-UCLA that CTR-GCN and its successors use: ``aXX_sXX_eXX_vXX.json``."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.formats.known_sets import known_sets
from prosl_lightning.data.formats.labels import Sample
from prosl_lightning.data.raw_files import read_file
from prosl_lightning.data.source import RawSequence, Source
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

FORMAT = "nw-ucla-json"
NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)")
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)
_MAX_BYTES = 32_000_000
_JOINTS = 20


def open_nw_ucla(path: str | Path, layout: str | SkeletonLayout | None = None) -> Source:
    """Open the folder; labels, subjects, episodes and views come from the names, classes and splits from us."""
    root, known = Path(path), known_sets()["nw-ucla"]
    found = sorted(root.rglob("*.json"), key=lambda file: (file.stem, str(file))) if root.is_dir() else []
    files = list({file.stem: file for file in reversed(found) if NAME.fullmatch(file.stem)}.values())[::-1]
    if not files:
        raise DataError(f"{root}: format {FORMAT} needs a folder with files aXX_sXX_eXX_vXX.json")
    return Source(
        root,
        FORMAT,
        SkeletonLayout.of(layout or known.layout),
        num_bodies=1,
        items=files,
        read=read_json,
        class_names=known.class_names,
        protocols=known.protocols,
        official={"x-view": (1020, 464)},
        normalize=known.normalize,
    )


def read_json(file: Path) -> RawSequence:
    """Read one file; what is wrong with it becomes the sequence's error."""
    match = NAME.fullmatch(file.stem)
    assert match is not None
    action, subject, episode, view = map(int, match.groups())
    label = ACTIONS.index(action) if action in ACTIONS else -1
    sample = Sample(file, file.stem, label, {"subject": subject, "episode": episode, "view": view})
    return sample.read(str(file), partial(_bodies, file, action))


def _bodies(file: Path, action: int) -> NDArray[np.float32]:
    if action not in ACTIONS:
        raise DataError(f"action {action}, expected one of {ACTIONS}")
    try:
        content = json.loads(read_file(file, _MAX_BYTES))
        with np.errstate(over="ignore"):  # infinity is refused later, with its frame
            joints = np.array(content["skeletons"], dtype=np.float32)
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"not a json file with 'skeletons' ({reason})") from error
    if joints.ndim != 3 or joints.shape[1:] != (_JOINTS, 3):
        raise DataError(f"skeletons {joints.shape}, expected (T, {_JOINTS}, 3)")
    return joints[:, None]

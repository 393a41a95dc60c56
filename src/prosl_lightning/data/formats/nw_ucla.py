"""Reads the json folder of NW-UCLA that CTR-GCN and its successors use: ``aXX_sXX_eXX_vXX.json``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from prosl_lightning.data.formats.known_sets import known_sets
from prosl_lightning.data.source import RawSequence, Source
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

FORMAT = "nw-ucla-json"
NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)")
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)
_MAX_BYTES = 1 << 25
_JOINTS = 20


def open_nw_ucla(path: str | Path, layout: str | SkeletonLayout | None = None) -> Source:
    """Open the folder; labels, subjects, episodes and views come from the names, classes and splits from the library.

    Args:
        path: The folder, e.g. ``all_sqe``.
        layout: Body model; Kinect v1 unless given.

    Raises:
        DataError: No file has such a name.
        UsageError: The body model is not known.
    """
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
    columns = {"subject": subject, "episode": episode, "view": view}
    if action not in ACTIONS:
        return RawSequence(str(file), file.stem, error=f"action {action}, expected one of {ACTIONS}")
    if not file.is_file():  # opening a pipe would wait for ever
        return RawSequence(str(file), file.stem, error="not a file that can be read")
    try:
        if file.stat().st_size > _MAX_BYTES:
            return RawSequence(str(file), file.stem, error=f"more than {_MAX_BYTES >> 20} MB")
        content = json.loads(file.read_bytes())
        with np.errstate(over="ignore"):  # infinity is refused later, with its frame
            joints = np.array(content["skeletons"], dtype=np.float32)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return RawSequence(str(file), file.stem, error=f"not a json file with 'skeletons' ({reason})")
    if joints.ndim != 3 or joints.shape[1:] != (_JOINTS, 3):
        return RawSequence(str(file), file.stem, error=f"skeletons {joints.shape}, expected (T, {_JOINTS}, 3)")
    return RawSequence(str(file), file.stem, joints[:, None], label=ACTIONS.index(action), columns=columns)

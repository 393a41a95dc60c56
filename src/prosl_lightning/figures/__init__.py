"""Figures of data, training and what was learnt; every function returns a matplotlib figure and needs no display.

The names below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Bar": "streams",
    "Body": "importance",
    "Clip": "animation",
    "FeatureMap": "maps",
    "FigureLogger": "callback",
    "cluster_sizes_figure": "codebook",
    "codebook_figure": "codebook",
    "confusion_figure": "confusion",
    "curves_figure": "curves",
    "choose_part": "samples",
    "embedded": "samples",
    "feature_map": "maps",
    "importance_grid_figure": "importance",
    "joint_importance_figure": "importance",
    "map_figure": "maps",
    "mask_clips": "clips",
    "measured_importance": "samples",
    "nearest_figure": "nearest",
    "nearest_to_centroids": "nearest",
    "read_curves": "curves",
    "sequence_clip": "clips",
    "skeleton_animation": "animation",
    "stream_panels": "streams",
    "streams_figure": "streams",
    "strip_sheet": "sheet",
    "view_clips": "clips",
    "write_animation": "animation",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

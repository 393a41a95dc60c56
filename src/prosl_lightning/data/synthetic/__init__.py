"""A generator of labelled moving skeletons: the library's embedded default data."""

from __future__ import annotations

from prosl_lightning.data.synthetic.archive import write_archive
from prosl_lightning.data.synthetic.generator import (
    CLASS_NAMES,
    NUM_PERFORMERS,
    PROTOCOLS,
    SyntheticClip,
    generate,
    performer,
)
from prosl_lightning.data.synthetic.raw import skeleton_text, write_skeleton_files

__all__ = [
    "CLASS_NAMES",
    "NUM_PERFORMERS",
    "PROTOCOLS",
    "SyntheticClip",
    "generate",
    "performer",
    "skeleton_text",
    "write_archive",
    "write_skeleton_files",
]

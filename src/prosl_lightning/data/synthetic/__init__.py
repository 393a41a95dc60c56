"""A generator of labelled moving skeletons: the library's embedded default data."""

from __future__ import annotations

from prosl_lightning.data.synthetic.generator import (
    CLASS_NAMES,
    NUM_PERFORMERS,
    PROTOCOLS,
    SyntheticClip,
    generate,
    performer,
)

__all__ = [
    "CLASS_NAMES",
    "NUM_PERFORMERS",
    "PROTOCOLS",
    "SyntheticClip",
    "generate",
    "performer",
]

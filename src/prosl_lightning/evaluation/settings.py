"""The usual settings of each evaluation, and in what a result differs from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prosl_lightning.evaluation.linear import LINEAR
from prosl_lightning.evaluation.report import CENTRE_CROP
from prosl_lightning.evaluation.semi import FINE_TUNING

# What describes the data or the encoder, or has no influence on the reported accuracy.
_NOT_SETTINGS = {
    "split", "rule", "train", "test", "test_crop", "stream", "labelled", "unlabelled", "test_every", "joints",
    "absent_joints", "unused_joints", "renamed_joints", "units", "fraction", "clusters", "clustering", "metric",
    "ties", "vote",
}  # fmt: skip
_FROZEN = LINEAR.to_plain() | {"train_crop": CENTRE_CROP, "precision": "float32", "fusion": "sum of logits"}
_TUNED = FINE_TUNING.to_plain() | {"sampling": "random"}
_USUAL: Mapping[str, Mapping[str, Any]] = {
    "linear": _FROZEN,
    "semi": _TUNED,
    "knn": {"k": 1, "precision": "float32", "train_crop": CENTRE_CROP, "fusion": "sum of cosines"},
    "transfer": _FROZEN | {"finetune": False},
}


def unusual(evaluation: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in which an evaluation differs from the usual protocol, by name.

    Args:
        evaluation: The verb.
        protocol: Of a row of results.

    Example:
        >>> unusual("knn", {"split": "x-sub", "k": 5, "precision": "float32", "weights": [1.0, 1.0]})
        {'k': 5}
    """
    usual = _USUAL.get(evaluation, {})
    if evaluation == "transfer" and protocol.get("finetune"):
        usual = _TUNED
    return {
        name: value
        for name, value in protocol.items()
        if name not in _NOT_SETTINGS
        and not (name in usual and usual[name] == value)
        and not (name == "weights" and isinstance(value, list) and value == value[:1] * len(value))  # equal ones
    }

"""A protocol is a rule over an index column, as plain data: which values train and which test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.errors import UsageError

IntArray = NDArray[np.int64]


def check_rule(name: str, rule: Mapping[str, Any]) -> dict[str, Any]:
    """Check a protocol rule and return it as plain data.

    Raises:
        UsageError: The rule has no column, or neither training nor test values, or values that are not integers.
    """
    sides = [side for side in ("train", "test") if side in rule]
    if name == "all" or "column" not in rule or not sides or set(rule) - {"column", "train", "test"}:
        raise UsageError(
            f"protocol '{name}' is {dict(rule)}; expected a column with train and/or test values, not named 'all'"
        )
    try:
        values = {side: sorted({int(value) for value in rule[side]}) for side in sides}
    except (TypeError, ValueError) as error:
        raise UsageError(f"protocol '{name}': {' and '.join(sides)} must be lists of integers") from error
    return {"column": str(rule["column"]), **values}


def split_rows(rule: Mapping[str, Any], columns: Mapping[str, IntArray]) -> tuple[IntArray, IntArray]:
    """Apply one protocol rule to index columns.

    Args:
        rule: ``{"column": name, "train": values, "test": values}``; the side that is not given is all the rest.
        columns: Index columns ``(N,)`` by name.

    Returns:
        Ascending rows that train and rows that test, both int64.
    """
    column = columns[rule["column"]]
    train = np.isin(column, rule["train"]) if "train" in rule else ~np.isin(column, rule["test"])
    test = np.isin(column, rule["test"]) if "test" in rule else ~train
    return np.flatnonzero(train), np.flatnonzero(test)

"""Data sets whose body model, classes and splits the library knows by name, and the splits a user writes as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from prosl_lightning.errors import UsageError


@dataclass(frozen=True)
class KnownSet:
    """What the library knows of a data set by its name.

    Attributes:
        layout: Name of its body model.
        class_names: Classes in label order.
        protocols: Split rules by name.
        normalize: The normalisation that suits it.
    """

    layout: str
    class_names: tuple[str, ...]
    protocols: Mapping[str, Mapping[str, Any]]
    normalize: str = "agcn"


@cache
def known_sets() -> dict[str, KnownSet]:
    """Data sets whose layout, classes and splits are shipped with the library."""
    text = (resources.files("prosl_lightning.data") / "datasets.yaml").read_text(encoding="utf-8")
    return {
        name: KnownSet(
            spec["layout"],
            tuple(map(str, spec["classes"])),
            spec.get("protocols", {}),
            spec.get("normalize", "agcn"),
        )
        for name, spec in yaml.safe_load(text).items()
    }


def column_name(key: str) -> str:
    """The index column of an npz key: its singular (``subjects`` -> ``subject``, ``correctness`` stays)."""
    return key[:-1] if key.endswith("s") and not key.endswith("ss") else key


def parse_protocol(text: str) -> tuple[str, dict[str, Any]]:
    """Read a split rule written as ``NAME:COLUMN=1,2,3``, the values that train; all others test.

    Raises:
        UsageError: The text has another form.

    Example:
        >>> parse_protocol("x-sub:subject=1,3,5")
        ('x-sub', {'column': 'subject', 'train': [1, 3, 5]})
    """
    name, colon, rule = text.partition(":")
    column, equals, values = rule.partition("=")
    try:
        train = [int(value) for value in values.split(",")]
    except ValueError:
        train = []
    if not (colon and equals and name and column and train):
        raise UsageError(f"protocol '{text}': expected NAME:COLUMN=1,2,3 (the values of the column that train)")
    return name, {"column": column_name(column), "train": train}

"""Reads the table of labels, subjects and splits that a user puts beside the sequences: a csv file with a header."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prosl_lightning.data.raw_files import read_file
from prosl_lightning.errors import DataError

INDEX_FILES = ("index.csv", "splits.csv")
NAME_KEYS, LABEL_KEYS = ("name", "file", "filename"), ("label", "class")
SEQUENCE_SUFFIXES = (".csv", ".txt", ".npy")
_MAX_BYTES = 32_000_000
_INTEGER = re.compile(r"[+-]?\d{1,18}")


@dataclass
class IndexTable:
    """One row a sequence.

    Attributes:
        path: The file.
        names: Names of the sequences, without suffix; empty where the table has no such column.
        labels: Classes, -1 where unknown.
        class_names: Names of the classes where labels are text, in alphabetical order.
        columns: Further columns as integers; -1 where a cell is empty.
        values: For columns of text the values that stand for 0, 1, 2, ...
    """

    path: Path
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    class_names: tuple[str, ...] = ()
    columns: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def row(self, number: int) -> dict[str, int]:
        """The columns of one sequence."""
        return {column: values[number] for column, values in self.columns.items()}

    @property
    def protocols(self) -> dict[str, dict[str, Any]]:
        """The protocol ``split`` where a column of that name holds ``train`` and others."""
        values = self.values.get("split", ())
        if "train" not in values or len(values) < 2:
            return {}
        tests = ["test"] if "test" in values else [value for value in values if value != "train"]
        rule = {"column": "split", "train": [values.index("train")], "test": [values.index(value) for value in tests]}
        return {"split": rule}

    @property
    def notes(self) -> list[str]:
        """What the numbers of text columns mean."""
        return [
            f"column {column}: " + ", ".join(f"{value or '(empty)'} = {code}" for code, value in enumerate(values[:20]))
            for column, values in self.values.items()
        ]


def read_index(path: Path) -> IndexTable:
    """Read a table with a header; the columns are told apart by their names.

    ``name`` (or ``file``) names the sequence, ``label`` (or ``class``) its class as a number from 0 or as text. Every
    other column becomes an index column: integers as they are, text as numbers in alphabetical order.

    Raises:
        DataError: The file cannot be read, rows differ in length, or the header is not one.
    """
    header, rows = _read_cells(path)
    number = len(rows)
    cells = {column: [row[i] for row in rows] for i, column in enumerate(header)}
    table = IndexTable(path, labels=[-1] * number)
    names = _take(cells, NAME_KEYS, path)
    if names is not None:
        table.names = [_stem(name) for name in names]
        seen: set[str] = set()
        for name in table.names:
            if name in seen:
                raise DataError(f"{path}: '{name}' stands there twice")
            seen.add(name)
    labels = _take(cells, LABEL_KEYS, path)
    if labels is not None:
        table.labels, table.class_names = _integers(labels)
    for column, values in cells.items():
        table.columns[column], texts = _integers(values)
        if texts:
            table.values[column] = texts
    return table


def _read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        lines = read_file(path, _MAX_BYTES).decode("utf-8-sig").splitlines()
        delimiter = max(",;\t", key=lines[0].count) if lines else ","
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable csv file ({error})") from error
    rows = [row for row in rows if any(row)]
    if len(rows) < 2:
        raise DataError(f"{path}: expected a header and at least one row")
    header = [cell.lower().replace(" ", "_") for cell in rows[0]]
    if len(set(header)) != len(header) or "" in header:
        raise DataError(f"{path}: the header is {', '.join(header)}; expected a different name for each column")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(f"{path}: row {number} has {len(row)} cells, the header {len(header)}")
    return header, rows[1:]


def _take(cells: dict[str, list[str]], keys: tuple[str, ...], path: Path) -> list[str] | None:
    found = [key for key in keys if key in cells]
    if len(found) > 1:
        raise DataError(f"{path}: has columns {' and '.join(found)}; keep one of them")
    return cells.pop(found[0]) if found else None


def _stem(name: str) -> str:
    stem = name.replace("\\", "/").removeprefix("./")
    while stem.lower().endswith(SEQUENCE_SUFFIXES):
        stem = stem[:-4]
    return stem


def _integers(values: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """Cells as integers, empty ones -1; where one is text, all become numbers of the sorted texts."""
    if all(not value or _INTEGER.fullmatch(value) for value in values):
        return [int(value) if value else -1 for value in values], ()
    texts = tuple(sorted({value for value in values if value}))
    codes = {value: code for code, value in enumerate(texts)}
    return [codes.get(value, -1) for value in values], texts

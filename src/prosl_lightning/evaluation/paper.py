"""The paper's Tables 1 to 4 with our own results set beside them, and what it prints in Tables 5 and 6."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml

from prosl_lightning.evaluation.naming import Row, data_set, line_key, line_names, settings_of, told

_PLACE = ("split", "fraction", "train", "test")  # of a protocol: what decides on the column, beside the data
_PARTIAL, _OTHER_SETTINGS = "†", "‡"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        label: Its heading.
        where: What a result must say to stand in it; `source` and `source_split`: what its encoder was trained on.
        sizes: Published counts (train, test), where they are known.
    """

    label: str
    where: Mapping[str, Any]
    sizes: tuple[int, int] | None = None


@dataclass(frozen=True)
class Line:
    """One method of a table: of the paper's, or ours.

    Attributes:
        method: Its name as printed.
        cite: Authors and year, or how many of our runs it is.
        encoder: As printed; empty in tables that do not name it.
        values: Accuracy in percent by column; None where there is none. Ours are text with deviation and marks.
    """

    method: str
    cite: str
    encoder: str
    values: tuple[float | str | None, ...]


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Attributes:
        number: As in the paper.
        title: What it shows.
        columns: Its columns.
        rows: The methods the paper lists, in its order.
        note: What its marks mean.
    """

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Line, ...]
    note: str


@dataclass
class Comparison:
    """A table of the paper with our results.

    Attributes:
        table: The paper's part.
        ours: Our lines, sorted by name.
        notes: What the marks in our lines mean.
        others: Results of the same evaluation on other data or by other rules: header `OTHERS`.
        unrelated: Number of results of other evaluations.
    """

    table: PaperTable
    ours: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    others: list[list[str]] = field(default_factory=list)
    unrelated: int = 0


OTHERS = ["data", "split", "method", "settings", "train", "test", "top-1 %", "runs"]


@cache
def paper_tables() -> Mapping[int, PaperTable]:
    """The paper's Tables 1 to 4 by number; see `paper_tables.yaml`.

    Example:
        >>> [(line.method, line.values[0]) for line in paper_tables()[3].rows][-2:]
        [('HiCo-LSTM*', 67.1), ('ProSL', 68.8)]
    """
    return _read("tables")


@cache
def ablation_tables() -> Mapping[int, PaperTable]:
    """What the paper prints in Tables 5 and 6, by number; ours: :mod:`prosl_lightning.evaluation.ablation`.

    Example:
        >>> [line.values for line in ablation_tables()[6].rows]
        [(68.3, 76.4), (73.1, 78.4)]
    """
    return _read("ablations")


def _read(part: str) -> Mapping[int, PaperTable]:
    text = resources.files("prosl_lightning.evaluation").joinpath("paper_tables.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return {number: _table(number, entry, content["note"]) for number, entry in content[part].items()}


def _table(number: int, entry: Mapping[str, Any], note: str) -> PaperTable:
    columns = tuple(
        Column(each["label"], _with_source(each["where"]), tuple(each["sizes"]) if "sizes" in each else None)
        for each in entry["columns"]
    )
    rows = tuple(
        Line(row["method"], row["cite"], row.get("encoder", ""), tuple(row["values"])) for row in entry["rows"]
    )
    return PaperTable(number, entry["title"], columns, rows, note)


def _with_source(where: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder has been trained on the training part of what it is judged on, unless the table says otherwise."""
    return {"source": where["data"], "source_split": where["split"]} | dict(where)


def compare(table: PaperTable, results: Sequence[Row]) -> Comparison:
    """Set results beside a table of the paper.

    A result stands in the column whose conditions it meets. A line is one method, model and setting: only checkpoints
    that differ in nothing but their seed share it, as mean and standard deviation, and only those judged on part of a
    data set, or only those on the whole. An evaluation repeated on the same checkpoint counts once, the last time.

    Args:
        table: Of the paper.
        results: Rows of `results.json` files, oldest first.
    """
    comparison = Comparison(table)
    evaluations = {column.where["evaluation"] for column in table.columns}
    wanted = [row for row in results if row["evaluation"] in evaluations]
    comparison.unrelated = len(_last_of_each(results)) - len(_last_of_each(wanted))
    cells: dict[tuple[str, bool], list[list[Row]]] = {}
    others: dict[str, list[Row]] = {}
    for row in _last_of_each(wanted):
        column = next((i for i, each in enumerate(table.columns) if _meets(row, each.where)), None)
        if column is None:
            place = [told(row).get(key) for key in ("evaluation", "data", "source", "source_split", *_PLACE)]
            others.setdefault(json.dumps([place, line_key(row)]), []).append(row)
        else:
            part = _partial(row, table.columns[column])
            cells.setdefault((line_key(row), part), [[] for _ in table.columns])[column].append(row)
    names = line_names(wanted)
    marks: dict[str, None] = {}
    for line in cells.values():
        comparison.ours.append(_ours(line, table, names, marks))
    comparison.ours.sort(key=lambda line: line.method)
    comparison.notes = list(marks)
    comparison.others = [_other(rows, names[line_key(rows[0])]) for rows in others.values()]
    return comparison


def _ours(line: Sequence[list[Row]], table: PaperTable, names: Mapping[str, str], marks: dict[str, None]) -> Line:
    first = next(rows[0] for rows in line if rows)
    values = tuple(
        _cell(rows, column, marks) if rows else None for rows, column in zip(line, table.columns, strict=True)
    )
    counts = sorted({len(rows) for rows in line if rows})
    settings = settings_of(first)
    name = f"ours: {names[line_key(first)]}" + (f", evaluated with {settings}" if settings else "")
    return Line(name, f"this library, {_runs(counts)}", str(first["checkpoints"][0].get("base")), values)


def _meets(row: Row, where: Mapping[str, Any]) -> bool:
    found = told(row)
    return all(found.get(key) == value for key, value in where.items())


def _identity(row: Row) -> str:
    files = [each["sha256"] for each in row["checkpoints"]]
    place = [row["protocol"].get(key) for key in _PLACE]
    return json.dumps([row["evaluation"], data_set(row["data"]), place, settings_of(row), files])


def _last_of_each(results: Sequence[Row]) -> list[Row]:
    return list({_identity(row): row for row in results}.values())


def _spread(rows: Sequence[Row]) -> str:
    """Top-1 of one run with its own deviation, or mean and deviation over several."""
    found = [row["numbers"].get("top-1") for row in rows]
    values = [math.nan if value is None else float(value) for value in found]
    if len(values) > 1:
        return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"
    deviation = rows[0]["numbers"].get("top-1 deviation")
    return f"{values[0]:.1f}" if deviation is None else f"{values[0]:.1f} ± {deviation:.1f}"


def _partial(row: Row, column: Column) -> bool:
    return column.sizes is not None and (row["protocol"]["train"], row["protocol"]["test"]) != column.sizes


def _cell(rows: Sequence[Row], column: Column, marks: dict[str, None]) -> str:
    text = _spread(rows)
    for row in rows:
        found = (row["protocol"]["train"], row["protocol"]["test"])
        if column.sizes is not None and _partial(row, column):
            text += _PARTIAL if not text.endswith(_PARTIAL) else ""
            marks[
                f"{_PARTIAL} {column.label}: {found[0]} / {found[1]} sequences instead of "
                f"{column.sizes[0]} / {column.sizes[1]}: not the whole data set"
            ] = None
    settings = {settings_of(row) for row in rows} - {""}
    if settings:
        text += _OTHER_SETTINGS
        marks[f"{_OTHER_SETTINGS} {column.label}: with {'; or '.join(sorted(settings))}"] = None
    return text


def _runs(counts: Sequence[int]) -> str:
    text = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{text} run{'s' if text != '1' else ''}"


def _other(rows: Sequence[Row], name: str) -> list[str]:
    row = rows[0]
    protocol, data = row["protocol"], data_set(row["data"])
    source, source_split = (str(told(row)[key]) for key in ("source", "source_split"))
    if (source, source_split) != (data, protocol["split"]):
        data += f" from {source}" + ("" if source_split in (protocol["split"], "None") else f" {source_split}")
    sizes = [str(protocol["train"]), str(protocol["test"])]
    split = (
        f"{protocol['split']} {100 * protocol['fraction']:g}%"
        if isinstance(protocol.get("fraction"), float)
        else protocol["split"]
    )
    return [data, split, name, settings_of(row), *sizes, _spread(rows), str(len(rows))]

"""The paper's Tables 1 to 4, and our own results set beside them."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml

from prosl_lightning.evaluation.linear import LINEAR
from prosl_lightning.evaluation.semi import FINE_TUNING

_NAMES = {"hico-lstm": "HiCo-LSTM", "hico-gru": "HiCo-GRU", "hico-transformer": "HiCo-Transformer"}
_SETS = {
    "ntu60": "ntu60", "nturgbd60": "ntu60", "ntu120": "ntu120", "nturgbd120": "ntu120", "pku1": "pku1",
    "pkummd1": "pku1", "pkummdi": "pku1", "pku2": "pku2", "pkummd2": "pku2", "pkummdii": "pku2",
}  # fmt: skip
_NOT_SETTINGS = {
    "split", "rule", "train", "test", "test_crop", "stream", "labelled", "test_every", "joints", "weights", "fraction",
}  # fmt: skip
_PARTIAL, _OTHER_SETTINGS = "†", "‡"

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        label: Its heading.
        where: What a result must say to stand in it.
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
    text = resources.files("prosl_lightning.evaluation").joinpath("paper_tables.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return {number: _table(number, entry, content["note"]) for number, entry in content["tables"].items()}


def _table(number: int, entry: Mapping[str, Any], note: str) -> PaperTable:
    columns = tuple(
        Column(each["label"], each["where"], tuple(each["sizes"]) if "sizes" in each else None)
        for each in entry["columns"]
    )
    rows = tuple(
        Line(row["method"], row["cite"], row.get("encoder", ""), tuple(row["values"])) for row in entry["rows"]
    )
    return PaperTable(number, entry["title"], columns, rows, note)


def compare(table: PaperTable, results: Sequence[Row]) -> Comparison:
    """Set results beside a table of the paper.

    A result stands in the column whose conditions it meets. Checkpoints of one method that differ in their seed
    share a line: mean and standard deviation. An evaluation repeated on the same checkpoint counts once, the last time.

    Args:
        table: Of the paper.
        results: Rows of `results.json` files, oldest first.
    """
    comparison = Comparison(table)
    evaluations = {column.where["evaluation"] for column in table.columns}
    cells: dict[str, list[list[Row]]] = {}
    others: dict[str, list[Row]] = {}
    for row in _last_of_each(results):
        if row["evaluation"] not in evaluations:
            comparison.unrelated += 1
            continue
        column = next((i for i, each in enumerate(table.columns) if _meets(row, each.where)), None)
        if column is None:
            others.setdefault(_without_seed(row), []).append(row)
        else:
            line = cells.setdefault(method_name(row), [[] for _ in table.columns])
            line[column].append(row)
    marks: dict[str, None] = {}
    for name, line in sorted(cells.items()):
        values = tuple(
            _cell(rows, column, marks) if rows else None for rows, column in zip(line, table.columns, strict=True)
        )
        counts = sorted({len(rows) for rows in line if rows})
        encoder = str(line[next(i for i, rows in enumerate(line) if rows)][0]["checkpoints"][0]["base"])
        comparison.ours.append(Line(f"ours: {name}", f"this library, {_runs(counts)}", encoder, values))
    comparison.notes = list(marks)
    comparison.others = [_other(rows) for rows in others.values()]
    return comparison


def method_name(row: Row) -> str:
    """A result's method: base, whether the semantic stage took part, streams, epochs trained.

    Example:
        >>> checkpoint = {"base": "hico-lstm", "semantic": "on", "stream": "joint", "epochs": 450}
        >>> method_name({"checkpoints": [checkpoint]})
        'ProSL (HiCo-LSTM), 450 epochs'
    """
    checkpoints = row["checkpoints"]

    def each(key: str) -> list[Any]:
        return list(dict.fromkeys(checkpoint[key] for checkpoint in checkpoints))

    base = "+".join(_NAMES.get(base, str(base)) for base in each("base"))
    stages = {"on": f"ProSL ({base})", "warm-up": f"ProSL warm-up ({base})", "off": base}
    name = "+".join(stages[value] for value in each("semantic"))
    streams = each("stream")
    if len(checkpoints) > 1:
        name += f"-{len(checkpoints)}s" if set(streams) == {"joint", "bone", "motion"} else f" {'+'.join(streams)}"
    elif streams != ["joint"]:
        name += f" {streams[0]}"
    return f"{name}, {'+'.join(map(str, each('epochs')))} epochs"


def data_set(described: Mapping[str, Any]) -> str:
    """Canonical name of a data set from its description: who imported it, the archive's name, the file it came from.

    Example:
        >>> data_set({"recipe": {"importer": "ntu60"}, "name": "mine"}), data_set({"name": "NW-UCLA"})
        ('ntu60', 'NW-UCLA')
    """
    importer = (described.get("recipe") or {}).get("importer")
    candidates = [importer, described.get("name"), described.get("source"), described.get("data")]
    for candidate in filter(None, candidates):
        stem = re.sub(r"[^a-z0-9]", "", str(candidate).lower().split(".")[0])
        if stem in _SETS:
            return _SETS[stem]
    return str(described.get("name") or described.get("data") or "unknown")


def _meets(row: Row, where: Mapping[str, Any]) -> bool:
    found = row["protocol"] | {
        "evaluation": row["evaluation"],
        "data": data_set(row["data"]),
        "source": "+".join(dict.fromkeys(data_set(each["trained_on"]) for each in row["checkpoints"])),
    }
    return all(found.get(key) == value for key, value in where.items())


def _identity(row: Row) -> tuple[str, ...]:
    data = (str(row["data"]["frames_sha256"]), str(row["data"]["index_sha256"]))
    files = [each["sha256"] for each in row["checkpoints"]]
    return (row["evaluation"], json.dumps(row["protocol"], sort_keys=True), *data, *files)


def _last_of_each(results: Sequence[Row]) -> list[Row]:
    return list({_identity(row): row for row in results}.values())


def _without_seed(row: Row) -> str:
    return json.dumps([row["evaluation"], row["protocol"], data_set(row["data"]), method_name(row)], sort_keys=True)


def _spread(rows: Sequence[Row]) -> str:
    """Top-1 of one run with its own deviation, or mean and deviation over several."""
    values = [float(row["numbers"].get("top-1") or "nan") for row in rows]
    if len(values) > 1:
        return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"
    deviation = rows[0]["numbers"].get("top-1 deviation")
    return f"{values[0]:.1f}" if deviation is None else f"{values[0]:.1f} ± {deviation:.1f}"


def _cell(rows: Sequence[Row], column: Column, marks: dict[str, None]) -> str:
    text = _spread(rows)
    for row in rows:
        found = (row["protocol"]["train"], row["protocol"]["test"])
        if column.sizes is not None and found != column.sizes:
            text += _PARTIAL if not text.endswith(_PARTIAL) else ""
            marks[
                f"{_PARTIAL} {column.label}: {found[0]} / {found[1]} sequences instead of "
                f"{column.sizes[0]} / {column.sizes[1]}: not the whole data set"
            ] = None
    settings = {_settings(row) for row in rows} - {""}
    if settings:
        text += _OTHER_SETTINGS
        marks[f"{_OTHER_SETTINGS} {column.label}: with {'; or '.join(sorted(settings))}"] = None
    return text


def _settings(row: Row) -> str:
    """The settings in which an evaluation differs from the usual protocol, as `name value`."""
    usual = _usual_settings().get(row["evaluation"], {})
    return ", ".join(
        f"{name} {value}"
        for name, value in row["protocol"].items()
        if name not in _NOT_SETTINGS and not (name in usual and usual[name] == value)
    )


@cache
def _usual_settings() -> Mapping[str, Mapping[str, Any]]:
    linear = LINEAR.to_plain()
    return {
        "linear": linear | {"fusion": "sum of logits"},
        "semi": FINE_TUNING.to_plain() | {"sampling": "random"},
        "knn": {"k": 1, "precision": "float32", "fusion": "sum of cosines"},
        "transfer": linear | {"finetune": False},
    }


def _runs(counts: Sequence[int]) -> str:
    text = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{text} run{'s' if text != '1' else ''}"


def _other(rows: Sequence[Row]) -> list[str]:
    row = rows[0]
    protocol = row["protocol"]
    name = data_set(row["data"])
    if row["evaluation"] == "transfer":
        name += f" from {data_set(row['checkpoints'][0]['trained_on'])}"
    sizes = [str(protocol["train"]), str(protocol["test"])]
    split = f"{protocol['split']} {100 * protocol['fraction']:g}%" if "fraction" in protocol else protocol["split"]
    return [name, split, method_name(row), _settings(row), *sizes, _spread(rows), str(len(rows))]

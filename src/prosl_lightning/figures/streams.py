"""Figure 3: accuracy by stream, joint, bone, motion and fused, beside what the paper prints."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from prosl_lightning.errors import DataError
from prosl_lightning.evaluation.naming import Row, data_set, line_key, line_names, settings_of
from prosl_lightning.evaluation.paper import paper_tables
from prosl_lightning.figures.style import GREY, PALETTE, open_frame, remark
from prosl_lightning.skeleton import STREAMS
from prosl_lightning.tables import counted

FUSED = "fused"
# Methods of the paper's tables that are drawn: name there -> name and stream here. It prints no number for the others.
_PRINTED = {
    "HiCo-LSTM*": ("HiCo-LSTM (paper)", "joint"),
    "HiCo-LSTM-3s": ("HiCo-LSTM (paper)", FUSED),
    "ProSL": ("ProSL (paper)", "joint"),
    "ProSL-3s": ("ProSL (paper)", FUSED),
}
_METHOD = ("base", "semantic", "epochs", "options")  # of a checkpoint: what its method's name depends on
_PAPER_COLOURS = {"HiCo-LSTM (paper)": "0.78", "ProSL (paper)": GREY}
_OURS = (PALETTE[5], PALETTE[1], PALETTE[3], PALETTE[7], PALETTE[2], PALETTE[6])
_HATCHES = ("/", ".", "x", "-", "\\", "o", "+")
_SHORT = 50  # characters
_LETTER, _MARK, _WIDEST = 0.068, 0.8, 11.0  # inches: a letter of the legend, what stands before a name, widest for it
_TABLES = {"linear": 1, "knn": 3}


class Bar(NamedTuple):
    """One bar.

    Attributes:
        stream: `joint`, `bone`, `motion`, `fused`, or several of the first three joined by `+`.
        method: What was judged.
        accuracy: Top-1 in percent, the mean over runs.
        deviation: Over runs or seeds; None where there is one of each.
        runs: How many.
    """

    stream: str
    method: str
    accuracy: float
    deviation: float | None = None
    runs: int = 1


@dataclass
class Panel:
    """The bars of one data set and split.

    Attributes:
        title: Which.
        bars: The paper's first.
        notes: What a reader has to know.
    """

    title: str
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def stream_panels(results: Sequence[Row], evaluation: str = "linear") -> list[Panel]:
    """Group results by data set and split, and set the paper's printed figures beside them where they belong.

    Runs that differ in nothing but their seed share a bar. An evaluation repeated on the same checkpoints counts once,
    the last time.

    Args:
        results: Rows of `results.json` files, oldest first.
        evaluation: `linear` or `knn`.

    Raises:
        DataError: No result is of this evaluation.
    """
    wanted = [row for row in results if row["evaluation"] == evaluation and row["numbers"].get("top-1") is not None]
    last = {json.dumps([_place(row), settings_of(row), _files(row)]): row for row in wanted}
    names = line_names([_without_stream(row) for row in last.values()])
    places: dict[tuple[str, str], dict[tuple[str, str], list[Row]]] = {}
    left_out: dict[tuple[str, str], int] = {}
    for row in last.values():
        place, stream = _place(row), _stream(row)
        if stream is None:
            left_out[place] = left_out.get(place, 0) + 1
        else:
            settings = settings_of(row)
            told = [names[line_key(_without_stream(row))], settings and f"evaluated with {settings}", _elsewhere(row)]
            places.setdefault(place, {}).setdefault((stream, ", ".join(filter(None, told))), []).append(row)
    if not places:
        raise DataError(f"no result of `prosl {evaluation}` among {len(results)} results")
    panels = []
    for place in sorted(places):
        groups = places[place]
        panel = Panel(f"{place[0]}, {place[1]}")
        panel.bars = _printed(place, evaluation, next(iter(groups.values()))[0], panel)
        panel.bars += [_bar(stream, method, rows) for (stream, method), rows in groups.items()]
        if place in left_out:
            panel.notes.append(f"{panel.title}: left out: {counted(left_out[place], 'fusion')} of a stream with itself")
        panels.append(panel)
    return panels


def _place(row: Row) -> tuple[str, str]:
    return data_set(row["data"]), str(row["protocol"]["split"])


def _files(row: Row) -> list[str]:
    return [each["sha256"] for each in row["checkpoints"]]


def _elsewhere(row: Row) -> str:
    """What the encoders were trained on, where it is not what they are judged on."""
    found: dict[str, None] = {}
    for each in row["checkpoints"]:
        trained = each["trained_on"]
        if trained.get("same_data") is False or trained.get("protocol") != row["protocol"]["split"]:
            name = data_set(row["data"]) if trained.get("same_data") else data_set(trained)
            found[f"trained on {name}, {trained.get('protocol')}"] = None
    return " and ".join(found)


def _stream(row: Row) -> str | None:
    """Stream of a result; None for a fusion in which one stream occurs twice."""
    streams = [str(each["stream"]) for each in row["checkpoints"]]
    if len(streams) == 1:
        return streams[0]
    if len(set(streams)) < len(streams):
        return None
    return FUSED if set(streams) == set(STREAMS) else "+".join(sorted(streams, key=_order))


def _without_stream(row: Row) -> dict[str, Any]:
    """The result as if it were of one checkpoint of the joint stream, so that the streams of one method share its name.

    Checkpoints of a fusion that differ in more than stream and seed stay several.
    """
    each = [checkpoint | {"stream": "joint"} for checkpoint in row["checkpoints"]]
    alike = {json.dumps({key: one.get(key) for key in _METHOD}, sort_keys=True) for one in each}
    return {**row, "checkpoints": each[:1] if len(alike) == 1 else each}


def _bar(stream: str, method: str, rows: Sequence[Row]) -> Bar:
    values = [float(row["numbers"]["top-1"]) for row in rows]
    if len(values) > 1:
        return Bar(stream, method, statistics.fmean(values), statistics.stdev(values), len(values))
    deviation = rows[0]["numbers"].get("top-1 deviation")
    return Bar(stream, method, values[0], deviation, max(len(rows[0].get("seeds", [])), 1) if deviation else 1)


def _printed(place: tuple[str, str], evaluation: str, row: Row, panel: Panel) -> list[Bar]:
    """The paper's bars of a data set and split; none, with a note, where ours is only a part of it."""
    table = paper_tables()[_TABLES[evaluation]]
    for column, each in enumerate(table.columns):
        if (each.where["data"], each.where["split"]) != place:
            continue
        panel.title = each.label
        found = (row["protocol"]["train"], row["protocol"]["test"])
        if each.sizes is not None and found != each.sizes:
            told = "{:,} / {:,} sequences instead of {:,} / {:,}".format(*found, *each.sizes)
            panel.notes.append(f"{each.label}: {told}, so the paper's figures are left out")
            return []
        lines = {line.method: line.values[column] for line in table.rows}
        return [
            Bar(stream, name, float(value))
            for method, (name, stream) in _PRINTED.items()
            if (value := lines.get(method)) is not None
        ]
    return []


def streams_figure(panels: Sequence[Panel], evaluation: str = "linear") -> Figure:
    """Bars by stream, one panel for each data set and split, the deviation over runs as a whisker.

    Args:
        panels: As :func:`stream_panels` gives them.
        evaluation: What the accuracies are of, for the label.
    """
    styles = _styles(panels)
    names, shared = _short_names([method for method in styles if method not in _PAPER_COLOURS])
    widths = [0.9 + 0.42 * len(panel.bars) + 0.4 * len({bar.stream for bar in panel.bars}) for panel in panels]
    columns = max(1, min(3, len(panels), int(15 / max(widths))))
    lines = -(-len(panels) // columns)
    told = [names.get(method, method) for method in styles]
    width = max(columns * max(widths), 5.5, min(_MARK + _LETTER * max(map(len, told)), _WIDEST))
    told = ["\n".join(wrap(each, int((width - _MARK) / _LETTER), subsequent_indent="  ")) for each in told]
    legend_lines = sum(each.count("\n") + 1 for each in told)
    figure = Figure(figsize=(width, 3.5 * lines + 0.2 * legend_lines + 0.7), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, styles, evaluation)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    patches = [Patch(**style, edgecolor="black", linewidth=0.5) for style in styles.values()]
    legend = figure.legend(patches, told, loc="outside upper left", frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    notes = [note for panel in panels for note in panel.notes]
    if any(bar.deviation is not None for panel in panels for bar in panel.bars):
        notes.insert(0, "whiskers: standard deviation over runs or seeds, their number in the bar")
    if shared:
        whose = "all but the paper's" if len(names) < len(styles) else "all"
        notes.insert(0, f"{whose}: {shared}")
    remark(figure, "\n".join(notes))
    return figure


def _styles(panels: Sequence[Panel]) -> dict[str, dict[str, Any]]:
    """Colour and hatch of every method, no two alike; the paper's are grey."""
    methods = dict.fromkeys(bar.method for panel in panels for bar in panel.bars)
    found = {name: _style(colour) for name, colour in _PAPER_COLOURS.items() if name in methods}
    for number, method in enumerate(method for method in methods if method not in found):
        turn = number // len(_OURS)  # every colour plain first, then hatched, then more densely hatched
        hatch = _HATCHES[(turn - 1) % len(_HATCHES)] * (2 + (turn - 1) // len(_HATCHES)) if turn else None
        found[method] = _style(_OURS[number % len(_OURS)], hatch)
    return found


def _style(colour: str, hatch: str | None = None) -> dict[str, Any]:
    return {"facecolor": colour, "hatch": hatch}


def _short_names(methods: Sequence[str]) -> tuple[dict[str, str], str]:
    """Names without the parts that all of them share, and these parts; short names, and a single one, stay whole."""
    if len(methods) < 2 or max(map(len, methods)) <= _SHORT:
        return {}, ""
    parts = {method: re.split(r", (?![^\[]*\])", method) for method in methods}
    bare = [[part.removesuffix(")") for part in each] for each in parts.values()]
    shared = [part for part in bare[0][1:] if all(part in each[1:] for each in bare)]
    names = {}
    for method, (first, *rest) in parts.items():
        kept = [first]
        for part in rest:
            if part.removesuffix(")") not in shared:
                kept.append(part)
            elif part.endswith(")"):
                kept[-1] += ")"  # that of a parenthesis around base and arguments
        names[method] = ", ".join(kept)
    return (names, ", ".join(shared)) if len(set(names.values())) == len(names) else ({}, "")


def _draw(axes: Axes, panel: Panel, styles: Mapping[str, Mapping[str, Any]], evaluation: str) -> None:
    """Bars of a stream beside each other, in the order of the legend."""
    streams = sorted({bar.stream for bar in panel.bars}, key=_order)
    order = list(styles)
    place, ticks = 0.0, []
    for stream in streams:
        bars = sorted((bar for bar in panel.bars if bar.stream == stream), key=lambda bar: order.index(bar.method))
        ticks.append(place + (len(bars) - 1) / 2)
        for bar in bars:
            axes.bar(place, bar.accuracy, 0.86, **styles[bar.method], edgecolor="black", linewidth=0.5)
            top = bar.accuracy + (bar.deviation or 0.0)
            if bar.deviation is not None:
                axes.errorbar(place, bar.accuracy, bar.deviation, color="black", capsize=3, linewidth=1)
                colour = styles[bar.method]["facecolor"]
                ink = "black" if np.dot(to_rgb(colour), (0.3, 0.59, 0.11)) > 0.5 else "white"
                axes.text(
                    place, 3, f"n={bar.runs}", ha="center", va="bottom", fontsize=7.5, color=ink, rotation=90,
                    bbox={"facecolor": colour, "linewidth": 0, "pad": 1.5},
                )  # fmt: skip
            told = f"{bar.accuracy:.1f}"
            axes.annotate(told, (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=8)
            place += 1
        place += 0.7
    axes.set_xticks(ticks, ["fused,\nall three" if stream == FUSED else stream for stream in streams])
    axes.set_xlim(-0.8, place - 0.9)
    axes.set_ylim(0, 109)
    axes.set_yticks(np.arange(0, 101, 20))
    axes.set_ylabel({"linear": "linear evaluation, top-1 (%)", "knn": "1-NN, top-1 (%)"}[evaluation])
    axes.set_title(panel.title, fontsize=11, parse_math=False)
    open_frame(axes)


def _order(stream: str) -> tuple[int, str]:
    known = [*STREAMS, FUSED]
    return (known.index(stream), stream) if stream in known else (2 + stream.count("+"), stream)

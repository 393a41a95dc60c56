"""`prosl inspect`: what an archive or raw files hold, and what is wrong with them."""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prosl_lightning.commands.parsing import run_function
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.archive_writer import META
from prosl_lightning.data.conversion import show_progress
from prosl_lightning.data.inspection import Inspection, inspect_archive, inspect_source
from prosl_lightning.data.inspection_summary import summarize
from prosl_lightning.errors import UsageError
from prosl_lightning.tables import counted, table

_WORST = 2
_LISTED = 6
_BAR = 40


def inspect(
    path: str,
    *,
    format: str | None = None,
    layout: str | None = None,
    verify: bool = False,
    json: bool = False,
    sheet: str | None = None,
) -> None:
    """Tell what an archive, or raw files of any format, hold: counts, splits, faults; nothing is changed.

    Faults are told, not mended. Joints that stick or jump and bones that stretch are judged by the size of the body:
    a jump is an abrupt step of more than 0.35 of it (16 cm for a standing person), a stuck joint rests in 20 frames
    or more in which half of the joints move, a drifting bone varies by more than 25 % around its median, and by more
    than is usual of it in these data. Last come the sequences with far more faults than the others.

    Args:
        path: An archive, or raw files as `prosl prepare` takes them.
        format: Format of raw files, where it is not recognised.
        layout: Body model of raw files, where the format does not say it: a packaged name or a YAML file.
        verify: Compare every byte of an archive with its checksums.
        json: Print everything as JSON instead of the table.
        sheet: PNG file to draw: a strip of skeletons for each class.

    Raises:
        DataError: There is nothing to read, or the archive is damaged.
        UsageError: An option does not fit.
    """
    inspection = _inspect(Path(path), format, layout, verify)
    summary = summarize(inspection)
    print(json_text.dumps(summary, indent=1, allow_nan=False) if json else describe(summary), flush=True)
    if sheet is not None:
        from prosl_lightning.figures.sheet import write_sheet

        write_sheet(inspection, sheet)
        if not json:
            print(f"drawn: {sheet}")


def _inspect(path: Path, format: str | None, layout: str | None, verify: bool) -> Inspection:
    if (path / META).is_file():
        if format is not None or layout is not None:
            raise UsageError(f"{path} is an archive, which knows its layout: leave out --format and --layout")
        return inspect_archive(Archive.open(path), verify)
    if verify:
        raise UsageError(f"{path} is not an archive, and raw files have no checksums: leave out --verify")
    from prosl_lightning.data.formats import open_source

    source = open_source(path, format=format, layout=layout)
    return inspect_source(source, show_progress(source, len(source), "read"))


def describe(summary: dict[str, Any]) -> str:
    """The text for the screen: the worst by name, the rest by number."""
    parts = [_heading(summary), _groups(summary), _protocols(summary), _lengths(summary), _faults(summary)]
    parts += [_worst_joints(summary), _worst_bones(summary), _unusual(summary)]
    return "\n\n".join(filter(None, parts))


def _heading(summary: dict[str, Any]) -> str:
    made = summary["made"]
    size = f", {made['bytes'] / 1e6:.1f} MB {made['dtype']}" if made else ""
    kind = "archive" if summary["kind"] == "archive" else f"raw files, format {summary['format']}"
    lines = [
        f"{summary['path']}: {kind}",
        f"{counted(summary['sequences'], 'sequence')}, {counted(summary['frames'], 'frame')}{size}; "
        f"layout {summary['layout']} ({summary['joints']} joints, {summary['unit']}), bodies {summary['bodies']}",
    ]
    if made:
        recipe = dict(made["recipe"] or {})
        texts = recipe.pop("column_names", {})
        told = {key: _shortened(list(value)) if isinstance(value, dict) else value for key, value in recipe.items()}
        lines.append(f"made by {made['written_by']} from {made['source'] or 'an unnamed source'}; {_pairs(told)}")
        lines.append(f"sources: {_pairs(made['counts'] or {}) or 'not recorded'}")
        lines.append(
            "checked: every byte" if summary["verified"] else "checked: version, sizes, index (not the frames)"
        )
        for column, values in texts.items():
            lines.append(f"column {column}: {_shortened([f'{value} = {code}' for code, value in enumerate(values)])}")
    lines += [f"left out, {reason}: {number}" for reason, number in summary["left_out"].items() if number]
    if summary["bad"]:
        lines.append(f"could not be read: {len(summary['bad'])}")
        lines += [f"  {item['source']}: {item['reason']}" for item in summary["bad"][:_LISTED]]
    if summary["size_warning"]:
        lines.append(f"warning: {summary['size_warning']}")
    return "\n".join(lines + summary["notes"])


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _groups(summary: dict[str, Any]) -> str:
    """One line for the classes and one for each index column: how many, and how evenly sequences are spread."""
    classes = summary["classes"]
    named = {item["name"]: item["sequences"] for item in classes["sequences"]}
    rows = [_group("class", {name: number for name, number in named.items() if number})] if named else []
    for column, values in summary["columns"].items():
        if values["sequences"] is None:
            rows.append([column, values["values"], f"{values['min']} to {values['max']}", "", ""])
        else:
            rows.append(_group(column, values["sequences"]))
    lines = [table(["", "values", "fewest sequences", "most", "most / fewest"], rows)] if rows else []
    if classes["unlabelled"]:
        lines.append(f"without a label: {counted(classes['unlabelled'], 'sequence')}")
    empty = [name for name, number in named.items() if number == 0]
    if empty:
        lines.append(f"classes without a sequence: {_shortened(empty)}")
    return "\n".join(lines)


def _group(title: str, counts: dict[str, int]) -> list[object]:
    fewest, most = min(counts, key=lambda key: counts[key]), max(counts, key=lambda key: counts[key])
    ratio = f"{counts[most] / counts[fewest]:.1f}"
    return [title, len(counts), f"{counts[fewest]} ({fewest})", f"{counts[most]} ({most})", ratio]


def _protocols(summary: dict[str, Any]) -> str:
    rows, remarks = [], []
    for name, split in summary["protocols"].items():
        official = "{:,} / {:,}".format(*split["official"]) if split["official"] else ""
        rows.append([name, split["train"], split["test"], split["neither"], official])
        if split["both"]:
            remarks.append(f"{name}: in both train and test: {counted(split['both'], 'sequence')}")
        if split["tested_but_not_trained"]:
            remarks.append(f"{name}: tested but not trained: {_shortened(split['tested_but_not_trained'])}")
    header = ["protocol", "train", "test", "neither", "official"]
    keep = 5 if any(row[4] for row in rows) else 4
    text = table(header[:keep], [row[:keep] for row in rows]) if rows else "no protocol: every sequence trains (all)"
    return "\n".join([text, *remarks])


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _lengths(summary: dict[str, Any]) -> str:
    lengths = summary["lengths"]
    highest = max(item["sequences"] for item in lengths["histogram"])
    rows = [
        [f"{item['from']} to {item['to']}", item["sequences"], "#" * -(-_BAR * item["sequences"] // highest)]
        for item in lengths["histogram"]
    ]
    text = f"frames a sequence: {lengths['min']} to {lengths['max']}, median {lengths['median']:g}"
    return f"{text}, mean {lengths['mean']:.1f}\n{table(['frames', 'sequences', ''], rows)}"


def _faults(summary: dict[str, Any]) -> str:
    rows = []
    for name, fault in summary["faults"].items():
        worst = ", ".join(f"{item['name']} ({item['count']})" for item in fault["found"][:_WORST])
        rows.append(
            [name.replace("_", " "), fault["count"], fault["sequences"], 100 * fault["share_of_sequences"], worst]
        )
    text = table(["fault", "count", "sequences", "% of them", "worst"], rows)
    absent = [
        f"body {number}: absent from {100 * place['absent_share']:.1f} % of the frames, never there in "
        f"{counted(place['never_there'], 'sequence')}"
        for number, place in enumerate(summary["positions"], start=1)
        if place["absent_frames"]
    ]
    return "\n".join([text, *absent])


def _worst_joints(summary: dict[str, Any]) -> str:
    kinds = ("missing_frames", "stuck", "jumps")
    joints = sorted(summary["joint_faults"], key=lambda item: -sum(item[kind] for kind in kinds))
    rows = [[item["joint"], *(item[kind] for kind in kinds)] for item in joints if any(item[kind] for kind in kinds)]
    return table(["joints with most faults", "missing frames", "stuck", "jumps"], rows[:_LISTED]) if rows else ""


def _worst_bones(summary: dict[str, Any]) -> str:
    bones = [item for item in summary["bone_drift"] if item["drifting_sequences"]]
    bones.sort(key=lambda item: -item["drifting_sequences"])
    rows = [
        [item["bone"], 100 * item["median"], 100 * item["largest"], item["drifting_sequences"]]
        for item in bones[:_LISTED]
    ]
    return table(["bones that drift most", "median ± %", "largest ± %", "drifting in sequences"], rows) if rows else ""


def _unusual(summary: dict[str, Any]) -> str:
    rows = [
        [item["name"], item["severity"], item["most"], 100 * item["rate"], 100 * item["usual"]]
        for item in summary["unusual"][:_LISTED]
    ]
    header = ["sequences with most faults", "deviations", "most of all", "rate %", "usual %"]
    return table(header, rows) if rows else ""


def main(arguments: Sequence[str]) -> None:
    """Run `prosl inspect`."""
    run_function(inspect, arguments, "inspect")

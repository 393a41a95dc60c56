"""`prosl table`: collected results beside the paper's own tables."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prosl_lightning.commands.user_files import run_with_list
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.ablation import BASE_LABEL, Ablation, ablations, studies
from prosl_lightning.evaluation.ablation_table import markdown_table, study_csv, study_text
from prosl_lightning.evaluation.naming import Row
from prosl_lightning.evaluation.paper import OTHERS, Comparison, Line, ablation_tables, compare, paper_tables
from prosl_lightning.evaluation.report import RESULTS, read_results
from prosl_lightning.tables import table

_DEFAULT = "runs"


def show(*, arguments: Sequence[str] = (), style: Literal["text", "markdown", "csv"] = "text") -> None:
    """Your results beside the paper's tables: prosl table WHICH [FOLDERS or results.json files].

    1 is linear evaluation, 2 semi-supervised, 3 nearest neighbour, 4 transfer. The ablations are 5 or modules, 6 or
    backbone, clusters (Figure 4a), start (Figure 4b) and readings, as `prosl sweep` calls them. Folders are searched
    for `results.json`; without any it is `runs`. Results on other data sets are listed below tables 1 to 4; ablations
    are compared within each data set.

    Args:
        arguments: Which table, and where the results are.
        style: text for the screen, markdown, or csv (of the table alone).
    """
    which, *places = arguments or ["nothing"]
    known = dict(ablations())
    known |= {str(ablation.table): ablation for ablation in ablations().values() if ablation.table}
    if which in known:
        print(_ablation(known[which], collect_results(places), style))
    elif which in map(str, paper_tables()):
        comparison = compare(paper_tables()[int(which)], collect_results(places))
        print({"text": _text, "markdown": _markdown, "csv": _csv}[style](comparison))
    else:
        named = ", ".join(f"{each.table} or {name}" if each.table else name for name, each in ablations().items())
        raise UsageError(f"the tables are 1, 2, 3, 4, {named}; found {which}: prosl table 1 [FOLDERS]")


def _ablation(ablation: Ablation, rows: Sequence[Row], style: str) -> str:
    """Studies one after another; what the paper prints where there is none."""
    found = studies(rows, ablation)
    if style == "csv":
        return study_csv(ablation, found).rstrip("\n")
    if found:
        return "\n\n".join(study_text(study, markdown=style == "markdown") for study in found)
    if rows:
        print("no two arms among the results that may be compared: train them by `prosl sweep`", file=sys.stderr)
    if not ablation.table:
        return ablation.note
    printed = ablation_tables()[ablation.table]
    lines = [
        [line.method or BASE_LABEL, *(f"{value:.1f}" for value in line.values)] for line in printed.rows
    ]  # no dashes there
    cells = ["paper", *(column.label for column in printed.columns)], lines
    title = f"Table {printed.number}. {printed.title}, top-1 accuracy in percent"
    return f"**{title}**\n\n{markdown_table(*cells)}" if style == "markdown" else f"{title}\n\n{table(*cells)}"


def collect_results(places: Sequence[str]) -> list[Row]:
    """Rows of all results files, oldest first; a file found in a folder that is no list of results is passed over."""
    rows: list[Row] = []
    for place in places or [_DEFAULT]:
        path = Path(place)
        if path.is_file():
            rows += read_results(path)
        elif path.is_dir():
            for file in sorted(path.rglob(RESULTS)):
                try:
                    rows += read_results(file)
                except DataError as error:
                    print(f"warning: passed over: {error}", file=sys.stderr)
        elif places:
            raise DataError(f"there is no file or folder {place}")
    if not rows:
        found = ", ".join(places or [_DEFAULT])
        print(f"no results in {found}: evaluations write {RESULTS} beside the checkpoint", file=sys.stderr)
    return sorted(rows, key=lambda row: row["date"])


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    paper = comparison.table
    encoders = any(line.encoder for line in paper.rows)
    header = ["method", "source", *(["encoder"] if encoders else []), *(column.label for column in paper.columns)]

    def cells(line: Line) -> list[str]:
        values = [f"{v:.1f}" if isinstance(v, float) else v or "-" for v in line.values]
        return [line.method, line.cite, *([line.encoder] if encoders else []), *values]

    return header, [cells(line) for line in (*paper.rows, *comparison.ours)]


def _title(comparison: Comparison) -> str:
    return f"Table {comparison.table.number}. {comparison.table.title}, top-1 accuracy in percent"


def _remarks(comparison: Comparison) -> list[str]:
    remarks = [comparison.table.note, *comparison.notes]
    if comparison.unrelated:
        remarks.append(f"results of other evaluations, not shown here: {comparison.unrelated}")
    return remarks


def _text(comparison: Comparison) -> str:
    parts = [_title(comparison), table(*_cells(comparison)), "\n".join(_remarks(comparison))]
    if comparison.others:
        parts += ["Other results", table(OTHERS, comparison.others)]
    return "\n\n".join(parts)


def _markdown(comparison: Comparison) -> str:
    remarks = "\n".join(f"- {remark}".replace("*", "\\*") for remark in _remarks(comparison))
    parts = [f"**{_title(comparison)}**", markdown_table(*_cells(comparison)), remarks]
    if comparison.others:
        parts += ["**Other results**", markdown_table(OTHERS, comparison.others)]
    return "\n\n".join(parts)


def _csv(comparison: Comparison) -> str:
    header, rows = _cells(comparison)
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    if comparison.others:
        print(f"{len(comparison.others)} other results are not in the CSV; --style text lists them", file=sys.stderr)
    return buffer.getvalue().rstrip("\n")


def main(arguments: Sequence[str]) -> None:
    """Run `prosl table`."""
    run_with_list(show, arguments, "table", "arguments", "which table, then folders or results.json files")

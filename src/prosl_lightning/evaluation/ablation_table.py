"""Studies as text, Markdown and CSV, with the paper's figures beside ours."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterator, Sequence

from prosl_lightning.evaluation.ablation import (
    BASE_LABEL,
    FEWEST,
    OWN_WARM_UP,
    Ablation,
    Estimate,
    Study,
    StudyArm,
    paired,
)
from prosl_lightning.evaluation.paper import ablation_tables
from prosl_lightning.tables import table

CSV_HEADER = [
    "ablation", "data", "model", "arm", "measure", "seeds", "mean", "deviation",
    "compared with", "pairs", "difference", "low", "high",
]  # fmt: skip
_TO = {"base": "to base", "prosl": "to configured"}


def study_text(study: Study, *, markdown: bool = False) -> str:
    """A study's title, table and remarks.

    Args:
        study: One of :func:`studies`.
        markdown: For a document instead of the screen.
    """
    header, rows = _cells(study)
    remarks = [study.ablation.note]
    if any(len(arm.seeds) > 1 for arm in study.arms):
        remarks.append(
            "mean ± deviation over seeds; differences are paired by seed, [95 % interval, Student's t]; "
            f"no interval for fewer than {FEWEST} seeds or where all differences are equal"
        )
    else:
        remarks.append("one seed: differences of a point or two mean nothing")
    if any(arm.own_warm_up for arm in study.arms):
        remarks.append(" ".join(OWN_WARM_UP))
    if not markdown:
        return "\n\n".join([title(study), table(header, rows), "\n".join(remarks)])
    return "\n\n".join([f"**{title(study)}**", markdown_table(header, rows), "\n".join(f"- {r}" for r in remarks)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A table for a document.

    Example:
        >>> print(markdown_table(["method", "%"], [["HiCo*", "81.6"]]))
        | method | % |
        | --- | --- |
        | HiCo\* | 81.6 |
    """
    lines = [header, ["---"] * len(header), *rows]
    cells = ([cell.replace("|", "\\|").replace("*", "\\*") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def title(study: Study) -> str:
    """What a study shows: of the paper, on which data, with which model."""
    place = f"Table {study.ablation.table}. " if study.ablation.table else ""
    return f"{place}{study.ablation.title}: {study.data}, {study.model}; top-1 accuracy in percent"


def _cells(study: Study) -> tuple[list[str], list[list[str]]]:
    number = study.ablation.table
    printed = [f"paper, {column.label}" for column in ablation_tables()[number].columns] if number else []
    header = ["arm", "seeds"]
    for measure in study.measures:
        header += [measure, *(_TO[name] for name in study.ablation.against)]
    rows = []
    for arm in study.arms:
        cells = [arm.marked, str(len(arm.seeds))]
        for measure in study.measures:
            cells.append(_accuracy(list(arm.scores.get(measure, {}).values())))
            cells += [signed(paired(arm, study.arm(name), measure)) for name in study.ablation.against]
        figures = [f"{value:.1f}" for value in arm.printed] or [""] * len(printed)
        rows.append([*cells, *figures])
    return [*header, *printed], rows


def _accuracy(values: Sequence[float]) -> str:
    if len(values) > 1:
        return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"
    return f"{values[0]:.1f}" if values else "-"


def signed(difference: Estimate | None) -> str:
    """A difference in points with its interval, as text.

    Example:
        >>> from prosl_lightning.evaluation.ablation import estimate
        >>> signed(estimate([1.0, 2.0, 3.0])), signed(estimate([-1.0])), signed(None)
        ('+2.0 [-0.5, +4.5]', '-1.0', '')
    """
    if difference is None:
        return ""
    if math.isnan(difference.low):
        return f"{difference.mean:+.1f}"
    return f"{difference.mean:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]"


def study_csv(ablation: Ablation, found: Sequence[Study]) -> str:
    """Studies as numbers: a line for every arm, measure and arm it is compared with; the paper's figures come first.

    Args:
        ablation: Which one.
        found: Its studies.
    """
    buffer = io.StringIO()
    lines: list[list[object]] = []
    for line, column, value in printed_figures(ablation):
        lines.append([ablation.name, f"paper, Table {ablation.table}", "", line, column, "", value])
    for study in found:
        for arm in study.arms:
            for measure in study.measures:
                lines += _csv_lines(study, arm, measure)
    width = len(CSV_HEADER)
    filled = ([*line, *[""] * (width - len(line))] for line in lines)
    csv.writer(buffer, lineterminator="\n").writerows([CSV_HEADER, *filled])
    return buffer.getvalue()


def printed_figures(ablation: Ablation) -> Iterator[tuple[str, str, float]]:
    """What the paper prints for an ablation: line, column, percent; nothing where it has no table."""
    if ablation.table:
        printed = ablation_tables()[ablation.table]
        for line in printed.rows:
            for column, value in zip(printed.columns, line.values, strict=True):
                yield line.method or BASE_LABEL, column.label, float(value or math.nan)


def _csv_lines(study: Study, arm: StudyArm, measure: str) -> Iterator[list[object]]:
    values = list(arm.scores.get(measure, {}).values())
    if not values:
        return
    front = [study.ablation.name, study.data, study.model, arm.name, measure, len(values)]
    front += _numbers(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)
    differences = ((name, paired(arm, study.arm(name), measure)) for name in study.ablation.against)
    known = [(name, found) for name, found in differences if found is not None]
    for name, found in known:
        yield [*front, name, len(found.values), *_numbers(*found[:3])]
    if not known:
        yield front


def _numbers(*values: float) -> list[str]:
    return ["" if math.isnan(value) else f"{value:.4f}" for value in values]

"""Figures of an ablation: accuracy against the varied quantity, or the difference of every arm to another one."""

from __future__ import annotations

import math
import statistics
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prosl_lightning.evaluation.ablation import BASE, FEWEST, OWN_WARM_UP, Estimate, Study, StudyArm, paired
from prosl_lightning.evaluation.ablation_table import signed
from prosl_lightning.figures.style import BLUE, GREY, ORANGE, open_frame, remark

_JITTER = 0.14  # of a seed's dot, in parts of the distance between two arms
_SQUEEZE = 3  # times the median row: what is wider than that leaves the axis
_LEAST = 2.0  # points that an axis of accuracies spans at least, so that noise does not look like much


def study_figure(study: Study) -> Figure:
    """An ablation's figure, one column a measure.

    Where the varied option is a quantity: accuracy against it, mean and deviation over seeds, with the base method as a
    band; below it the differences to the base method, paired by seed. Else the differences to the last arm that the
    ablation compares with, paired too. Intervals are of 95 %.

    Args:
        study: One of :func:`prosl_lightning.evaluation.ablation.studies`.
    """
    count = len(study.measures)
    curve = bool(study.ablation.axis)
    rows = 2 if curve and study.arm(BASE) is not None else 1
    height = 1.1 + 2.8 * rows if curve else 1.7 + 0.42 * len(study.arms)
    width = 4.6 * count + (0.6 if curve else 1.7)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, count, squeeze=False, sharey="none" if curve else "row", sharex=True)
    for column, measure in enumerate(study.measures):
        upper, lower = panels[0][column], panels[-1][column]
        (_curve if curve else _dots)(upper, study, measure)
        if lower is not upper:
            _differences(lower, study, measure)
        if curve:
            lower.set_xlabel(study.ablation.axis)
        upper.set_title(measure, fontsize=11, parse_math=False)
    for axes in panels.flat:
        open_frame(axes)
    heading = f"{study.ablation.title}: {study.data}, {study.model}"
    figure.suptitle(textwrap.fill(heading, round(11 * width)), fontsize=11, parse_math=False)
    remark(figure, _remark(study, curve))
    return figure


def _remark(study: Study, curve: bool) -> str:
    most = max(len(arm.seeds) for arm in study.arms)
    told = ["base: the base method alone"] if curve else []
    if most < 2:
        told.insert(0, "one seed: no error bars")
    elif curve:
        told.insert(0, f"above: mean and standard deviation over {most} seeds (small dots)")
        told.append("below, which decides: differences paired by seed, mean and 95 % interval, Student's t")
    else:
        told = [f"small dots: {most} seeds; bars: mean and 95 % interval of the differences, Student's t"]
    if 1 < most < FEWEST:
        told.append(f"no interval for fewer than {FEWEST} seeds")
    if any(arm.own_warm_up for arm in study.arms):
        told.append(" ".join(OWN_WARM_UP))
    return "; ".join(told)


def _mean_deviation(arm: StudyArm, measure: str) -> tuple[float, float]:
    values = list(arm.scores[measure].values())
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _curve(axes: Axes, study: Study, measure: str) -> None:
    """Accuracy against the varied quantity."""
    base = study.arm(BASE)
    if base is not None and measure in base.scores:
        mean, deviation = _mean_deviation(base, measure)
        axes.axhspan(mean - deviation, mean + deviation, color=GREY, alpha=0.3, linewidth=0)
        axes.axhline(mean, color="0.35", linestyle="--", linewidth=1.2)
        axes.text(1.01, mean, "base", color="0.35", fontsize=9, va="center", transform=axes.get_yaxis_transform())
    arms = [arm for arm in study.arms if arm.value is not None and measure in arm.scores]
    places = [float(arm.value or 0.0) for arm in arms]
    means, deviations = zip(*(_mean_deviation(arm, measure) for arm in arms), strict=True) if arms else ((), ())
    axes.errorbar(
        places, means, yerr=deviations if any(deviations) else None, fmt="o-", color=BLUE, capsize=3.5, markersize=6,
        linewidth=1.4,
    )  # fmt: skip
    beside = 0.015 * (max(places, default=0.0) - min(places, default=0.0))
    for arm, place in zip(arms, places, strict=True):
        if len(arm.scores[measure]) > 1:
            scores = list(arm.scores[measure].values())
            axes.plot([place + beside] * len(scores), scores, ".", color=BLUE, alpha=0.5, markersize=5, zorder=1)
    axes.set_ylabel("top-1 accuracy of ProSL (%)")
    _scale(axes, places)


def _scale(axes: Axes, places: list[float]) -> None:
    """Ticks at the arms, and no less height than `_LEAST` points."""
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.margins(x=0.08)
    low, high = axes.get_ylim()
    missing = max(0.0, _LEAST - (high - low)) / 2
    axes.set_ylim(low - missing, high + missing)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _differences(axes: Axes, study: Study, measure: str) -> None:
    """Paired differences to the base method against the varied quantity."""
    base = study.arm(BASE)
    found = {arm.value: paired(arm, base, measure) for arm in study.arms if arm.value is not None}
    known = {place: each for place, each in found.items() if each is not None}
    places = list(known)
    axes.axhline(0, color="0.35", linestyle="--", linewidth=1.2)
    axes.text(1.01, 0, "base", color="0.35", fontsize=9, va="center", transform=axes.get_yaxis_transform())
    beside = 0.015 * (max(places, default=0.0) - min(places, default=0.0))
    for place, each in known.items():
        half = None if math.isnan(each.low) else [[each.mean - each.low], [each.high - each.mean]]
        axes.errorbar([place], [each.mean], yerr=half, fmt="o", color=BLUE, capsize=3.5, markersize=6)
        if len(each.values) > 1:
            axes.plot(
                [place + beside] * len(each.values), each.values, ".", color=BLUE, alpha=0.5, markersize=5, zorder=1
            )
    axes.set_ylabel("difference to base (points)")
    _scale(axes, places)


def _dots(axes: Axes, study: Study, measure: str) -> None:
    """Paired differences, one line an arm."""
    reference = study.ablation.against[-1]
    arms = [arm for arm in study.arms if arm.name != reference]
    low, high = _reach(study, reference)
    axes.axvline(0, color="0.35", linestyle="--", linewidth=1.2)
    for place, arm in enumerate(arms):
        found = paired(arm, study.arm(reference), measure)
        if found is None:
            continue
        colour = ORANGE if arm.name == BASE else BLUE
        if len(found.values) > 1:
            offsets = [place + _JITTER * (2 * i / (len(found.values) - 1) - 1) for i in range(len(found.values))]
            axes.plot(found.values, offsets, ".", color=colour, alpha=0.45, markersize=6, zorder=1)
        half = None if math.isnan(found.low) else [[found.mean - found.low], [found.high - found.mean]]
        axes.errorbar([found.mean], [place], xerr=half, fmt="o", color=colour, capsize=3.5, markersize=6.5)
        _beyond(axes, found, place, (low, high), colour)
    axes.set_yticks(range(len(arms)), [arm.marked for arm in arms])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    other = next((arm.label for arm in study.arms if arm.name == reference), reference)
    axes.set_xlabel(f"difference to {'ProSL as configured' if reference != BASE else other} (points)", parse_math=False)
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def _beyond(axes: Axes, found: Estimate, place: float, reach: tuple[float, float], colour: str) -> None:
    """Where a row leaves the axis: an arrow on that side, and its numbers."""
    ends = _ends(found)
    inside = 0.01 * (reach[1] - reach[0])
    sides = [(reach[0] + inside, "<", min(ends) < reach[0]), (reach[1] - inside, ">", max(ends) > reach[1])]
    for at, arrow, leaves in sides:
        if leaves:
            axes.plot([at], [place], marker=arrow, color=colour, markersize=7, linestyle="none")
    if any(leaves for *_, leaves in sides):
        right = found.mean > sum(reach) / 2
        axes.text(
            0.97 if right else 0.03, place - 0.34, signed(found), transform=axes.get_yaxis_transform(), fontsize=7.5,
            color=colour, ha="right" if right else "left", va="center",
        )  # fmt: skip


def _ends(found: Estimate) -> list[float]:
    return [end for end in (found.low, found.high, *found.values) if not math.isnan(end)]


def _reach(study: Study, reference: str) -> tuple[float, float]:
    """Ends of an axis that holds the differences of all measures, but for rows that would squeeze all others."""
    rows = [
        found
        for arm in study.arms
        for measure in study.measures
        if (found := paired(arm, study.arm(reference), measure)) is not None
    ]
    widths = [max(map(abs, _ends(found))) for found in rows if not math.isnan(found.low)]  # without one rows are points
    most = max(_LEAST / 2, _SQUEEZE * statistics.median(widths)) if len(widths) > 2 else math.inf
    ends = [-_LEAST / 2, _LEAST / 2]
    ends += [max(-most, min(most, end)) for found in rows for end in _ends(found)]
    margin = 0.05 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin

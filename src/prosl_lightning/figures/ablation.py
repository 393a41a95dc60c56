"""Figures of an ablation: accuracy against the varied quantity, or the difference of every arm to another one."""

from __future__ import annotations

import math
import statistics
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prosl_lightning.evaluation.ablation import BASE, Study, StudyArm, paired
from prosl_lightning.figures.style import BLUE, GREY, ORANGE, open_frame, remark

_JITTER = 0.14  # of a seed's dot, in parts of the distance between two arms
_LEAST = 2.0  # points that an axis of accuracies spans at least, so that noise does not look like much


def study_figure(study: Study) -> Figure:
    """An ablation's figure, one panel a measure.

    Where the varied option is a quantity: accuracy against it, mean and deviation over seeds, with the base method as a
    band. Else the differences to the last arm that the ablation compares with, paired by seed.

    Args:
        study: One of :func:`prosl_lightning.evaluation.ablation.studies`.
    """
    count = len(study.measures)
    curve = bool(study.ablation.axis)
    height = 3.9 if curve else 1.7 + 0.42 * len(study.arms)
    width = 4.6 * count + (0.6 if curve else 1.7)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False, sharey=not curve, sharex=True)[0]
    for axes, measure in zip(panels, study.measures, strict=True):
        (_curve if curve else _dots)(axes, study, measure)
        axes.set_title(measure, fontsize=11, parse_math=False)
        open_frame(axes)
    heading = f"{study.ablation.title}: {study.data}, {study.model}"
    figure.suptitle(textwrap.fill(heading, round(11 * width)), fontsize=11, parse_math=False)
    remark(figure, _remark(study, curve))
    return figure


def _remark(study: Study, curve: bool) -> str:
    most = max(len(arm.seeds) for arm in study.arms)
    if most < 2:
        return "one seed: no error bars" + ("; base: the base method alone" if curve else "")
    if curve:
        return f"mean and standard deviation over {most} seeds (small dots); base: the base method alone"
    return f"small dots: {most} seeds; bars: mean and 95 % interval of the differences, Student's t"


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
    axes.set_xlabel(study.ablation.axis)
    axes.set_ylabel("top-1 accuracy of ProSL (%)")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.margins(x=0.08)
    low, high = axes.get_ylim()
    missing = max(0.0, _LEAST - (high - low)) / 2
    axes.set_ylim(low - missing, high + missing)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _dots(axes: Axes, study: Study, measure: str) -> None:
    """Paired differences, one line an arm."""
    reference = study.ablation.against[-1]
    arms = [arm for arm in study.arms if arm.name != reference]
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
    axes.set_yticks(range(len(arms)), [arm.label for arm in arms])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlim(*_reach(study, reference))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    other = next((arm.label for arm in study.arms if arm.name == reference), reference)
    axes.set_xlabel(f"difference to {'ProSL as configured' if reference != BASE else other} (points)", parse_math=False)
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def _reach(study: Study, reference: str) -> tuple[float, float]:
    """Ends of an axis that holds the differences of all measures."""
    ends = [-_LEAST / 2, _LEAST / 2]
    for arm in study.arms:
        for measure in study.measures:
            found = paired(arm, study.arm(reference), measure)
            ends += [end for end in (found.low, found.high, *found.values) if not math.isnan(end)] if found else []
    margin = 0.05 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin

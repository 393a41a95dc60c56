"""Training curves from a run's CSV log: losses, accuracies and the codebook over the epochs, stages marked."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from prosl_lightning.errors import DataError
from prosl_lightning.figures.style import PALETTE, heading, open_frame, remark

Array = NDArray[np.float64]

_FILE = "metrics.csv"
# Panels from top to bottom: title, unit, factor, names or the beginning of names; what is left over are contrast terms.
_SHARES = ("confident_share_query", "confident_share_branch", "excluded_share")
_PANELS: tuple[tuple[str, str, float, tuple[str, ...]], ...] = (
    ("Total loss", "nats", 1, ("epoch/loss", "epoch/contrast")),
    ("Contrast terms", "nats", 1, ()),
    ("Semantic and KL terms", "nats", 1, ("epoch/semantic_query", "epoch/semantic_branch", "epoch/kl")),
    ("Samples and negatives", "percent", 100, tuple(f"epoch/{name}" for name in _SHARES)),
    ("Accuracy during training", "percent", 1, ("online/",)),
    ("Codebook", "percent", 100, ("codebook/churn", "codebook/nmi", "codebook/ari", "codebook/pair_precision")),
    ("Cluster sizes", "sequences", 1, ("codebook/size_max", "codebook/size_median", "codebook/size_min")),
    ("Mean cosine between features (near 1: collapse)", "cosine", 1, (
        "epoch/mean_cosine", "codebook/mean_cosine", "codebook/own_centroid_cosine",
    )),
)  # fmt: skip
_WORDS = {
    "loss": "total", "contrast": "sum of contrast terms", "kl": "KL", "semantic_query": "semantic, query branch",
    "semantic_branch": "semantic, semantic branch", "confident_share_query": "confident, query branch",
    "confident_share_branch": "confident, semantic branch", "excluded_share": "negatives excluded", "knn": "1-NN",
    "nmi": "NMI", "ari": "ARI", "size_max": "largest", "size_median": "median", "size_min": "smallest",
    "pair_precision": "pairs of one class", "own_centroid_cosine": "to the own centroid",
}  # fmt: skip
_LINES: tuple[tuple[Any, str], ...] = (
    ("-", "o"), ((0, (4, 2)), "s"), ("-.", "^"), (":", "D"), ((0, (9, 5)), "v"),
)  # fmt: skip
_RESUMED: dict[str, Any] = {
    "color": "#E69F00",
    "alpha": 0.5,
    "linewidth": 4,
}  # broad and pale: seen behind a drop of the learning rate
_NO_PANEL = {"epoch/samples_per_second"}


@dataclass
class Curves:
    """Metrics of a run over its epochs.

    Attributes:
        metrics: Name -> number of epochs trained and value, ascending.
        semantic_from: Epochs trained when the semantic stage began; None where it did not.
        rate_drops: Epochs trained when the learning rate changed -> the new one.
        joined: Epochs trained where a resumed run went on.
        files: The logs that were read, in order.
    """

    metrics: dict[str, tuple[Array, Array]]
    semantic_from: int | None = None
    rate_drops: dict[int, float] = field(default_factory=dict)
    joined: list[int] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


@dataclass
class _Log:
    """One file: values by metric and epoch (0-based), and the learning rate at the first logged step of an epoch."""

    values: dict[str, dict[int, float]]
    rates: dict[int, float]

    @property
    def first(self) -> int:
        return min((epoch for found in self.values.values() for epoch in found), default=-1)


def find_logs(run: str | Path) -> list[Path]:
    """The CSV logs of a run's folder, oldest version first; `run` may also be a log folder or a log itself.

    Raises:
        DataError: There is none.
    """
    path = Path(run)
    if path.is_file():
        return [path]
    for pattern in (_FILE, f"version_*/{_FILE}", f"logs/version_*/{_FILE}", f"logs/{_FILE}"):
        if found := list(path.glob(pattern)):
            return sorted(found, key=_version)
    what = "holds no" if path.is_dir() else "does not exist; a run's folder holds a"
    raise DataError(f"{run} {what} CSV log (logs/version_N/{_FILE}), which `prosl fit` writes")


def _version(file: Path) -> int:
    number = re.fullmatch(r"version_(\d+)", file.parent.name)
    return int(number[1]) if number else -1


def read_curves(run: str | Path) -> Curves:
    """Read a run's logs; a resumed run continues the one before it, a fresh one in the same folder replaces it.

    Args:
        run: Folder of the run, or a log.

    Raises:
        DataError: There is no log, it is damaged, or no epoch was finished.
    """
    files = find_logs(run)
    values: dict[str, dict[int, float]] = {}
    rates: dict[int, float] = {}
    joined: list[int] = []
    used: list[Path] = []
    for file in files:
        log = _read(file)
        if log.first < 0:
            continue
        if log.first == 0:
            values, rates, joined, used = {}, {}, [], []
        elif used:
            joined = [*(epoch for epoch in joined if epoch < log.first), log.first]
        for name in {*values, *log.values}:
            kept = {epoch: value for epoch, value in values.get(name, {}).items() if epoch < log.first}
            values[name] = kept | log.values.get(name, {})
        rates = {epoch: rate for epoch, rate in rates.items() if epoch < log.first} | log.rates
        used.append(file)
    if not values:
        raise DataError(f"{files[-1]}: no epoch was finished, so there is nothing to draw")
    stages = values.pop("stage", {})
    semantic = min((epoch for epoch, stage in stages.items() if stage >= 2), default=None)
    ordered = {name: dict(sorted(found.items())) for name, found in values.items() if found}
    metrics = {
        # What was logged in epoch e is known after it; a codebook is made before the epoch that it steers.
        name: (np.array(list(found)) + (0.0 if name.startswith("codebook/") else 1.0), np.array(list(found.values())))
        for name, found in ordered.items()
    }
    return Curves(metrics, semantic, _drops(rates), joined, used)


def _drops(rates: Mapping[int, float]) -> dict[int, float]:
    ordered = sorted(rates.items())
    return {
        epoch: rate for (_, before), (epoch, rate) in pairwise(ordered) if not math.isclose(rate, before, rel_tol=1e-6)
    }


def _read(file: Path) -> _Log:
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        values: dict[str, dict[int, float]] = {}
        ends, steps = [], []
        for row in rows:
            if row.get("epoch"):
                epoch = int(float(row["epoch"]))
                ends.append((int(float(row["step"])), epoch))
                for name, text in row.items():
                    if text and name not in ("epoch", "step"):
                        values.setdefault(name, {})[epoch] = float(text)
            elif row.get("train/learning_rate"):
                steps.append((int(float(row["step"])), float(row["train/learning_rate"])))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{file}: not a log of `prosl fit` ({error})") from error
    rates: dict[int, float] = {}
    for step, rate in steps:  # the epoch of a step is the one whose last step is not before it
        for end, epoch in sorted(ends):
            if end >= step:
                rates.setdefault(epoch, rate)
                break
    return _Log(values, rates)


def curves_figure(curves: Curves, title: str = "", note: str = "") -> Figure:
    """All curves of a run below each other, the beginning of the semantic stage and learning-rate drops marked.

    Args:
        curves: As :func:`read_curves` gives them.
        title: Above all.
        note: Below all.
    """
    panels = [(panel, lines) for panel, lines in _grouped(curves.metrics) if lines]
    figure = Figure(figsize=(9.5, 1.5 * len(panels) + 1.3), layout="constrained")
    # The uppermost holds what the marks mean.
    top, *grid = figure.subplots(len(panels) + 1, 1, sharex=True, height_ratios=[0.16] + [1] * len(panels))
    for axes, ((name, unit, factor, _), lines) in zip(grid, panels, strict=True):
        for number, line in enumerate(lines):
            epochs, values = curves.metrics[line]
            dashes, marker = _LINES[number % len(_LINES)]  # lines that coincide show through each other
            axes.plot(
                epochs, factor * values, color=PALETTE[(5, 6, 3, 7, 1, 2, 0, 4)[number % 8]], linestyle=dashes,
                marker=marker if len(epochs) <= 40 else None, markersize=3, linewidth=1.6, label=_words(line),
            )  # fmt: skip
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_ylabel(unit, fontsize=9)
        open_frame(axes)
        _mark(axes, curves)
        if unit in ("percent", "sequences"):
            axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _name_marks(top, curves)
    grid[-1].set_xlabel("epochs trained")
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    heading(figure, title)
    remark(figure, note)
    return figure


def _grouped(names: Iterable[str]) -> Iterable[tuple[tuple[str, str, float, tuple[str, ...]], list[str]]]:
    """Each panel with the metrics that it shows."""
    known = {each for _, _, _, names in _PANELS for each in names} | _NO_PANEL
    left = sorted(name for name in names if name.startswith("epoch/") and name not in known)
    there = set(names)
    for panel in _PANELS:
        wanted = [name for each in panel[3] for name in sorted(there) if name == each or _begins(name, each)]
        yield panel, wanted if panel[3] else left


def _begins(name: str, each: str) -> bool:
    return each.endswith("/") and name.startswith(each)


def _words(name: str) -> str:
    """A metric in words."""
    room, _, metric = name.partition("/")
    if metric == "mean_cosine":
        return "within a batch" if room == "epoch" else "within the data set"
    return _WORDS.get(metric, metric.replace("_", " "))


def _mark(axes: Axes, curves: Curves) -> None:
    if curves.semantic_from is not None:
        axes.axvspan(curves.semantic_from, _end(curves), color="#56B4E9", alpha=0.13, linewidth=0)
    for epoch in curves.rate_drops:
        axes.axvline(epoch, color="0.35", linestyle="--", linewidth=1)
    for epoch in curves.joined:
        axes.axvline(epoch, zorder=0.5, **_RESUMED)
    axes.set_xlim(_begin(curves), _end(curves))


def _begin(curves: Curves) -> float:
    """Epochs trained before the first that was logged: 0, or where a run went on from another folder's checkpoint."""
    firsts = (epochs[0] - (not name.startswith("codebook/")) for name, (epochs, _) in curves.metrics.items())
    return max(float(min(firsts)), 0.0)


def _end(curves: Curves) -> float:
    return max(float(epochs[-1]) for epochs, _ in curves.metrics.values())


def _name_marks(axes: Axes, curves: Curves) -> None:
    """Say what the marks mean, in axes of their own."""
    axes.set_axis_off()
    handles: list[Line2D | Patch] = []
    if curves.semantic_from is not None:
        handles.append(Patch(color="#56B4E9", alpha=0.25, label=f"semantic stage, from epoch {curves.semantic_from}"))
    if curves.rate_drops:
        rates = ", ".join(f"{rate:.3g}" for rate in curves.rate_drops.values())
        handles.append(Line2D([], [], color="0.35", linestyle="--", linewidth=1, label=f"learning rate to {rates}"))
    if curves.joined:
        handles.append(Line2D([], [], **_RESUMED, label="run resumed"))
    if handles:
        axes.legend(handles=handles, loc="center", ncols=len(handles), frameon=False, fontsize=9)

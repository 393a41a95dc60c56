"""Tables and figures of the rows that `gain.py` wrote.

    python benchmarks/gain_report.py runs/gain/rows.jsonl --out docs/images

Prints Markdown: accuracies along the warm-up, each arm's mean, and its paired difference to `plain` from the same
warm-up with a 95 % interval (Student's t over seeds). Draws gain against the codebook's pair precision where there are
`labels-P` arms.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t as student

MEASURES = {"knn": "1-NN", "linear": "linear", "linear_long": "linear, 1000 epochs"}
Row = dict[str, Any]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval; NaN for a single value."""
    if len(values) < 2:
        return statistics.fmean(values), math.nan
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(half)


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that may be compared: the same data set and settings."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        settings = {name: value for name, value in row["settings"].items() if name not in ("epochs", "drop")}
        found[json.dumps([row["set"], settings], sort_keys=True)].append(row)
    return found


def warm_table(rows: Sequence[Row]) -> str:
    """Accuracy and cluster quality along the warm-up, mean and deviation over seeds."""
    by_epoch: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row["arm"].startswith("warm-"):
            by_epoch[int(row["arm"].removeprefix("warm-"))].append(row)
    if not by_epoch:
        return ""
    example = next(iter(by_epoch.values()))[0]
    columns = [*MEASURES, *(name for name in example if name.startswith("pair_precision")), "mean_cosine"]
    lines = [_line(["epochs", "seeds", *(MEASURES.get(c, c.replace("_", " ")) for c in columns)])]
    lines.append(_line(["---"] * (len(columns) + 2)))
    for epoch, found in sorted(by_epoch.items()):
        cells = [_mean_deviation([row[column] for row in found], column) for column in columns]
        lines.append(_line([str(epoch), str(len(found)), *cells]))
    return "\n".join(lines)


def arm_table(rows: Sequence[Row]) -> str:
    """Every arm's accuracies, and its paired differences to `plain`."""
    lines = [_line(["arm", "epochs", "seeds", *MEASURES.values(), *(f"{m}: gain" for m in MEASURES.values())])]
    lines.append(_line(["---"] * (3 + 2 * len(MEASURES))))
    for (arm, epochs), found in sorted(by_arm(rows).items()):
        means = [_mean_deviation([row[m] for row in found.values()], m) for m in MEASURES]
        gains = [_signed(*interval(g)) if (g := paired(rows, arm, epochs, m)) else "" for m in MEASURES]
        lines.append(_line([arm, str(epochs), str(len(found)), *means, *("" if arm == "plain" else g for g in gains)]))
    return "\n".join(lines)


def by_arm(rows: Sequence[Row]) -> dict[tuple[str, int], dict[int, Row]]:
    """(arm, epochs) -> seed -> row."""
    found: dict[tuple[str, int], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if "epochs" in row["settings"] and row["arm"] != "raw" and not row["arm"].startswith("warm-"):
            found[row["arm"], row["settings"]["epochs"]][row["seed"]] = row
    return found


def paired(rows: Sequence[Row], arm: str, epochs: int, measure: str) -> list[float]:
    """Differences of an arm to `plain` from the same checkpoint, one a seed."""
    arms = by_arm(rows)
    plain, own = arms.get(("plain", epochs), {}), arms[arm, epochs]
    return [own[seed][measure] - plain[seed][measure] for seed in sorted(own) if seed in plain]


def dose_figure(rows: Sequence[Row]) -> Figure | None:
    """Gain against the pair precision of a codebook made of corrupted classes; k-means where it fell."""
    arms = by_arm(rows)
    doses = [key for key in arms if key[0].startswith("labels-")]
    if len(doses) < 3:
        return None
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, (measure, name) in zip(figure.subplots(1, len(MEASURES), sharey=True), MEASURES.items(), strict=True):
        axes.axhline(0, color="grey", linewidth=0.8)
        points = sorted((_precision(arms[key]), paired(rows, *key, measure)) for key in doses)
        _dots(axes, points, "#0072B2", "classes, corrupted")
        axes.plot([x for x, _ in points], [statistics.fmean(gains) for _, gains in points], color="#0072B2")
        found = [(_precision(arms[key]), paired(rows, *key, measure)) for key in arms if key[0] == "prosl"]
        _dots(axes, found, "#D55E00", "k-means of the features")
        axes.set_title(name)
        axes.set_xlabel("pair precision of the codebook")
        if measure == "knn":
            axes.set_ylabel("gain over the base method, points")
            axes.legend(frameon=False)
    return figure


def _precision(found: dict[int, Row]) -> float:
    return statistics.fmean(row["log"]["codebook/pair_precision"][0] for row in found.values())


def _dots(axes: Axes, points: Sequence[tuple[float, list[float]]], colour: str, label: str) -> None:
    """Every seed as a small dot, the mean as a large one, its interval where there are four seeds or more."""
    for number, (x, gains) in enumerate(points):
        mean, half = interval(gains)
        axes.plot([x] * len(gains), gains, ".", color=colour, alpha=0.5)
        bar = [half] if len(gains) >= 4 else None
        axes.errorbar([x], [mean], yerr=bar, fmt="o", color=colour, capsize=3, label=None if number else label)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _mean_deviation(values: Sequence[float], measure: str) -> str:
    digits = 1 if measure in MEASURES else 2
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def _signed(mean: float, half: float) -> str:
    return f"{mean:+.1f}" if math.isnan(half) else f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables of every comparable group and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--out", type=Path, help="folder for figures")
    options = parser.parse_args(arguments)
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    for number, found in enumerate(groups(rows).values()):
        name, settings = found[0]["set"], found[0]["settings"]
        print(f"\n## {name}\n\n{json.dumps(settings)}\n")
        print("\n\n".join(filter(None, (warm_table(found), arm_table(found)))))
        figure = dose_figure(found)
        if figure is not None and options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            figure.savefig(options.out / f"gain-{name}-{number}.png", dpi=150)


if __name__ == "__main__":
    main()

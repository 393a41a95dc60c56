"""Tables and figures of the rows that `gain.py` wrote.

    python benchmarks/gain_report.py runs/gain/rows.jsonl --out docs/images

Prints Markdown: accuracies along the warm-up, each arm's mean, and its paired difference to `plain` from the same
warm-up with a 95 % interval (Student's t over seeds), for every stream, for all fused, and for the mean of the streams.
Draws gain against the codebook's pair precision where there are `labels-P` arms.
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

from prosl_lightning.skeleton import STREAMS

MEASURES = {"knn": "1-NN", "linear": "linear", "linear_long": "linear, 1000 epochs"}
Row = dict[str, Any]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval; NaN for a single value."""
    if len(values) < 2:
        return statistics.fmean(values), math.nan
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(half)


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that may be compared: the same data set and settings, whatever the stream."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        apart = ("epochs", "drop", "stream", "together")
        settings = {name: value for name, value in row["settings"].items() if name not in apart}
        found[json.dumps([row["set"], settings], sort_keys=True)].append(row)
    return found


def stream_of(row: Row) -> str:
    """`joint`, `bone`, `motion`, or several with a + between them."""
    return str(row["settings"].get("stream", "joint"))


def warm_table(rows: Sequence[Row]) -> str:
    """Accuracy and cluster quality along the warm-up, mean and deviation over seeds."""
    by_epoch: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row["arm"].startswith("warm-"):
            by_epoch[stream_of(row), int(row["arm"].removeprefix("warm-"))].append(row)
    if not by_epoch:
        return ""
    example = next(iter(by_epoch.values()))[0]
    columns = [*MEASURES, *(name for name in example if name.startswith("pair_precision")), "mean_cosine"]
    lines = [_line(["stream", "epochs", "seeds", *(MEASURES.get(c, c.replace("_", " ")) for c in columns)])]
    lines.append(_line(["---"] * (len(columns) + 3)))
    for (stream, epoch), found in sorted(by_epoch.items(), key=lambda item: (_rank(item[0][0]), item[0][1])):
        cells = [_mean_deviation([row[c] for row in found], c) if c in found[0] else "" for c in columns]
        lines.append(_line([stream, str(epoch), str(len(found)), *cells]))
    return "\n".join(lines)


def arm_table(rows: Sequence[Row]) -> str:
    """Every arm's accuracies, and its paired differences to `plain`; of several streams also each seed's mean."""
    lines = [
        _line(["arm", "epochs", "stream", "seeds", *MEASURES.values(), *(f"{m}: gain" for m in MEASURES.values())])
    ]
    lines.append(_line(["---"] * (4 + 2 * len(MEASURES))))
    arms = by_arm(rows)
    for (arm, epochs, stream), found in sorted(arms.items(), key=lambda item: (*item[0][:2], _rank(item[0][2]))):
        means = [_mean_deviation([row[m] for row in found.values()], m) for m in MEASURES]
        gains = [_signed(paired(rows, arm, epochs, m, stream)) for m in MEASURES]
        lines.append(_line([arm, str(epochs), stream, str(len(found)), *means, *gains]))
    for arm, epochs in sorted({key[:2] for key in arms if key[0] != "plain"}):
        streams = [stream for own, length, stream in arms if (own, length) == (arm, epochs) and "+" not in stream]
        if len(streams) > 1:
            gains = {m: mean_of_streams(rows, arm, epochs, m, streams) for m in MEASURES}
            cells = ["" for _ in MEASURES] + [_signed(gain) for gain in gains.values()]
            lines.append(_line([arm, str(epochs), "mean of streams", str(len(gains["knn"])), *cells]))
    return "\n".join(lines)


def by_arm(rows: Sequence[Row]) -> dict[tuple[str, int, str], dict[int, Row]]:
    """(arm, epochs, stream) -> seed -> row."""
    found: dict[tuple[str, int, str], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if "epochs" in row["settings"] and row["arm"] != "raw" and not row["arm"].startswith("warm-"):
            found[_named(row), row["settings"]["epochs"], stream_of(row)][row["seed"]] = row
    return found


def paired(rows: Sequence[Row], arm: str, epochs: int, measure: str, stream: str = "joint") -> dict[int, float]:
    """Seed -> difference of an arm to `plain` from the same checkpoint."""
    arms = by_arm(rows)
    plain, own = arms.get(("plain", epochs, stream), {}), arms[arm, epochs, stream]
    return {seed: own[seed][measure] - plain[seed][measure] for seed in sorted(own) if seed in plain and arm != "plain"}


def mean_of_streams(
    rows: Sequence[Row], arm: str, epochs: int, measure: str, streams: Sequence[str]
) -> dict[int, float]:
    """Seed -> mean of its streams' differences, of the seeds that have them all."""
    gains = [paired(rows, arm, epochs, measure, stream) for stream in streams]
    seeds = set.intersection(*(set(gain) for gain in gains))
    return {seed: statistics.fmean(gain[seed] for gain in gains) for seed in sorted(seeds)}


def dose_figure(rows: Sequence[Row]) -> Figure | None:
    """Gain against the pair precision of a codebook made of corrupted classes; k-means where it fell."""
    arms = by_arm([row for row in rows if stream_of(row) == "joint"])
    doses = [key for key in arms if key[0].startswith("labels-")]
    if len(doses) < 3:
        return None
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, (measure, name) in zip(figure.subplots(1, len(MEASURES), sharey=True), MEASURES.items(), strict=True):
        axes.axhline(0, color="grey", linewidth=0.8)
        points = sorted((_precision(arms[key]), _gains(rows, key, measure)) for key in doses)
        _dots(axes, points, "#0072B2", "classes, corrupted")
        axes.plot([x for x, _ in points], [statistics.fmean(gains) for _, gains in points], color="#0072B2")
        own = [key for key in arms if key[0].startswith(("prosl", "kmeans-", "fresh-", "shared-"))]
        found = [(_precision(arms[key]), _gains(rows, key, measure)) for key in own]
        _dots(axes, found, "#D55E00", "k-means of the features")
        axes.set_title(name)
        axes.set_xlabel("pair precision of the codebook")
        if measure == "knn":
            axes.set_ylabel("gain over the base method, points")
            axes.legend(frameon=False)
    return figure


def streams_figure(rows: Sequence[Row]) -> Figure | None:
    """Gain of every arm in each stream, in all streams' mean, and fused."""
    arms = by_arm(rows)
    lengths = {epochs for _, epochs, stream in arms if "+" in stream}
    if len(lengths) != 1:
        return None
    epochs = lengths.pop()
    streams = sorted({stream for *_, stream in arms}, key=_rank)
    single, kinds = [s for s in streams if "+" not in s], sorted({arm for arm, *_ in arms if arm != "plain"})
    places = [*single, "mean of streams", *(s for s in streams if "+" in s)]
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axes, (measure, name) in zip(figure.subplots(1, len(MEASURES), sharey=True), MEASURES.items(), strict=True):
        axes.axhline(0, color="grey", linewidth=0.8)
        for number, arm in enumerate(kinds):
            points = []
            for x, place in enumerate(places):
                mean = place == "mean of streams"
                found = mean_of_streams(rows, arm, epochs, measure, single) if mean else None
                gains = list((paired(rows, arm, epochs, measure, place) if found is None else found).values())
                points += [(x + 0.7 / len(kinds) * (number - (len(kinds) - 1) / 2), gains)] if gains else []
            _dots(axes, points, f"C{number}", arm)
        axes.set_title(name)
        axes.set_xticks(range(len(places)), [place.replace("+", "\n+") for place in places], rotation=30)
    first = figure.axes[0]
    first.set_ylabel("gain over the base method, points")
    first.legend(frameon=False)
    return figure


def _gains(rows: Sequence[Row], key: tuple[str, int, str], measure: str) -> list[float]:
    arm, epochs, stream = key
    return list(paired(rows, arm, epochs, measure, stream).values())


def _named(row: Row) -> str:
    """The arm, and with whom it shared its codebook where that was not the usual three."""
    partners = row["settings"].get("together", STREAMS)
    return str(row["arm"]) + ("" if set(partners) == set(STREAMS) else f" of {'+'.join(partners)}")


def _rank(stream: str) -> int:
    return STREAMS.index(stream) if "+" not in stream else len(STREAMS)


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


def _signed(gains: dict[int, float]) -> str:
    if not gains:
        return ""
    mean, half = interval(list(gains.values()))
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
        for kind, figure in (("dose", dose_figure(found)), ("streams", streams_figure(found))):
            if figure is not None and options.out:
                options.out.mkdir(parents=True, exist_ok=True)
                figure.savefig(options.out / f"gain-{name}-{kind}-{number}.png", dpi=150)


if __name__ == "__main__":
    main()

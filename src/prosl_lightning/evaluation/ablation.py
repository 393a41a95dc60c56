"""Ablations from rows of results: the arms of a study, seed by seed, and what they gain over another arm."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import yaml
from scipy.stats import t as student

from prosl_lightning.evaluation.naming import Row, method_name, settings_of, told
from prosl_lightning.evaluation.paper import Line, ablation_tables

BASE, CONFIGURED = "base", "prosl"
BASE_LABEL = "base method alone"
OF_BASE = ("bank_wrap",)  # varied options of the base method itself: such an arm has a warm-up of its own
OWN_WARM_UP = ("†", "another option of the base method, so a warm-up of its own: not paired like the others")
FEWEST = 3  # seeds of an interval
_EQUAL = 1e-6  # points of deviation that are rounding alone
_MEASURES = {"knn": "1-NN", "linear": "linear"}


@dataclass(frozen=True)
class Ablation:
    """One ablation, see `ablations.yaml`.

    Attributes:
        name: As `prosl sweep` calls it.
        title: What it shows.
        varies: Model options in which its arms differ.
        note: What a reader has to know of the paper's figures.
        against: Arms that the others are compared with.
        axis: What the varied option counts; empty where it is no quantity.
        table: Number of the paper's table, None where there is none.
        arms: Names by the value of the varied option, in the order of the paper's table.
    """

    name: str
    title: str
    varies: tuple[str, ...]
    note: str
    against: tuple[str, ...] = (BASE,)
    axis: str = ""
    table: int | None = None
    arms: tuple[Mapping[str, Any], ...] = ()


@cache
def ablations() -> Mapping[str, Ablation]:
    """All ablations by name.

    Example:
        >>> [(name, ablation.table) for name, ablation in ablations().items()][:3]
        [('modules', 5), ('backbone', 6), ('clusters', None)]
    """
    text = resources.files("prosl_lightning.evaluation").joinpath("ablations.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, Any]] = yaml.safe_load(text)

    def frozen(entry: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}

    return {name: Ablation(name=name, **frozen(entry)) for name, entry in content.items()}


@dataclass
class StudyArm:
    """One arm of a study.

    Attributes:
        name: `base`, `prosl`, or the options in which it differs from what is configured.
        label: For tables and figures.
        rank: Its place among the arms.
        value: Of the varied option where it is a quantity, else None.
        printed: The paper's figures for it, percent.
        scores: Measure -> seed -> top-1 in percent.
        own_warm_up: Whether it does not go on from the warm-up of the others, so that little cancels in differences.
    """

    name: str
    label: str
    rank: float
    value: float | None = None
    printed: tuple[float, ...] = ()
    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    own_warm_up: bool = False

    @property
    def marked(self) -> str:
        """Its label, with a mark where it has a warm-up of its own."""
        return f"{self.label} {OWN_WARM_UP[0]}" if self.own_warm_up else self.label

    @property
    def seeds(self) -> list[int]:
        """Seeds of any measure, ascending."""
        return sorted({seed for each in self.scores.values() for seed in each})


@dataclass
class Study:
    """Arms that differ in nothing but what the ablation varies.

    Attributes:
        ablation: Which one.
        data: Set, split and counts (train / test), and what the encoder was trained on where that is another.
        model: Base method and its arguments, stream, epochs.
        measures: Evaluations and their settings where they are not the usual ones.
        arms: `base` first.
    """

    ablation: Ablation
    data: str
    model: str
    measures: list[str]
    arms: list[StudyArm]

    def arm(self, name: str) -> StudyArm | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)


class Estimate(NamedTuple):
    """Mean of a few values; bounds are NaN where these do not tell an interval.

    Attributes:
        mean: Of the values.
        low: Lower end of the 95 % interval, Student's t.
        high: Upper end.
        values: One a seed.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval; none from fewer than three values, nor from equal ones.

    Accuracies are multiples of one test sequence: equal differences of a few seeds are no certainty.

    Example:
        >>> [round(number, 2) for number in estimate([1.0, 2.0, 3.0])[:3]]
        [2.0, -0.48, 4.48]
    """
    mean, count = statistics.fmean(values), len(values)
    deviation = statistics.stdev(values) if count >= FEWEST else 0.0
    if deviation < _EQUAL:
        return Estimate(mean, math.nan, math.nan, tuple(values))
    half = float(student.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, tuple(values))


def paired(arm: StudyArm, other: StudyArm | None, measure: str) -> Estimate | None:
    """Differences of an arm to another one in points, seed by seed; None where they share no seed."""
    if other is None or other is arm:
        return None
    own, others = arm.scores.get(measure, {}), other.scores.get(measure, {})
    values = [own[seed] - others[seed] for seed in sorted(own) if seed in others]
    return estimate(values) if values else None


def arm_name(changes: Mapping[str, Any]) -> str:
    """Name of an arm after the model options in which it differs from the configuration.

    Example:
        >>> arm_name({}), arm_name({"semantic": False}), arm_name({"num_clusters": 30})
        ('prosl', 'base', 'num_clusters-30')
    """
    if changes.get("semantic") is False:
        return BASE
    return "-".join(f"{name}-{value}" for name, value in changes.items()) or CONFIGURED


def studies(rows: Sequence[Row], ablation: Ablation) -> list[Study]:
    """All studies that rows of `results.json` hold: two arms or more that may be compared.

    The base method's rows say what is configured; an arm is named after the options in which it differs from that. Of
    a run that was judged twice the last row counts.

    Args:
        rows: Oldest first.
        ablation: Which one.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if _usable(row):
            groups.setdefault(_comparable(row, ablation), []).append(row)
    found = (_study(group, ablation) for group in groups.values())
    return [study for study in found if len(study.arms) > 1]


def _usable(row: Row) -> bool:
    checkpoints = row["checkpoints"]
    judged = row["evaluation"] in _MEASURES and row["numbers"].get("top-1") is not None
    return judged and len(checkpoints) == 1 and checkpoints[0]["semantic"] in ("off", "on")


def _comparable(row: Row, ablation: Ablation) -> str:
    """What arms of one study share."""
    checkpoint, place = row["checkpoints"][0], told(row)
    options = {name: v for name, v in checkpoint.get("options", {}).items() if name not in ablation.varies}
    names = ("data", "split", "source", "source_split", "train", "test")
    shared = [checkpoint.get(name) for name in ("base", "stream", "epochs")]
    return json.dumps([shared, options, [place.get(name) for name in names]], sort_keys=True)


def _study(rows: Sequence[Row], ablation: Ablation) -> Study:
    configured = _configured(rows, ablation)
    arms: dict[str, StudyArm] = {}
    measures: dict[str, None] = {}
    for row in rows:
        arm = _arm(row, ablation, configured)
        measure = _measure(row)
        measures[measure] = None
        seed = int(row["checkpoints"][0].get("seed") or 0)
        arms.setdefault(arm.name, arm).scores.setdefault(measure, {})[seed] = float(row["numbers"]["top-1"])
    place = told(rows[0])
    data = f"{place['data']} {place['split']} ({place['train']} / {place['test']})"
    if (place["source"], place["source_split"]) != (place["data"], place["split"]):
        data += f" from {place['source']} {place['source_split']}"
    model = method_name({"checkpoints": [rows[0]["checkpoints"][0] | {"semantic": "off"}]})
    ranked = sorted(arms.values(), key=lambda arm: (arm.rank, arm.name))
    return Study(ablation, data, model, sorted(measures), ranked)


def _measure(row: Row) -> str:
    """Evaluation and what is unusual in it; milestones at their usual shares of the epochs are not."""
    protocol, epochs = row["protocol"], row["protocol"].get("epochs", 0)
    if protocol.get("milestones") == [max(1, epochs * 5 // 8), max(1, epochs * 7 // 8)]:
        row = row | {"protocol": {name: value for name, value in protocol.items() if name != "milestones"}}
    return ", ".join(filter(None, (_MEASURES[row["evaluation"]], settings_of(row))))


def _configured(rows: Sequence[Row], ablation: Ablation) -> dict[str, Any]:
    """What the base method's rows say is configured; without any, what all rows have in common."""
    values = [_varied(row, ablation) for row in rows]
    for row, found in zip(rows, values, strict=True):
        if row["checkpoints"][0]["semantic"] == "off":
            return found
    return {name: value for name, value in values[0].items() if all(each.get(name) == value for each in values)}


def _varied(row: Row, ablation: Ablation) -> dict[str, Any]:
    options = row["checkpoints"][0].get("options", {})
    return {name: options[name] for name in ablation.varies if name in options}


def _arm(row: Row, ablation: Ablation, configured: Mapping[str, Any]) -> StudyArm:
    printed = ablation_tables()[ablation.table].rows if ablation.table else ()
    if row["checkpoints"][0]["semantic"] == "off":
        return StudyArm(BASE, BASE_LABEL, 0, None, _figures(printed[0]) if printed else ())
    values = _varied(row, ablation)
    changes = {name: value for name, value in values.items() if name not in configured or configured[name] != value}
    name = arm_name(changes)
    value = values.get(ablation.varies[0]) if ablation.varies else None
    for number, arm in enumerate(ablation.arms):
        if number and arm["value"] == value:
            return StudyArm(name, arm["label"], number, None, _figures(printed[number]))
    if ablation.axis and value is not None:
        label = f"{ablation.varies[0]} {value}" + ("" if changes else ", as configured")
        return StudyArm(name, label, 1 + value, float(value))
    label = ", ".join(f"{option} {v}" for option, v in changes.items()) or "as configured"
    return StudyArm(name, label, 2 if changes else 1, own_warm_up=bool(changes.keys() & set(OF_BASE)))


def _figures(line: Line) -> tuple[float, ...]:
    return tuple(value for value in line.values if isinstance(value, float))

"""What the parts of `make bench` share: rows with targets, fair timing, the printed table and the result files."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from prosl_lightning.tables import table
from prosl_lightning.version import __version__

HEADER = ("what", "reference-shaped", "ours", "ratio", "at least", "goal", "limit")
PACKAGES = ("torch", "numpy", "scikit-learn", "pytorch-lightning", "faiss-cpu")
ROUNDS = 5
README_MARKERS = ("<!-- make bench -->", "<!-- end of make bench -->")


class Disagreement(Exception):
    """The two sides of a row do not compute the same, so they are not timed."""


@dataclass
class Row:
    """One line of the table.

    Attributes:
        what: What was measured, with its size.
        reference: Figure of the reference-shaped side, with its unit.
        ours: Ours.
        value: What is compared with the targets.
        at_least: Target.
        goal: Further target.
        unit: Of value and targets; `x` for a ratio.
        better: Whether a larger or a smaller value is better.
        limit: What the machine could do at best, in the unit of the value.
        note: How it was measured, where that is not the rule.
        checks: Correctness figures, found before timing.
        seconds: All timed repetitions, by side.
        error: Why there is no figure.
    """

    what: str
    reference: str = ""
    ours: str = ""
    value: float = float("nan")
    at_least: float = float("nan")
    goal: float = float("nan")
    unit: str = "x"
    better: Literal["more", "less"] = "more"
    limit: str = ""
    note: str = ""
    checks: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    error: str = ""

    @property
    def met(self) -> str:
        """`goal`, `yes`, `no`, or nothing where there is no target or no value."""
        if self.error:
            return "error"
        if self.value != self.value or self.at_least != self.at_least:
            return ""

        def reached(target: float) -> bool:
            return self.value >= target if self.better == "more" else self.value <= target

        return "goal" if reached(self.goal) else "yes" if reached(self.at_least) else "no"

    def cells(self) -> list[str]:
        """The row as it is printed: the columns of :data:`HEADER`."""
        if self.error:
            return [self.what, "", f"not timed: {self.error}", "", *self._targets(), self.limit]
        value = "" if self.value != self.value else f"{_short(self.value)}{self._suffix}"
        return [
            self.what,
            self.reference,
            self.ours,
            f"{value} {_MARK[self.met]}".strip(),
            *self._targets(),
            self.limit,
        ]

    @property
    def _suffix(self) -> str:
        return "x" if self.unit == "x" else f" {self.unit}"

    def _targets(self) -> list[str]:
        return ["" if one != one else f"{_short(one)}{self._suffix}" for one in (self.at_least, self.goal)]


_MARK = {"goal": "++", "yes": "+", "no": "MISSED", "": "", "error": ""}


@dataclass(frozen=True)
class Settings:
    """How a part runs.

    Attributes:
        tiny: Tiny sizes: shows that everything runs, times mean nothing.
        rounds: Timed repetitions of each side.
        folder: For temporary files.
    """

    tiny: bool = False
    rounds: int = ROUNDS
    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))


def cpu_seconds(function: Callable[[], Any]) -> float:
    """CPU time of one call: on a busy machine far steadier than the clock on the wall."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def interleaved(sides: dict[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """CPU seconds of every repetition of each side; the sides take turns, so that a busy minute meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warm_up, rounds):
        for name, function in sides.items():
            seconds = cpu_seconds(function)
            if number >= 0:
                times[name].append(seconds)
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Median of each side."""
    return {name: statistics.median(values) for name, values in times.items()}


def reset_peak_memory() -> float:
    """Forget the process's largest memory so far; the memory it has now, in GB, or NaN elsewhere than on Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return peak_memory()


def peak_memory() -> float:
    """Largest memory of the process since it was forgotten, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) * 1024 / 1e9


def run(parts: dict[str, Callable[[Settings], list[Row]]], settings: Settings) -> list[tuple[str, Row]]:
    """Run the parts one after another: (part, row). A part that fails becomes a row that says why."""
    found: list[tuple[str, Row]] = []
    for name, part in parts.items():
        begin = time.perf_counter()
        try:
            rows = part(settings)
        except Exception as error:  # the other parts must still run
            rows = [Row(name, error=f"{type(error).__name__}: {error}"[:300])]
        found += [(name, row) for row in rows]
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
        for row in rows:  # a long run that is stopped has still said something
            print("  " + "; ".join(cell for cell in row.cells()[:4] if cell), flush=True)
    return found


def machine() -> dict[str, Any]:
    """Date, processor, load and versions."""
    versions = {"prosl-lightning": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": _processor(), "cores": os.cpu_count(),
        "threads": 1, "versions": versions,
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return name


def content(found: Sequence[tuple[str, Row]], seconds: float, load: Sequence[float], rounds: int) -> dict[str, Any]:
    """All that is kept of one run, as plain data."""
    return machine() | {
        "rounds": rounds, "seconds": round(seconds), "load_before_and_after": [round(one, 1) for one in load],
        "rows": [{"part": part} | asdict(row) | {"met": row.met, "cells": row.cells()} for part, row in found],
    }  # fmt: skip


def as_text(found: Sequence[tuple[str, Row]]) -> str:
    """The table for the screen, and what its marks and notes say."""
    notes = dict.fromkeys(f"* {row.what}: {row.note}" for _, row in found if row.note)
    return "\n".join([table(HEADER, [row.cells() for _, row in found]), "", "++ goal, + at least", *notes])


def as_markdown(kept: dict[str, Any]) -> str:
    """The table for the README and the results folder: of what :func:`content` gave."""
    versions = ", ".join(f"{name} {number}" for name, number in kept["versions"].items())
    load = " and ".join(f"{one:.1f}" for one in kept["load_before_and_after"])
    lines = [
        f"{kept['date']}, {kept['machine']}, {kept['cores']} cores, load {load} before and after; one thread, CPU",
        f"time, medians of {kept['rounds']} repetitions in turn. `++`: the goal, `+`: what is asked at least; `limit`:",
        "the best this machine could do.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
        *("| " + " | ".join(row["cells"]) + " |" for row in kept["rows"]),
        "",
        f"Versions: {versions}.",
    ]
    return "\n".join(lines) + "\n"


def _notes(kept: dict[str, Any]) -> str:
    told: dict[str, list[str]] = {}
    for row in kept["rows"]:
        if row["note"]:
            told.setdefault(row["note"], []).append(row["what"])
    return "".join(f"* {'; '.join(rows)}: {note}.\n" for note, rows in told.items())


def write(kept: dict[str, Any], folder: Path) -> Path:
    """Write `DATE-bench.json` and `.md`; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{kept['date']}-bench.json"
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    text = f"# make bench, {kept['date']}\n\n{as_markdown(kept)}\n{_notes(kept)}"
    file.with_suffix(".md").write_text(text, encoding="utf-8")
    return file


def newest(folder: Path) -> Path:
    """The newest result file of `make bench`."""
    return max(folder.glob("*-bench.json"))


def put_into_readme(readme: Path, file: Path) -> None:
    """Replace what stands between the markers in the README by the table of a result file."""
    begin, end = README_MARKERS
    kept = json.loads(file.read_text(encoding="utf-8"))
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    readme.write_text(f"{before}{begin}\n{as_markdown(kept)}{end}{after}", encoding="utf-8")


def _short(value: float) -> str:
    return (
        f"{value:.0f}"
        if abs(value) >= 20
        else f"{value:.2g}"
        if abs(value) < 0.1
        else f"{value:.2f}".rstrip("0").rstrip(".")
    )

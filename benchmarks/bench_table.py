"""What the parts of `make bench` share: rows with targets, fair timing and the printed table."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prosl_lightning.tables import table

HEADER = ("what", "reference-shaped", "ours", "ratio", "at least", "goal", "limit")
ROUNDS = 5


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

    @property
    def told(self) -> str:
        """The note, and what the medians are taken of."""
        counts = ", ".join(f"{side.replace('_', ' ')} {len(values)}" for side, values in self.seconds.items())
        return "; ".join(part for part in (self.note, f"times repeated: {counts}" if counts else "") if part)

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


def numbered(rows: Sequence[tuple[list[str], str]]) -> tuple[list[list[str]], list[str]]:
    """Rows of cells with the number of their note behind the first, and the notes; equal notes share a number."""
    notes = list(dict.fromkeys(note for _, note in rows if note))
    cells = [[f"{first} ({notes.index(note) + 1})" if note else first, *rest] for (first, *rest), note in rows]
    return cells, [f"({number}) {note}." for number, note in enumerate(notes, start=1)]


def as_text(found: Sequence[tuple[str, Row]]) -> str:
    """The table for the screen, and what its marks and notes say."""
    cells, notes = numbered([(row.cells(), row.told) for _, row in found])
    return "\n".join([table(HEADER, cells), "", "++ goal, + at least", *notes])


def _short(value: float) -> str:
    return (
        f"{value:.0f}"
        if abs(value) >= 20
        else f"{value:.2g}"
        if abs(value) < 0.1
        else f"{value:.2f}".rstrip("0").rstrip(".")
    )

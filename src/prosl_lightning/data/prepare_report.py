"""The outcome of a preparation: what is in the archive and what is not, beside what is published."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prosl_lightning.tables import counted, table


@dataclass
class PrepareReport:
    """Outcome of a preparation.

    Attributes:
        root: The archive.
        num_sequences: Sequences in it.
        num_frames: Frames in it.
        columns: Integer columns of its index.
        splits: Training and test sequences by protocol.
        neither: Sequences on neither side, by protocol.
        left_out: What was passed over on purpose: reason -> names.
        bad: Source and reason of everything that could not be used.
        size_warning: What is wrong with the unit of the coordinates; empty where nothing is.
    """

    root: Path
    num_sequences: int = 0
    num_frames: int = 0
    columns: tuple[str, ...] = ()
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    neither: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    size_warning: str = ""


def print_report(report: PrepareReport, official: Mapping[str, tuple[int, int]] | None = None) -> None:
    """Print what was written, what was left out and why, and the size of each split beside the official one.

    A split of another size than the official one, and coordinates in another unit, are warned of on stderr.

    Args:
        report: What :func:`write_all` returned.
        official: Published sizes (train, test) by protocol.
    """
    official = official or {}
    size = sum(path.stat().st_size for path in report.root.iterdir())
    sequences, frames = counted(report.num_sequences, "sequence"), counted(report.num_frames, "frame")
    print(f"{report.root}: {sequences}, {frames}, {size / 1e6:.1f} MB")
    for reason, names in report.left_out.items():
        print(f"{reason}: {len(names)}")
    print(f"could not be used: {len(report.bad)}")
    for source, reason in report.bad:
        print(f"  {source}: {reason}")
    print(_split_table(report, official))
    if list(report.splits) == ["all"]:
        columns = ", ".join(report.columns) or "none"
        print(f"no split is known: give one as --protocol NAME:COLUMN=1,2,3; integer columns are {columns}")
    differences = [_difference(name, report.splits[name], sizes) for name, sizes in official.items()]
    for line in filter(None, [*differences, report.size_warning]):
        print(f"warning: {line}", file=sys.stderr)


def _difference(protocol: str, found: tuple[int, int], official: tuple[int, int]) -> str:
    """What one split lacks or has too much; empty when its sizes are the official ones."""
    parts = []
    for side, here, wanted in zip(("train", "test"), found, official, strict=True):
        if here != wanted:
            what = "missing" if here < wanted else "more than expected"
            parts.append(f"{here:,} of {wanted:,} {side}, {abs(here - wanted):,} {what}")
    return f"{protocol}: {'; '.join(parts)}" if parts else ""


def _split_table(report: PrepareReport, official: Mapping[str, tuple[int, int]]) -> str:
    """Sizes by protocol; who is on neither side and the official sizes only where there are any."""
    header, rows = ["protocol", "train", "test"], [[name, *sizes] for name, sizes in report.splits.items()]
    if any(report.neither.values()):
        header.append("neither")
        rows = [[*row, report.neither.get(name, 0)] for row, name in zip(rows, report.splits, strict=True)]
    if official:
        header.append("official")
        told = {name: "{:,} / {:,}".format(*sizes) for name, sizes in official.items()}
        rows = [[*row, told.get(name, "")] for row, name in zip(rows, report.splits, strict=True)]
    return table(header, rows)

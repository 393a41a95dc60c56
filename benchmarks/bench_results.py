"""The result files of `make bench`: what is kept of a run, as JSON and as a table, and the README's copy of it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import bench_threads
from bench_table import HEADER, Row, Settings, numbered

from prosl_lightning.errors import UsageError
from prosl_lightning.version import __version__

PACKAGES = ("torch", "numpy", "scikit-learn", "pytorch-lightning")
README_MARKERS = ("<!-- make bench -->", "<!-- end of make bench -->")


def machine() -> dict[str, Any]:
    """Date and time (UTC), processor, threads and versions."""
    versions = {"prosl-lightning": __version__, "python": platform.python_version()}
    for package in (*PACKAGES, *_faiss_packages()):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "time": time.strftime("%H:%M:%S", time.gmtime()),
        "machine": _processor(), "cores": os.cpu_count(), "threads": bench_threads.in_use(), "versions": versions,
    }  # fmt: skip


def _faiss_packages() -> list[str]:
    """Every installed package that brings FAISS: `faiss-cpu`, `faiss-gpu-cu12`, ..."""
    names = {str(one.metadata["Name"]) for one in distributions()}
    return sorted(name for name in names if name.lower().startswith("faiss"))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return name


def content(
    found: Sequence[tuple[str, Row]],
    settings: Settings,
    parts: Sequence[str],
    seconds: float,
    load: Sequence[float],
) -> dict[str, Any]:
    """All that is kept of one run, as plain data.

    Args:
        found: Part and row.
        settings: What it ran with.
        parts: What was asked for.
        seconds: That it took.
        load: Of the machine, before and after.
    """
    rows = [
        {"part": part} | asdict(row) | {"met": row.met, "cells": row.cells(), "told": row.told} for part, row in found
    ]
    return machine() | {
        "tiny": settings.tiny, "parts": list(parts), "rounds": settings.rounds, "seconds": round(seconds),
        "load_before_and_after": [round(one, 1) for one in load], "rows": rows,
    }  # fmt: skip


def as_markdown(kept: dict[str, Any]) -> str:
    """The table with its notes, for the README and the results folder: of what :func:`content` gave."""
    versions = ", ".join(f"{name} {number}" for name, number in kept["versions"].items())
    load = " and ".join(f"{one:.1f}" for one in kept["load_before_and_after"])
    several = {name: count for name, count in kept["threads"].items() if count != 1}
    threads = "one thread" if not several else ", ".join(f"{name} {count} threads" for name, count in several.items())
    cells, notes = numbered([(row["cells"], row["told"]) for row in kept["rows"]])
    lines = [
        f"{kept['date']} {kept['time']} UTC, {kept['machine']}, {kept['cores']} cores, load {load} before and after;",
        f"{threads}, CPU time, medians; the notes say of how many. `++`: the goal, `+`: what is asked at least;",
        "`limit`: the best this machine could do, where that is known.",
        "",
        *(["Tiny sizes: times mean nothing.", ""] if kept["tiny"] else []),
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
        *("| " + " | ".join(row) + " |" for row in cells),
        "",
        *(f"* {note}" for note in notes),
        "",
        f"Versions: {versions}.",
    ]
    return "\n".join(lines) + "\n"


def write(kept: dict[str, Any], folder: Path) -> Path:
    """Write `DATE-TIME-bench.json` and `.md`, never over another result; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = f"{kept['date']}-{kept['time'].replace(':', '')}", 1
    file = folder / f"{stem}-bench.json"
    while file.exists():
        number += 1
        file = folder / f"{stem}-{number}-bench.json"
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(f"# make bench, {kept['date']}\n\n{as_markdown(kept)}", encoding="utf-8")
    return file


def newest(folder: Path) -> Path:
    """The newest result file of `make bench`.

    Raises:
        UsageError: There is none.
    """
    files = list(folder.glob("*-bench.json"))
    if not files:
        raise UsageError(f"no result of make bench in {folder}: run it first")
    return max(files, key=lambda file: file.stem.removesuffix("-bench"))


def put_into_readme(readme: Path, file: Path, parts: Collection[str]) -> None:
    """Replace what stands between the markers in the README by the table of a result file.

    Args:
        readme: The file to change.
        file: A result.
        parts: What it must have run.

    Raises:
        UsageError: The result is of tiny sizes or lacks a part.
    """
    kept = json.loads(file.read_text(encoding="utf-8"))
    missing = [part for part in parts if part not in kept["parts"]]
    if kept["tiny"] or missing:
        lack = "tiny sizes" if kept["tiny"] else f"no {', '.join(missing)}"
        raise UsageError(f"{file.name} has {lack}: only a full run goes into the README")
    begin, end = README_MARKERS
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    readme.write_text(f"{before}{begin}\n{as_markdown(kept)}{end}{after}", encoding="utf-8")

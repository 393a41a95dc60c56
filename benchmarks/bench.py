"""Every speed and memory target on the CPU in one table: ours against reference-shaped code, in the same run.

Run `make bench`, or `python benchmarks/bench.py` with options. One thread, CPU time (which a busy machine hardly
changes), both sides taking turns, medians; what both compute is compared first, and where it differs nothing is timed.
`--tiny` takes seconds and shows only that everything runs. The exit code is the number of rows with an error.
"""

from __future__ import annotations

import argparse
import logging as python_logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import bench_threads  # noqa: F401  first of all: it sets the number of threads
import torch
from bench_codebook import codebook
from bench_importance import importance
from bench_logging import logging
from bench_memory import memory
from bench_results import content, newest, put_into_readme, write
from bench_share import share
from bench_step import step
from bench_table import ROUNDS, Row, Settings, as_text, run
from bench_views import views
from threadpoolctl import threadpool_limits

from prosl_lightning._lightning import NAMESPACE
from prosl_lightning.errors import UsageError

LEAST_ROUNDS = 3
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PARTS: dict[str, Callable[[Settings], list[Row]]] = {
    part.__name__: part for part in (views, step, logging, codebook, importance, share, memory)
}
OTHERS = ("data", "neighbours", "linear")


def other(name: str) -> Callable[[Settings], list[Row]]:
    """A part of `data.py` or `evaluation.py` as rows of this table, in the words of its own results."""

    def part(settings: Settings) -> list[Row]:
        import bench_others

        return bench_others.PARTS[name](settings)

    return part


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, print the table, keep it; the exit code is the number of errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, *OTHERS], default=list(PARTS), help="which to run")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed repetitions of each side")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that everything runs, times nothing")
    parser.add_argument("--results", type=Path, help="folder of the results; by default only a full run is kept")
    parser.add_argument("--readme", action="store_true", help="put the newest result into the README, time nothing")
    options = parser.parse_args(arguments)
    folder = options.results or RESULTS
    if not options.tiny and options.rounds < LEAST_ROUNDS:
        parser.exit(2, f"bench.py: --rounds is {options.rounds}: a median needs {LEAST_ROUNDS} or more\n")
    if folder.exists() and not folder.is_dir():
        parser.exit(2, f"bench.py: --results names a file, {folder}: give a folder\n")
    if options.readme:
        try:
            put_into_readme(ROOT / "README.md", newest(folder), list(PARTS))
        except UsageError as error:
            parser.exit(2, f"bench.py: {error}\n")
        return 0
    return measure(options, folder)


def measure(options: argparse.Namespace, results: Path) -> int:
    """Run the chosen parts, print the table, keep it; the number of errors."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    python_logging.getLogger(NAMESPACE).setLevel(python_logging.ERROR)
    begin, load = time.perf_counter(), os.getloadavg()[0]
    parts = PARTS | {name: other(name) for name in OTHERS}
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        settings = Settings(options.tiny, 1 if options.tiny else options.rounds, Path(folder))
        found = run({name: parts[name] for name in parts if name in options.parts}, settings)
        seconds = time.perf_counter() - begin
        kept = content(found, settings, options.parts, seconds, (load, os.getloadavg()[0]))
    print(f"\n{as_text(found)}\n\n{seconds / 60:.0f} minutes, load {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    if options.results or (not options.tiny and set(PARTS) <= set(options.parts)):
        print(f"kept in {write(kept, results)}; --readme puts it into the README")
    return sum(bool(row.error) for _, row in found)


if __name__ == "__main__":
    sys.exit(main())

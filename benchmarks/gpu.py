"""Check and time ProSL's training on a CUDA device (or, without one, on the CPU).

Run `PYTHONPATH=src python benchmarks/gpu.py`; with `--tiny` it takes seconds anywhere. Nothing is downloaded: the data
are synthetic, unless `--data ROOT --config NAME` names an archive to train on. A part that fails says why, and the
others still run. Where a machine is lent for minutes at a time, `--parts` and `--minutes` split the work.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_common import GpuBench
from gpu_semantic import codebook, evaluation, importance
from gpu_steps import agreement, side_by_side, step, variants
from gpu_training import lightning, real, run

from prosl_lightning._lightning import NAMESPACE

PARTS: dict[str, Callable[[GpuBench], None]] = {
    part.__name__: part
    for part in (
        agreement, variants, step, side_by_side, run, codebook, importance, evaluation, lightning, real
    )
}  # fmt: skip
# What, its unit, the part and the beginning of the row it is read from, the value; at most, goal, limit, on one H200.
TARGETS = (
    ("a step of the semantic stage", "ms", "step", "stage 2, graph, bf16, packed", "milliseconds", 8, 5, 2.5),
    ("450 epochs of NTU-60", "min", "run", "graph, bf16-mixed", "minutes_of_450_epochs", 40, 25, 11),
    ("codebooks and importance of these", "min", "run", "graph, bf16-mixed", "semantic_extras_minutes", 1, None, None),
    ("first codebook", "s", "codebook", "40091", "first_seconds", 0.05, None, None),
    ("later codebooks", "s", "codebook", "40091", "warm_seconds", 0.005, None, None),
    ("importance of 1,024 sequences", "s", "importance", "bf16", "seconds_for_1024_sequences", 0.25, None, None),
    ("nearest neighbours", "s", "evaluation", "1-NN", "seconds", 0.1, None, None),
    ("linear evaluation", "s", "evaluation", "linear", "seconds", 10, None, None),
)


def targets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was measured beside its targets; a target of which nothing was measured has no row."""
    found = []
    for what, unit, part, beginning, value, most, goal, limit in TARGETS:
        matching = [r for r in rows if r["part"] == part and r["what"].startswith(beginning) and value in r]
        if matching:
            best = min(row[value] for row in matching)
            met = "goal" if goal is not None and best <= goal else "target" if best <= most else "missed"
            measured = {"measured": best, "at_most": most, "goal": goal, "limit": limit, "met": met}
            found.append({"part": "targets", "what": f"{what}, {unit}", **measured})
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; the exit code is the number of errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that everything runs, times nothing")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: CUDA where there is one")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which parts to run")
    parser.add_argument("--minutes", type=float, default=9, help="begin nothing new after so long")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--data", help="archive of a real data set to train on")
    parser.add_argument("--config", default="nw-ucla", help="its configuration: a file, or a name in configs/")
    parser.add_argument("--protocol", help="its split rule, instead of the configuration's")
    options = parser.parse_args(arguments)
    logging.getLogger(NAMESPACE).setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        bench = GpuBench(options, Path(folder))
        chosen = [name for name in PARTS if name in options.parts and (name != "real" or options.data)]
        parts = {name: lambda part=PARTS[name]: part(bench) for name in chosen}  # type: ignore[misc]
        if bench.device.type == "cuda" and not options.tiny:
            parts["targets"] = lambda: bench.rows.extend(targets(bench.rows))
        return bench.run(parts)


if __name__ == "__main__":
    sys.exit(main())

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

import yaml
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
STEP = "graph, bf16, packed"
# What, its unit, the part and the beginning of the row it is read from, the value; at most, goal, limit, on one H200.
TARGETS = (
    ("a step of the semantic stage", "ms", "step", f"stage 2, {STEP}", "milliseconds", 8, 5, 2.5),
    ("450 epochs of NTU-60", "min", "run", "graph, bf16-mixed", "minutes_of_450_epochs", 40, 25, 11),
    ("codebooks and importance of these", "min", "run", "graph, bf16-mixed", "semantic_extras_minutes", 1, None, None),
    ("first codebook", "s", "codebook", "40091", "first_seconds", 0.05, None, None),
    ("later codebooks", "s", "codebook", "40091", "warm_seconds", 0.005, None, None),
    # The codebook is built without autocast, whatever the trainer's precision.
    ("importance of 1,024 sequences", "s", "importance", "tf32", "seconds_for_1024_sequences", 0.25, None, None),
    ("nearest neighbours", "s", "evaluation", "1-NN", "seconds", 0.1, None, None),
    ("linear evaluation", "s", "evaluation", "linear", "seconds", 10, None, None),
)
# Part of a timed row -> the parts and beginnings of rows that say whether what was timed computes the right thing.
CHECKS = {
    "step": (("agreement", ""), ("variants", f"stage 2, {STEP}")),
    "run": (("agreement", ""), ("variants", f"stage 1, {STEP}"), ("variants", f"stage 2, {STEP}")),
    "importance": (("agreement", ""),),
}


def targets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was measured beside its targets; a target of which nothing was measured has no row.

    What failed a check meets no target, and what was not checked says so.
    """
    found = []
    for what, unit, part, beginning, value, most, goal, limit in TARGETS:
        matching = [row for row in _rows(rows, part, beginning) if value in row]
        if not matching:
            continue
        best = min(row[value] for row in matching)
        met = "goal" if goal is not None and best <= goal else "target" if best <= most else "missed"
        checks = [_rows(rows, *check) for check in CHECKS.get(part, ())]
        if any("error" in row for check in checks for row in check):
            met = "failed its check"
        elif not all(any("skipped" not in row for row in check) for check in checks):
            met += ", unchecked"
        measured = {"measured": best, "at_most": most, "goal": goal, "limit": limit, "met": met}
        found.append({"part": "targets", "what": f"{what}, {unit}", **measured})
    return found


def _rows(rows: Sequence[Mapping[str, Any]], part: str, beginning: str) -> list[Mapping[str, Any]]:
    """Rows of a part that begin so, and the one that says that the whole part failed."""
    own = [row for row in rows if row["part"] == part]
    return [row for row in own if row["what"].startswith(beginning) or row["what"] == "failed"]


def configuration(name: str) -> Path:
    """A file, or the one of that name in configs/."""
    file = Path(name)
    return file if file.is_file() else Path(__file__).parents[1] / "configs" / f"{file.stem}.yaml"


def _yaml(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End before any work, in one line, where an option is wrong."""
    if options.parts and "real" in options.parts and not options.data:
        parser.error("--parts real trains on an archive: name it with --data")
    if not configuration(options.config).is_file():
        parser.error(f"there is no configuration {options.config}, neither as a file nor in configs/")
    if not {"trainer", "model", "data"} <= set(_yaml(configuration(options.config))):
        parser.error(f"--config {options.config} is no configuration: it has not the sections trainer, model and data")
    if options.data and not (Path(options.data) / "meta.json").is_file():
        parser.error(f"--data {options.data} is no archive: `prosl prepare` makes one")
    if options.out:
        try:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.open("a", encoding="utf-8").close()
        except OSError as error:
            parser.error(f"cannot write --out {options.out}: {error.strerror}")


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; the exit code is the number of errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that everything runs, times nothing")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: CUDA where there is one")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="which parts to run; all by default")
    parser.add_argument("--minutes", type=float, default=9, help="begin nothing new after so long")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--data", help="archive of a real data set to train on")
    parser.add_argument("--config", default="nw-ucla", help="its configuration: a file, or a name in configs/")
    parser.add_argument("--protocol", help="its split rule, instead of the configuration's")
    options = parser.parse_args(arguments)
    check(parser, options)
    options.config = configuration(options.config)
    logging.getLogger(NAMESPACE).setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        bench = GpuBench(options, Path(folder))
        wanted = options.parts or [name for name in PARTS if name != "real" or options.data]
        chosen = [name for name in PARTS if name in wanted]
        parts = {name: lambda part=PARTS[name]: part(bench) for name in chosen}  # type: ignore[misc]
        if bench.device.type == "cuda" and not options.tiny:
            parts["targets"] = lambda: bench.rows.extend(targets(bench.rows))
        return bench.run(parts)


if __name__ == "__main__":
    sys.exit(main())

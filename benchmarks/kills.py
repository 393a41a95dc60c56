"""Kills a run of `prosl fit` at random moments, goes on with `--ckpt_path last`, and compares with the run left alone.

Run `python benchmarks/kills.py --times 20`. A moment is a random time after the beginning of a random step of the
warm-up, step of the semantic stage, codebook build or checkpoint write; the kill is SIGKILL from another process.
Compared are weights, banks, codebook, optimizer and schedule, bit by bit, and the logs epoch by epoch. One thread;
needs `fork`. The exit code is the number of restarts that did not end like the run left alone.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from prosl_lightning import CodebookCallback, ProSLModule, cli
from prosl_lightning.data.synthetic import write_archive
from prosl_lightning.figures.curves import read_curves
from prosl_lightning.prosl import checkpoint_io
from prosl_lightning.tables import table

CONFIG = """
trainer: {accelerator: cpu, log_every_n_steps: 3, enable_progress_bar: false}
checkpoint_every: 2
data: {root: archive, batch_size: 16, eval_batch_size: 32}
model:
  base: hico-gru
  base_args: {hidden_size: 32, num_layers: 1, projection_size: 16}
  num_frames: 32
  min_crop_frames: 16
  bank_size: 64
  momentum: 0.9
  num_clusters: 6
  confidence_threshold: 0.1667
  importance_samples: 16
  milestones: [4]
"""
STEPS, BUILD, WRITE = ("warm-up step", "semantic step"), "codebook build", "checkpoint write"
MOMENTS = (WRITE, BUILD, *STEPS)


def watch(report: Callable[[str, float, float], None]) -> None:
    """Have `report` called with kind, begin and end (0 at the begin) of every step, build and write in this process."""

    def wrap(owner: Any, name: str, kind_of: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            kind, began = kind_of(*args), time.monotonic()
            report(kind, began, 0.0)
            result = original(*args, **kwargs)
            report(kind, began, time.monotonic())
            return result

        setattr(owner, name, watched)

    def step(module: Any, *_: Any) -> str:
        return STEPS[int(module.is_semantic_epoch(module.current_epoch))]

    wrap(ProSLModule, "training_step", step)
    wrap(CodebookCallback, "build", lambda *_: BUILD)
    wrap(checkpoint_io, "write_atomically", lambda *_: WRITE)


def start(arguments: list[str], log: Path, report: Callable[[str, float, float], None] | None = None) -> int:
    """Run `prosl ARGUMENTS` in a fork of this process, its output in a file; gives the process's number."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if report is not None:
            watch(report)
        code = cli.main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(process: int) -> int:
    """Wait for a process; gives its exit code, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(folder: str, *options: str) -> list[str]:
    """The command line of a run."""
    return ["fit", "--config", "kills.yaml", "--trainer.default_root_dir", folder, *options]


def timed_run() -> dict[str, list[float]]:
    """The run left alone; gives the durations of all moments by kind."""
    reading, writing = os.pipe()
    process = start(
        run("whole"), Path("whole.log"),
        lambda kind, began, ended: os.write(writing, f"{kind}:{ended - began}\n".encode()) if ended else None,
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading) as file:
        lines = file.read().splitlines()
    if finish(process):
        sys.exit(Path("whole.log").read_text())
    found: dict[str, list[float]] = {kind: [] for kind in MOMENTS}
    for line in lines:
        kind, seconds = line.split(":")
        found[kind].append(float(seconds))
    return found


def killed_run(folder: str, kind: str, number: int, delay: float) -> bool:
    """Start a run, kill it `delay` seconds after the `number`-th moment of a kind began; False where it was over."""
    reading, writing = os.pipe()
    count = 0

    def report(name: str, began: float, ended: float) -> None:
        nonlocal count
        count += name == kind and not ended
        if name == kind and not ended and count == number:
            os.write(writing, b"!")

    process = start(run(folder), Path(f"{folder}.log"), report)
    os.close(writing)
    os.read(reading, 1)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    os.close(reading)
    return finish(process) == -signal.SIGKILL


def go_on(folder: str) -> str:
    """Restart a killed run as its message says; gives the checkpoint it went on from."""
    log = Path(f"{folder}.log")
    if finish(start(run(folder, "--ckpt_path", "last"), log)) == 0:
        return next(line for line in log.read_text().splitlines() if line.startswith("going on from"))[14:]
    if "start without --ckpt_path" not in log.read_text() or finish(start(run(folder), log)):
        sys.exit(log.read_text())
    return "nothing written yet: from the start"


def differences(whole: Path, other: Path) -> list[str]:
    """What two finished runs differ in."""
    first, second = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, other))
    callback = next(name for name in first["callbacks"] if "CodebookCallback" in name)
    for stored in (first, second):
        stored["codebook metrics"] = stored["callbacks"][callback]
    names = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "codebook metrics")
    found = [name for name in names if not _same(first[name], second[name])]
    kept = [sorted(file.name for file in (folder / "checkpoints").iterdir()) for folder in (whole, other)]
    logs = [read_curves(folder).metrics for folder in (whole, other)]
    for metrics in logs:
        del metrics["epoch/samples_per_second"]
    same = logs[0].keys() == logs[1].keys() and all(
        all((a == b).all() if a.shape == b.shape else False for a, b in zip(values, logs[1][name], strict=True))
        for name, values in logs[0].items()
    )
    return found + ([] if kept[0] == kept[1] else ["kept checkpoints"]) + ([] if same else ["logs"])


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="number of kills")
    parser.add_argument("--epochs", type=int, default=6, help="of the run; its second half is the semantic stage")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw, rows, wrong = random.Random(options.seed), [], 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        epochs = f"  semantic_start: {options.epochs // 2}\ntrainer.max_epochs: {options.epochs}\n"
        Path("kills.yaml").write_text(CONFIG + epochs)
        write_archive("archive", num_samples=160)
        durations = timed_run()
        for i in range(options.times):
            kind = MOMENTS[i % len(MOMENTS)]
            number = draw.randint(1, len(durations[kind]))
            delay = draw.uniform(0, 1.1 * statistics.median(durations[kind]))
            name = f"killed-{i}"
            was_killed = killed_run(name, kind, number, delay)
            left = sorted(file.name for file in Path(name).rglob("*.partial"))
            source = go_on(name)
            found = differences(Path("whole"), Path(name))
            wrong += bool(found)
            moment = f"{kind} {number} + {1e3 * delay:.1f} ms" + (f", left {left[0]}" if left else "")
            rows.append([moment if was_killed else f"{moment} (over)", source, ", ".join(found) or "nothing"])
            print(f"{i + 1}: killed at {rows[-1][0]}; {source}; different: {rows[-1][2]}", flush=True)
        os.chdir("/")
    print(table(["killed at", "went on from", "different"], rows))
    return wrong


if __name__ == "__main__":
    sys.exit(main())

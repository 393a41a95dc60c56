"""Does the semantic stage gain? Paired runs on small real sets: one warm-up a seed, then several ways to go on from it.

    python benchmarks/gain.py --data ARCHIVES --set nw-ucla --seeds 0-7 --arms plain branch prosl labels-1.0
    python benchmarks/gain.py --data ARCHIVES --set utd-mhad --streams joint bone motion --arms plain fresh-40 shared-40

Every run is one line of `<runs>/rows.jsonl` (numbers, settings, versions). A run that has its line is not repeated, so
the command can be stopped and given again. `benchmarks/gain_report.py` makes tables and figures of the lines.

Arms, all from the warm-up's last checkpoint: `plain` goes on with the base method; `branch` adds the semantic branch
and its KL term but no codebook (the paper's first stage); `prosl` is the semantic stage; `labels-P` is the semantic
stage with a codebook made of the true classes, corrupted until a share P of the pairs that it calls alike is alike
(1.0: the classes themselves; 0: at random); `kmeans-K` has K clusters, and `fresh-K` clusters anew at every build
instead of going on from the last centroids; `shared-K` clusters the features of all `--streams` side by side, whose
models then have the labels in common. `prosl:option=value` changes a model option.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gain_codebooks import LabelCodebook
from gain_sets import NEVER, SETS
from gain_study import Study, fused, option, raw, save

from prosl_lightning._lightning import NAMESPACE, pl
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.prosl.callback import CodebookCallback
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.prosl.shared_clusters import SharedClusters
from prosl_lightning.prosl.side_by_side import SideBySide
from prosl_lightning.skeleton import STREAMS


def go_on(studies: Mapping[str, Study], seed: int, arm: str, starts: Mapping[str, Path]) -> None:
    """Go on from the warm-ups in one way, evaluate every stream and all together at the end."""
    begin = time.perf_counter()
    kind, _, changes = arm.partition(":")
    own = dict(option(text) for text in changes.split(",") if text)
    modules = {stream: study.module(seed, **_options(kind, study) | own) for stream, study in studies.items()}
    callbacks = _codebooks(kind, seed, modules)
    group, trainers, records, paths = SideBySide(), {}, {}, {}
    for stream, study in studies.items():
        paths[stream] = study.runs / f"{study.name}-{arm.replace(':', '-').replace('/', '-')}-{stream}-{seed}.ckpt"
        records[stream] = _Record()
        trainer = study.trainer(study.warm + study.options.epochs, records[stream], *callbacks[stream])
        group.add(stream, trainer, modules[stream], study.training_data, str(starts[stream]))
        trainers[stream] = trainer
    for error in group.fit().values():
        raise error
    seconds = (time.perf_counter() - begin) / len(studies)
    for stream, trainer in trainers.items():
        save(trainer, paths[stream])
    fused(studies, paths, seed, arm)
    for stream, study in studies.items():
        numbers = study.evaluate(paths[stream], seed)
        study.write(seed, arm, {**numbers, "log": records[stream].ends, "seconds": seconds})
    for stream, study in studies.items():
        if not study.options.keep:
            paths[stream].unlink()


def _options(kind: str, study: Study) -> dict[str, Any]:
    """Model options of an arm."""
    options: dict[str, Any] = {"milestones": [study.warm + study.options.drop], "semantic_start": study.warm}
    if kind == "plain":
        return options | {"semantic": False}
    if kind == "branch":
        return options | {"semantic_start": NEVER}
    if kind.startswith("labels-"):
        return options | {"num_clusters": study.num_classes}
    if kind.startswith(("kmeans-", "fresh-", "shared-")):
        return options | {"num_clusters": int(kind.partition("-")[2])}
    if kind != "prosl":
        raise SystemExit(f"unknown arm '{kind}'")
    return options


def _codebooks(kind: str, seed: int, modules: Mapping[str, ProSLModule]) -> dict[str, list[CodebookCallback]]:
    """The callbacks of an arm that is not the library's own."""
    if kind.startswith("labels-"):
        return {stream: [LabelCodebook(float(kind.removeprefix("labels-")), seed)] for stream in modules}
    if kind.startswith("fresh-"):
        return {stream: [CodebookCallback(anew=True)] for stream in modules}
    if kind.startswith("shared-"):
        shared = SharedClusters(list(modules.values()))
        return {stream: [CodebookCallback(shared=shared)] for stream in modules}
    return {stream: [] for stream in modules}


class _Record(pl.Callback):
    """First and last value of what is logged about the codebook."""

    def __init__(self) -> None:
        self.ends: dict[str, list[float]] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect them."""
        for name, value in trainer.callback_metrics.items():
            if name.startswith(("codebook/", "epoch/confident", "epoch/excluded", "epoch/loss")):
                number = round(float(value), 5)
                self.ends[name] = [self.ends.get(name, [number])[0], number]


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what has no row yet: for every seed the warm-ups, then the arms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the archives, one folder a set")
    parser.add_argument("--set", choices=SETS, default="nw-ucla")
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=["joint"], help="trained side by side")
    parser.add_argument("--pool", help="archive of `prosl prepare pool` to train on instead; judged on its part --set")
    parser.add_argument("--runs", default="runs/gain", help="where checkpoints and rows go")
    parser.add_argument("--seeds", default="0-7", help="e.g. 0-7 or 0,3,5")
    parser.add_argument("--arms", nargs="*", default=["plain", "prosl"])
    parser.add_argument("--warm-epochs", type=int, default=250)
    parser.add_argument("--warm-checkpoint", type=int, default=0, help="start the arms from this epoch instead")
    parser.add_argument("--epochs", type=int, default=50, help="of each arm")
    parser.add_argument(
        "--drop", type=int, default=30, help="epochs of an arm before the learning rate is divided by ten"
    )
    parser.add_argument("--clusters", type=int, default=0, help="of the codebook; default 1.5 times the classes")
    parser.add_argument("--model", nargs="*", default=[], help="model options NAME=VALUE for every run")
    parser.add_argument(
        "--validate", action="store_true", help="judge on a part of the training set, to choose settings"
    )
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--keep", action="store_true", help="keep the arms' checkpoints")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    silence_lightning()
    logging.getLogger(NAMESPACE).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    studies = {stream: Study(options, stream) for stream in options.streams}
    raw(studies)
    for seed in _numbers(options.seeds):
        starts = {stream: study.warm_up(seed) for stream, study in studies.items()}
        for epochs in (0, next(iter(studies.values())).warm):
            paths = {stream: start.with_name(f"epoch-{epochs}.ckpt") for stream, start in starts.items()}
            fused(studies, paths, seed, f"warm-{epochs}")
        for arm in options.arms:
            if not all(study.done(seed, arm) for study in studies.values()):
                go_on(studies, seed, arm, starts)


if __name__ == "__main__":
    main()

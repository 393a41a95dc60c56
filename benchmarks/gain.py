"""Does the semantic stage gain? Paired runs on small real sets: one warm-up a seed, then several ways to go on from it.

    python benchmarks/gain.py --data ARCHIVES --set nw-ucla --seeds 0-7 --arms plain branch prosl labels-1.0

Every run is one line of `<runs>/rows.jsonl` (numbers, settings, versions). A run that has its line is not repeated, so
the command can be stopped and given again. `benchmarks/gain_report.py` makes tables and figures of the lines.

Arms, all from the warm-up's last checkpoint: `plain` goes on with the base method; `branch` adds the semantic branch
and its KL term but no codebook (the paper's first stage); `prosl` is the semantic stage; `labels-P` is the semantic
stage with a codebook made of the true classes, corrupted until a share P of the pairs that it calls alike is alike
(1.0: the classes themselves; 0: at random); `kmeans-K` has K clusters, and `fresh-K` clusters anew at every build
instead of going on from the last centroids; `peers-K` clusters the features beside those of the two other streams'
warm-ups of the same seed, which `--model stream=bone` and `stream=motion` must have made before. `prosl:option=value`
changes a model option.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from gain_codebooks import FreshCodebook, LabelCodebook, PeerCodebook
from gain_sets import MODEL, NEVER, SETS, TrainingSide
from torch import Tensor

from prosl_lightning._lightning import NAMESPACE, pl
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.evaluation.features import FeatureTables, extract_tables, load_module
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.evaluation.linear import linear_evaluation
from prosl_lightning.prosl.diagnostics import codebook_metrics
from prosl_lightning.prosl.kmeans import kmeans
from prosl_lightning.prosl.losses import mean_cosine
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.seeds import derive_seed
from prosl_lightning.version import __version__


class Study:
    """One data set, its settings, and the file of rows."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.name, self.options = options.set, options
        protocol, self.num_classes, changes = SETS[options.set]
        model = changes | dict(_option(text) for text in options.model)
        kind = TrainingSide if options.validate else SkeletonDataModule
        place = options.pool or str(Path(options.data) / options.set)
        split = f"{options.set}/{protocol}" if options.pool else protocol
        self.data = kind(place, split, batch_size=64, stream=model.get("stream", "joint"))
        self.data.setup()
        self.training_data = self.data
        if options.pool:
            self.training_data = SkeletonDataModule(place, "pool", batch_size=64, stream=self.data.stream)
        self.model = MODEL | {
            "layout": self.data.layout.to_plain(), "num_bodies": self.data.num_bodies,
            "num_clusters": options.clusters or round(1.5 * self.num_classes), **model,
        }  # fmt: skip
        self.warm = options.warm_checkpoint or options.warm_epochs
        self.runs = Path(options.runs)
        self.rows = self.runs / "rows.jsonl"
        self.runs.mkdir(parents=True, exist_ok=True)

    def settings(self, arm: str) -> dict[str, Any]:
        """Everything that decides a run."""
        o = self.options
        schedule = {"warm_epochs": o.warm_epochs, "warm_checkpoint": o.warm_checkpoint, "precision": o.precision}
        schedule |= {"validate": True} if o.validate else {}
        schedule |= {"pool": Path(o.pool).name} if o.pool else {}
        if not arm.startswith(("warm", "raw")):
            schedule |= {"epochs": o.epochs, "drop": o.drop}
        return self.model | schedule

    def key(self, seed: int, arm: str) -> str:
        """Identity of a run."""
        text = json.dumps([self.name, seed, arm, self.settings(arm)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def done(self, seed: int, arm: str) -> bool:
        """Whether a run has its line."""
        if not self.rows.is_file():
            return False
        return any(json.loads(line)["key"] == self.key(seed, arm) for line in self.rows.read_text().splitlines())

    def write(self, seed: int, arm: str, **values: Any) -> None:
        """Add a run's line."""
        row = {"key": self.key(seed, arm), "set": self.name, "seed": seed, "arm": arm, **values}
        row |= {"settings": self.settings(arm), "version": __version__, "torch": torch.__version__}
        row["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        with self.rows.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(row) + "\n")
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        print(self.name, seed, arm, " ".join(f"{k} {v:.2f}" for k, v in numbers.items()), flush=True)

    # ------------------------------------------------------------------------------------------------------- running

    def warm_up(self, seed: int) -> Path:
        """The base method alone; evaluated untrained and at every fifth of the way."""
        o = self.options
        folder = self.warm_folder(seed, self.data.stream)
        marks = sorted({round(o.warm_epochs * fifth / 5) for fifth in range(6)})
        before: Path | None = None
        for epochs in marks:
            path = folder / f"epoch-{epochs}.ckpt"
            if not path.is_file():
                pl.seed_everything(seed, verbose=False)
                module = ProSLModule(**self.model | {"semantic": False, "milestones": [NEVER], "seed": seed})
                self._fit(module, epochs, path, before, seed)
            if not self.done(seed, f"warm-{epochs}"):
                self.write(seed, f"warm-{epochs}", **self.evaluate(path, seed))
            before = path if epochs else None  # what was not trained has no optimizer to go on with
        return folder / f"epoch-{self.warm}.ckpt"

    def warm_folder(self, seed: int, stream: str) -> Path:
        """Where a warm-up's checkpoints lie."""
        pool = f"-{Path(self.options.pool).name}" if self.options.pool else ""
        kind = f"{'-validate' * self.options.validate}{pool}{'' if stream == 'joint' else f'-{stream}'}"
        return self.runs / f"{self.name}{kind}-warm-{seed}"

    def peers(self, seed: int) -> list[Tensor]:
        """Key features of the training set by the other streams' warm-ups of a seed."""
        streams = [stream for stream in ("joint", "bone", "motion") if stream != self.data.stream]
        paths = [self.warm_folder(seed, stream) / f"epoch-{self.warm}.ckpt" for stream in streams]
        return [self.key_features(load_module(path), self.training_data) for path in paths]

    @torch.no_grad()
    def key_features(self, module: ProSLModule, data: SkeletonDataModule) -> Tensor:
        """Unit features (N, P) of a training set."""
        on_device = (module.transfer_batch_to_device(b, module.device, 0) for b in data.feature_dataloader())
        return torch.cat([module.key_features(module.prepare(batch)) for batch in on_device])

    def arm(self, seed: int, arm: str, start: Path) -> None:
        """Go on from the warm-up in one way, evaluate at the end."""
        o, begin = self.options, time.perf_counter()
        warm = self.warm
        end = warm + o.epochs
        kind, _, changes = arm.partition(":")
        model = self.model | {"milestones": [warm + o.drop], "semantic_start": warm, "seed": seed}
        callbacks: list[Any] = []
        if kind == "plain":
            model["semantic"] = False
        elif kind == "branch":
            model["semantic_start"] = NEVER
        elif kind.startswith("labels-"):
            model["num_clusters"] = self.num_classes
            callbacks.append(LabelCodebook(float(kind.removeprefix("labels-")), seed))
        elif kind.startswith(("kmeans-", "fresh-", "peers-")):
            model["num_clusters"] = int(kind.partition("-")[2])
            callbacks += [FreshCodebook()] if kind.startswith("fresh-") else []
            callbacks += [PeerCodebook(self.peers(seed))] if kind.startswith("peers-") else []
        elif kind != "prosl":
            raise SystemExit(f"unknown arm '{arm}'")
        model |= dict(_option(text) for text in changes.split(",") if text)
        path = self.runs / f"{self.name}-{arm.replace(':', '-').replace('/', '-')}-{seed}.ckpt"
        pl.seed_everything(seed, verbose=False)
        logged = self._fit(ProSLModule(**model), end, path, start, seed, callbacks)
        self.write(seed, arm, **self.evaluate(path, seed), **logged, seconds=time.perf_counter() - begin)
        if not o.keep:
            path.unlink()

    def _fit(
        self, module: ProSLModule, epochs: int, path: Path, start: Path | None, seed: int, callbacks: Any = ()
    ) -> dict[str, Any]:
        self.training_data.seed = seed
        trainer = pl.Trainer(
            accelerator="auto", devices=1, max_epochs=epochs, precision=self.options.precision, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[_Record(), *callbacks],
        )  # fmt: skip
        if epochs:
            trainer.fit(module, datamodule=self.training_data, ckpt_path=start)
        else:
            trainer.strategy.connect(module)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        trainer.save_checkpoint(temporary)
        temporary.rename(path)
        return trainer.callbacks[0].summary()  # type: ignore[attr-defined]

    def evaluate(self, path: Path, seed: int) -> dict[str, float]:
        """Nearest neighbour, both linear protocols, and the state of the features."""
        module = load_module(path).to("cuda" if torch.cuda.is_available() else "cpu")
        tables = extract_tables(module, self.data)
        labels = max(self.num_classes, int(tables.train_labels.max()) + 1)  # a pool counts the classes of all its sets
        numbers = accuracies(tables, labels)
        keys = self.key_features(module, self.data)
        for clusters in (self.num_classes, self.model["num_clusters"], 3 * self.num_classes):
            found = kmeans(keys, clusters, seed=derive_seed(seed, 0), backend="torch").assignment
            metrics = codebook_metrics(found, clusters, classes=tables.train_labels)
            numbers |= {f"{name}_k{clusters}": metrics[name] for name in ("nmi", "pair_precision")}
        return numbers | {"mean_cosine": float(mean_cosine(keys))}


def accuracies(tables: FeatureTables, num_classes: int) -> dict[str, float]:
    """1-NN, linear (80 epochs) and linear-long (1000 epochs), percent, last epoch."""
    return {
        "knn": knn_accuracy(tables.train, tables.train_labels, tables.test, tables.test_labels),
        "linear": linear_evaluation(tables, num_classes).accuracy,
        "linear_long": linear_evaluation(tables, num_classes, epochs=1000, milestones=(625, 875)).accuracy,
    }


class _Record(pl.Callback):
    """First and last value of what is logged about the codebook."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect them."""
        for name, value in trainer.callback_metrics.items():
            if name.startswith(("codebook/", "epoch/confident", "epoch/excluded", "epoch/loss")):
                self._seen.setdefault(name, []).append(round(float(value), 5))

    def summary(self) -> dict[str, Any]:
        """Name -> [first, last]."""
        return {"log": {name: [values[0], values[-1]] for name, values in self._seen.items()}}


def raw_rows(study: Study) -> None:
    """1-NN and linear accuracy on the joints themselves, under the evaluation's view."""
    if study.done(-1, "raw"):
        return
    module = ProSLModule(**study.model | {"semantic": False})
    tables: list[Tensor] = []
    for part in ("train", "test"):
        batches = list(study.data.feature_dataloader(part))
        tables += [torch.cat([module.prepare(b).flatten(1) for b in batches]), torch.cat([b.label for b in batches])]
    raw = FeatureTables(*tables)
    study.write(-1, "raw", knn=knn_accuracy(raw.train, raw.train_labels, raw.test, raw.test_labels))


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, yaml.safe_load(value)


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what has no row yet: for every seed the warm-up, then the arms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the archives, one folder a set")
    parser.add_argument("--set", choices=SETS, default="nw-ucla")
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
    study = Study(options)
    raw_rows(study)
    for seed in _numbers(options.seeds):
        start = study.warm_up(seed)
        for arm in options.arms:
            if not study.done(seed, arm):
                study.arm(seed, arm, start)


if __name__ == "__main__":
    main()

"""One data set and one stream of `gain.py`: its settings, its file of rows, the warm-up and how encoders are judged."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from gain_sets import MODEL, NEVER, SETS, TrainingSide
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.evaluation.features import FeatureTables, extract_tables, load_module
from prosl_lightning.evaluation.fusion import fuse
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.evaluation.linear import linear_evaluation
from prosl_lightning.prosl.diagnostics import codebook_metrics
from prosl_lightning.prosl.input_scale import measure_input_scale
from prosl_lightning.prosl.kmeans import kmeans
from prosl_lightning.prosl.losses import mean_cosine
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.seeds import derive_seed
from prosl_lightning.version import __version__

# linear (80 epochs) and linear-long (1000 epochs)
LINEAR: dict[str, dict[str, Any]] = {"linear": {}, "linear_long": {"epochs": 1000, "milestones": (625, 875)}}


class Study:
    """One data set in one stream, its settings, and the file of rows."""

    def __init__(self, options: argparse.Namespace, stream: str) -> None:
        self.name, self.options = options.set, options
        protocol, self.num_classes, changes = SETS[options.set]
        kind = TrainingSide if options.validate else SkeletonDataModule
        place = options.pool or str(Path(options.data) / options.set)
        split = f"{options.set}/{protocol}" if options.pool else protocol
        self.data = kind(place, split, batch_size=64, stream=stream)
        self.data.setup()
        self.training_data, self.trained_on, classes = self.data, self.name, self.num_classes
        if options.pool:  # one warm-up for all sets that it is judged on
            self.training_data = SkeletonDataModule(place, "pool", batch_size=64, stream=stream)
            self.training_data.setup()
            self.trained_on, classes, changes = Path(place).name, len(self.data.archive.class_names), {}
        self.model = MODEL | {
            "layout": self.data.layout.to_plain(), "num_bodies": self.data.num_bodies,
            "num_clusters": options.clusters or round(1.5 * classes),
            **changes, **dict(option(text) for text in options.model),
        }  # fmt: skip
        self.model |= {} if stream == "joint" else {"stream": stream}
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
        schedule |= {"together": o.streams} if arm.startswith("shared-") else {}
        if not arm.startswith(("warm", "raw")):
            schedule |= {"epochs": o.epochs, "drop": o.drop}
        return self.model | schedule

    def done(self, seed: int, arm: str, **changes: Any) -> bool:
        """Whether a run has its line."""
        if not self.rows.is_file():
            return False
        key = _key(self.name, seed, arm, self.settings(arm) | changes)
        return any(json.loads(line)["key"] == key for line in self.rows.read_text().splitlines())

    def write(self, seed: int, arm: str, values: Mapping[str, Any], **changes: Any) -> None:
        """Add a run's line, unless it is there.

        Args:
            seed: Of the run; -1 where nothing was trained.
            arm: Its name.
            values: What was measured.
            **changes: Settings that are not the study's.
        """
        if self.done(seed, arm, **changes):
            return
        settings = self.settings(arm) | changes
        row = {"key": _key(self.name, seed, arm, settings), "set": self.name, "seed": seed, "arm": arm, **values}
        row |= {"settings": settings, "version": __version__, "torch": torch.__version__}
        row["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        with self.rows.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(row) + "\n")
        numbers = " ".join(f"{name} {value:.2f}" for name, value in values.items() if isinstance(value, float))
        print(self.name, seed, arm, settings.get("stream", "joint"), numbers, flush=True)

    # ------------------------------------------------------------------------------------------------------- running

    def warm_up(self, seed: int) -> Path:
        """The base method alone; evaluated untrained and at every fifth of the way."""
        o = self.options
        trained = {name: value for name, value in self.settings("warm").items() if not name.startswith("warm")}
        key = _key(self.trained_on, seed, "warm", trained)[:8]
        folder = self.runs / f"{self.trained_on}-{self.data.stream}-warm-{seed}-{key}"
        marks = sorted({round(o.warm_epochs * fifth / 5) for fifth in range(6)})
        before: Path | None = None
        for epochs in marks:
            path = folder / f"epoch-{epochs}.ckpt"
            if not path.is_file():
                module = self.module(seed, semantic=False, milestones=[NEVER])
                trainer = self.trainer(epochs)
                if epochs:
                    trainer.fit(module, datamodule=self.training_data, ckpt_path=before)
                else:
                    trainer.strategy.connect(module)
                    if module.hparams["scale_input"]:
                        module.input_scale.copy_(measure_input_scale(module, self.training_data))
                save(trainer, path)
            if not self.done(seed, f"warm-{epochs}"):
                self.write(seed, f"warm-{epochs}", self.evaluate(path, seed))
            before = path if epochs else None  # what was not trained has no optimizer to go on with
        return folder / f"epoch-{self.warm}.ckpt"

    def module(self, seed: int, **changes: Any) -> ProSLModule:
        """A fresh model."""
        pl.seed_everything(seed, verbose=False)
        self.training_data.seed = seed
        return ProSLModule(**self.model | {"seed": seed} | changes)

    def trainer(self, epochs: int, *callbacks: pl.Callback) -> pl.Trainer:
        """A trainer that keeps nothing by itself."""
        return pl.Trainer(
            accelerator="auto", devices=1, max_epochs=epochs, precision=self.options.precision, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=list(callbacks),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------- judging

    def evaluate(self, path: Path, seed: int) -> dict[str, float]:
        """Nearest neighbour, both linear protocols, and the state of the features."""
        module = load_module(path).to("cuda" if torch.cuda.is_available() else "cpu")
        numbers = accuracies([extract_tables(module, self.data)], self.num_classes)
        keys, classes = self._key_features(module)
        for clusters in (self.num_classes, self.model["num_clusters"], 3 * self.num_classes):
            found = kmeans(keys, clusters, seed=derive_seed(seed, 0), backend="torch").assignment
            metrics = codebook_metrics(found, clusters, classes=classes)
            numbers |= {f"{name}_k{clusters}": metrics[name] for name in ("nmi", "pair_precision")}
        return numbers | {"mean_cosine": float(mean_cosine(keys))}

    @torch.no_grad()
    def _key_features(self, module: ProSLModule) -> tuple[Tensor, Tensor]:
        """Unit features (N, P) of the training set that the encoder is judged on, and classes (N,)."""
        on_device = (module.transfer_batch_to_device(b, module.device, 0) for b in self.data.feature_dataloader())
        parts = [(module.key_features(module.prepare(batch)), batch.label) for batch in on_device]
        features, classes = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(classes)

    def raw_tables(self) -> FeatureTables:
        """The joints, bones or motion themselves, under the evaluation's view."""
        module = self.module(0, semantic=False)
        tables: list[Tensor] = []
        for part in ("train", "test"):
            batches = list(self.data.feature_dataloader(part))
            tables += [
                torch.cat([module.prepare(b).flatten(1) for b in batches]),
                torch.cat([b.label for b in batches]),
            ]
        return FeatureTables(*tables)


def raw(studies: Mapping[str, Study]) -> None:
    """The rows of what is not encoded at all, 1-NN only: every stream, and all together."""
    first, together = next(iter(studies.values())), "+".join(studies)
    together_done = len(studies) == 1 or first.done(-1, "raw", stream=together)
    if together_done and all(study.done(-1, "raw") for study in studies.values()):
        return
    tables = [study.raw_tables() for study in studies.values()]
    for study, own in zip(studies.values(), tables, strict=True):
        study.write(-1, "raw", {"knn": nearest([own])})
    if not together_done:
        first.write(-1, "raw", {"knn": nearest(tables)}, stream=together)


def fused(studies: Mapping[str, Study], paths: Mapping[str, Path], seed: int, arm: str) -> None:
    """The row of all streams together: features side by side for nearest neighbours, logits added for linear layers."""
    first, stream = next(iter(studies.values())), "+".join(studies)
    if len(studies) == 1 or first.done(seed, arm, stream=stream):
        return
    tables = []
    for name, study in studies.items():
        module = load_module(paths[name]).to("cuda" if torch.cuda.is_available() else "cpu")
        tables.append(extract_tables(module, study.data))
    first.write(seed, arm, accuracies(tables, first.num_classes), stream=stream)


def accuracies(streams: list[FeatureTables], num_classes: int) -> dict[str, float]:
    """1-NN and both linear protocols of one stream or of several fused, percent, last epoch."""
    labels = max(num_classes, int(streams[0].train_labels.max()) + 1)  # a pool counts the classes of all its sets
    found = {"knn": nearest(streams)}
    for name, protocol in LINEAR.items():
        with_layers = [(own, linear_evaluation(own, labels, **protocol).classifier) for own in streams]
        with torch.no_grad():
            right = fuse([layer(own.test) for own, layer in with_layers]).argmax(dim=1) == streams[0].test_labels
        found[name] = 100 * float(right.double().mean())
    return found


def nearest(streams: list[FeatureTables]) -> float:
    """1-NN accuracy of the streams' unit features side by side, percent."""
    train, test = (
        torch.cat([F.normalize(getattr(own, part), dim=1) for own in streams], dim=1) for part in ("train", "test")
    )
    return knn_accuracy(train, streams[0].train_labels, test, streams[0].test_labels)


def save(trainer: pl.Trainer, path: Path) -> None:
    """Write a checkpoint that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    trainer.save_checkpoint(temporary)
    temporary.rename(path)


def option(text: str) -> tuple[str, Any]:
    """`name=value`, the value as YAML."""
    name, _, value = text.partition("=")
    return name, yaml.safe_load(value)


def _key(name: str, seed: int, arm: str, settings: Mapping[str, Any]) -> str:
    """Identity of a run."""
    return hashlib.sha256(json.dumps([name, seed, arm, settings], sort_keys=True).encode()).hexdigest()[:16]

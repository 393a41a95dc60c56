"""CodebookCallback: rebuilds the semantic codebook from the key encoder's features between epochs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.prosl.diagnostics import codebook_metrics
from prosl_lightning.prosl.extract import extract, iterate
from prosl_lightning.prosl.importance import joint_importance
from prosl_lightning.prosl.kmeans import Backend, Clustering, kmeans
from prosl_lightning.prosl.losses import mean_cosine
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.seeds import derive_seed, generator

# Sequences whose joints are left out in one go; V + 1 forwards each, so this bounds the memory of the measurement.
_IMPORTANCE_CHUNK = 32


class CodebookCallback(pl.Callback):
    """Builds the codebook before the first semantic epoch and after every later one.

    :class:`ProSLModule` adds one by itself; give the trainer your own to choose the backend. Logs, under `codebook/` in
    the epoch that a codebook steers, cluster sizes, churn, mean cosine between features (near 1 is collapse), mean
    cosine to the own centroid, and, where the data have labels, NMI, ARI and pair precision. Labels never reach the
    training.

    Args:
        backend: k-means backend, `auto` (FAISS where installed), `faiss` or `torch`.
    """

    def __init__(self, backend: Backend = "auto") -> None:
        self.backend: Backend = backend
        self._metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """What is still to be logged about the codebook that the checkpoint holds."""
        return {"metrics": self._metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that over in a resumed run."""
        self._metrics = dict(state_dict["metrics"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the codebook where no earlier epoch's end did (a run's start, or a prolonged one), and log it."""
        assert isinstance(pl_module, ProSLModule)
        built_for = int(pl_module.codebook.epoch)
        if pl_module.is_semantic_epoch(trainer.current_epoch) and built_for != trainer.current_epoch:
            self.build(trainer, pl_module, trainer.current_epoch)
        if self._metrics:
            named = {f"codebook/{name}": value for name, value in self._metrics.items()}
            pl_module.log_dict(named, on_step=False, on_epoch=True, rank_zero_only=True)
            self._metrics = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the next epoch's codebook now, so that this epoch's checkpoint already holds it."""
        assert isinstance(pl_module, ProSLModule)
        following = trainer.current_epoch + 1
        is_last = trainer.max_epochs not in (None, -1) and following >= trainer.max_epochs
        if pl_module.is_semantic_epoch(following) and not is_last:
            self.build(trainer, pl_module, following)

    @torch.no_grad()
    def build(self, trainer: pl.Trainer, module: ProSLModule, epoch: int) -> None:
        """Cluster the training set for `epoch`, measure joint importance, keep what is to be logged."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        seed = derive_seed(module.hparams["seed"], epoch)
        was_training = module.training
        module.eval()
        features, classes = extract(
            module, datamodule.feature_dataloader(), lambda batch: module.key_features(module.prepare(batch)),
            datamodule.num_samples,
        )  # fmt: skip
        codebook, num_clusters = module.codebook, module.hparams["num_clusters"]
        previous = codebook.assignment if codebook.is_built else None
        start = codebook.centroids if codebook.is_built else None
        found = self.cluster(features, classes, num_clusters, start, seed)
        centroids, assignment = trainer.strategy.broadcast((found.centroids.cpu(), found.assignment.cpu()))
        codebook.update(centroids.to(features.device), assignment.to(features.device))
        needed = module.hparams["third_branch"] == "semantic"
        importance = self._importance(module, datamodule, seed) if needed else features.new_zeros(0)
        codebook.importance = importance.to(codebook.centroids)
        codebook.epoch.fill_(epoch)
        module.train(was_training)
        metrics = codebook_metrics(codebook.assignment, num_clusters, previous=previous, classes=classes)
        metrics["mean_cosine"] = float(mean_cosine(features))
        metrics["own_centroid_cosine"] = found.mean_cosine
        self._metrics = metrics

    def cluster(
        self, features: Tensor, classes: Tensor, num_clusters: int, start: Tensor | None, seed: int
    ) -> Clustering:
        """Find the codebook; override it to bring clusters of your own.

        Args:
            features: Key features of the training set, (N, P), of unit length.
            classes: Their true classes, (N,) int64, -1 where unknown. Not used here: for controls in experiments.
            num_clusters: k.
            start: Centroids of the codebook before, (k, P); None at the first build.
            seed: Of this build.
        """
        return kmeans(features, num_clusters, seed=seed, start=start, backend=self.backend)

    @staticmethod
    def _importance(module: ProSLModule, datamodule: object, seed: int) -> Tensor:
        """Semantic coefficients: the mean over a random part of the training set (V,), or every sample's (N, V)."""
        options = module.hparams
        count = datamodule.num_samples  # type: ignore[attr-defined]
        per_sample = options["importance"] == "sample"
        wanted = torch.ones(count, dtype=torch.bool)
        if not per_sample and options["importance_samples"] < count:
            wanted[torch.randperm(count, generator=generator("cpu", seed))[options["importance_samples"] :]] = False
        table = torch.zeros(count, module.layout.num_joints, device=module.device)
        for batch in iterate(module, datamodule.feature_dataloader()):  # type: ignore[attr-defined]
            rows = wanted[batch.index.cpu()].nonzero().squeeze(1).to(module.device)
            for chosen in rows.split(_IMPORTANCE_CHUNK) if len(rows) else ():
                part = SkeletonBatch(*(field[chosen] for field in batch))
                table[part.index] = joint_importance(module.key_features, module.prepare(part))
        return table if per_sample else table[wanted.to(table.device)].mean(dim=0)

"""CodebookCallback: rebuilds the semantic codebook from the key encoder's features between epochs."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import UsageError
from prosl_lightning.prosl.diagnostics import codebook_metrics
from prosl_lightning.prosl.distributed import all_reduce_sum, collect_rows, make_identical
from prosl_lightning.prosl.extract import divide, extract_share, iterate
from prosl_lightning.prosl.importance import joint_importance
from prosl_lightning.prosl.kmeans import Backend, Clustering, check_faiss, kmeans
from prosl_lightning.prosl.losses import mean_cosine_of_sum
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.prosl.out_of_memory import explained_in_training
from prosl_lightning.prosl.shared_clusters import SharedClusters
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
        backend: k-means backend, `auto` (in one process FAISS where it can run on the device, else torch), `faiss` or
            `torch`.
        anew: Whether every build seeks the clusters anew, and not from the last centroids: as slow as a first build,
            but the codebook does not confirm itself, see `docs/results-trials.md`.
        shared: Labels that this model has in common with others trained beside it; always sought anew. Give it again to
            a run that goes on: it is no part of a checkpoint.
    """

    def __init__(self, backend: Backend = "auto", anew: bool = False, shared: SharedClusters | None = None) -> None:
        self.backend: Backend = backend
        self.anew, self.shared = anew, shared
        self._metrics: dict[str, float] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what cannot be used now, and not after the warm-up."""
        if self.shared is not None:
            if trainer.world_size > 1:
                raise UsageError("a shared codebook is for models side by side in one process: use devices=1")
            self.shared.reset()
        if self.backend == "faiss":
            check_faiss(trainer.world_size > 1)

    def state_dict(self) -> dict[str, Any]:
        """What is still to be logged about the codebook that the checkpoint holds."""
        return {"metrics": self._metrics, "shared": self.shared is not None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that over in a resumed run."""
        self._metrics = dict(state_dict["metrics"])
        if state_dict.get("shared", False) != (self.shared is not None):
            before, now = ("", "not ") if self.shared is None else ("not ", "")
            warnings.warn(f"the codebook was {before}shared with other streams and is {now}from here on", stacklevel=2)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the codebook where no earlier epoch's end did (a run's start, or a prolonged one), and log it."""
        assert isinstance(pl_module, ProSLModule)
        built_for = int(pl_module.codebook.epoch)
        if pl_module.is_semantic_epoch(trainer.current_epoch) and built_for != trainer.current_epoch:
            self.build(trainer, pl_module, trainer.current_epoch)
        if self._metrics:
            named = {f"codebook/{name}": value for name, value in self._metrics.items()}
            pl_module.epoch_metrics |= named
            pl_module.log_dict(named, on_step=False, on_epoch=True, logger=False, rank_zero_only=True)
            self._metrics = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the next epoch's codebook now, so that this epoch's checkpoint already holds it."""
        assert isinstance(pl_module, ProSLModule)
        following = trainer.current_epoch + 1
        is_last = trainer.max_epochs not in (None, -1) and following >= trainer.max_epochs
        if pl_module.is_semantic_epoch(following) and not is_last:
            self.build(trainer, pl_module, following)

    def build(self, trainer: pl.Trainer, module: ProSLModule, epoch: int) -> None:
        """Cluster the training set for `epoch`, measure joint importance, keep what is to be logged."""
        with explained_in_training(module, "the codebook's features", "eval_batch_size"), torch.no_grad():
            self._build(trainer, module, epoch)

    def _build(self, trainer: pl.Trainer, module: ProSLModule, epoch: int) -> None:
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        seed = derive_seed(module.hparams["seed"], epoch)
        was_training = module.training
        module.eval()
        make_identical(module.key_encoder)  # statistics of batch normalisation are each process's own after a step
        share = extract_share(
            module, datamodule.feature_dataloader(), lambda batch: module.key_features(module.prepare(batch)),
            datamodule.num_samples,
        )  # fmt: skip
        codebook, num_clusters = module.codebook, module.hparams["num_clusters"]
        previous = codebook.assignment.clone() if codebook.is_built else None
        start = codebook.centroids.clone() if codebook.is_built and not self.anew else None
        if self.shared is None:
            found = self.cluster(share.features, share.labels, num_clusters, start, seed)
        else:
            found = self.shared.clustering(share.features, datamodule, epoch, self.backend)
        assignment = collect_rows(share.rows, found.assignment, datamodule.num_samples)
        classes = collect_rows(share.rows, share.labels, datamodule.num_samples)
        needed = module.hparams["third_branch"] == "semantic"
        # A smaller batch than a chunk lowers the memory of this, too.
        where = explained_in_training(module, "the joint importance", "eval_batch_size", at_once=_IMPORTANCE_CHUNK)
        with where:
            importance = self._importance(module, datamodule, seed) if needed else share.features.new_zeros(0)
        codebook.update(found.centroids, assignment, importance)
        codebook.epoch.fill_(epoch)
        module.train(was_training)
        metrics = codebook_metrics(codebook.assignment, num_clusters, previous=previous, classes=classes)
        total = all_reduce_sum(share.features.sum(dim=0))
        metrics["mean_cosine"] = float(mean_cosine_of_sum(total, datamodule.num_samples))
        metrics["own_centroid_cosine"] = found.mean_cosine
        self._metrics = metrics

    def cluster(
        self, features: Tensor, classes: Tensor, num_clusters: int, start: Tensor | None, seed: int
    ) -> Clustering:
        """Find the codebook; override it to bring clusters of your own.

        Of several processes each is given its part of the training set and returns that part's assignment; the
        centroids must be the same in all.

        Args:
            features: Key features of the training set, (N, P), of unit length.
            classes: Their true classes, (N,) int64, -1 where unknown. Not used here: for controls in experiments.
            num_clusters: k.
            start: Centroids of the codebook before, (k, P); None at the first build.
            seed: Of this build.
        """
        return kmeans(features, num_clusters, seed=seed, start=start, backend=self.backend, divided=True)

    @staticmethod
    def _importance(module: ProSLModule, datamodule: object, seed: int) -> Tensor:
        """Semantic coefficients: the mean over a random part of the training set (V,), or every sample's (N, V)."""
        options = module.hparams
        count = datamodule.num_samples  # type: ignore[attr-defined]
        chosen = torch.arange(count)
        if options["importance"] == "dataset" and options["importance_samples"] < count:
            draw = generator("cpu", seed)
            chosen = torch.randperm(count, generator=draw)[: options["importance_samples"]].sort().values
        wanted = torch.zeros(count, dtype=torch.bool).index_fill_(0, chosen, True)
        found, rows = [], []
        for batch in iterate(module, divide(datamodule.feature_dataloader())):  # type: ignore[attr-defined]
            positions = wanted[batch.index.cpu()].nonzero().squeeze(1).to(module.device)
            for few in positions.split(_IMPORTANCE_CHUNK) if len(positions) else ():
                part = SkeletonBatch(*(field[few] for field in batch))
                found.append(joint_importance(module.key_features, module.prepare(part)))
                rows.append(part.index)
        nothing = torch.zeros(0, module.layout.num_joints, device=module.device)
        own = torch.cat([nothing, *found])
        places = torch.searchsorted(chosen.to(own.device), torch.cat([chosen[:0].to(own.device), *rows]))
        table = collect_rows(places, own, len(chosen))
        return table if options["importance"] == "sample" else table.mean(dim=0)

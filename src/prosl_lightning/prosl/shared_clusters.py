"""SharedClusters: one clustering of several encoders' features, for labels that none of them could find alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prosl_lightning.errors import UsageError
from prosl_lightning.prosl.extract import extract
from prosl_lightning.prosl.kmeans import Backend, Clustering, kmeans
from prosl_lightning.seeds import derive_seed

if TYPE_CHECKING:
    from prosl_lightning.prosl.module import ProSLModule


class SharedClusters:
    """Semantic labels that several models have in common, from the features of all of them side by side.

    A model's own clusters can tell it nothing that its features do not hold already. Joints, bones and motion confuse
    different actions, so what is a cluster in all three is more often one action. Beyond the paper; `docs/results.md`
    has what it is worth. Each model keeps centroids of its own: the means of its features.

    Args:
        modules: Models that are trained side by side on the same training set, see :class:`SideBySide`.

    Raises:
        UsageError: Fewer than two models, one without a semantic stage, or different numbers of clusters.

    Example:
        ::

            models = {stream: ProSLModule(stream=stream) for stream in ("joint", "bone", "motion")}
            shared = SharedClusters(list(models.values()))
            group = SideBySide()
            for stream, model in models.items():
                trainer = pl.Trainer(max_epochs=450, callbacks=[CodebookCallback(shared=shared)])
                group.add(stream, trainer, model, SkeletonDataModule("data/ntu60", stream=stream))
            group.fit()
    """

    def __init__(self, modules: Sequence[ProSLModule]) -> None:
        if len(modules) < 2:
            raise UsageError("a shared codebook is for two or more models")
        if not all(module.hparams["semantic"] for module in modules):
            raise UsageError("a shared codebook needs semantic=True in every model")
        counts = sorted({module.hparams["num_clusters"] for module in modules})
        if len(counts) > 1:
            raise UsageError(f"models that share a codebook have num_clusters {', '.join(map(str, counts))}: one only")
        self.modules = list(modules)
        self._assignments: dict[int, Tensor] = {}

    def reset(self) -> None:
        """Forget the labels: what was clustered belongs to another run."""
        self._assignments.clear()

    @torch.no_grad()
    def assignment(self, datamodule: Any, epoch: int, backend: Backend) -> Tensor:
        """Labels of the training set for an epoch, (num_samples,) int64.

        The first model that asks clusters the features of all, as their weights are then; the others get the same.
        Clusters are sought anew every time: k-means from the last centroids confirms what it found before.

        Args:
            datamodule: Of the model that asks; its sequences are those of all.
            epoch: The epoch the labels are for.
            backend: As for :class:`CodebookCallback`.
        """
        if epoch in self._assignments:
            return self._assignments[epoch]
        features = [self._features(module, datamodule) for module in self.modules]
        together = F.normalize(torch.cat([own.to(features[0]) for own in features], dim=1), dim=1)
        options = self.modules[0].hparams
        seed = derive_seed(options["seed"], epoch)
        found = kmeans(together, options["num_clusters"], seed=seed, backend=backend).assignment
        # Models that a kill left an epoch apart ask for different epochs in turn: each finds what the first was given.
        for old in sorted(self._assignments)[:-2]:
            del self._assignments[old]
        self._assignments[epoch] = found
        return found

    def clustering(self, features: Tensor, datamodule: Any, epoch: int, backend: Backend) -> Clustering:
        """The labels of :meth:`assignment`, with the means of one model's unit features (N, P) as its centroids."""
        return means_of(features, self.assignment(datamodule, epoch, backend), self.modules[0].hparams["num_clusters"])

    @staticmethod
    def _features(module: ProSLModule, datamodule: Any) -> Tensor:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)  # its last step was queued on a stream of its own
        was_training = module.training
        module.eval()
        features, _ = extract(
            module, datamodule.feature_dataloader(), lambda batch: module.key_features(module.prepare(batch)),
            datamodule.num_samples,
        )  # fmt: skip
        module.train(was_training)
        return features


def means_of(features: Tensor, assignment: Tensor, num_clusters: int) -> Clustering:
    """Clusters from given labels.

    Args:
        features: Unit features, (N, P).
        assignment: Labels, (N,) int64.
        num_clusters: k; a cluster without members has a centroid of zeros.
    """
    assignment = assignment.to(features.device)
    sums = features.new_zeros(num_clusters, features.shape[1]).index_add_(0, assignment, features)
    centroids = F.normalize(sums, dim=1)
    return Clustering(centroids, assignment, float((features * centroids[assignment]).sum(dim=1).mean()))

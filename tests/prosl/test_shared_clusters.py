"""SharedClusters: the models of several streams have their semantic labels in common, from all of their features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from prosl_lightning import CodebookCallback, ProSLModule, SharedClusters, SideBySide, SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.features import load_module
from prosl_lightning.prosl.kmeans import kmeans
from prosl_lightning.prosl.shared_clusters import means_of
from prosl_lightning.seeds import derive_seed

STREAMS = ("joint", "bone", "motion")


def _data(archive: Path, stream: str) -> SkeletonDataModule:
    data = SkeletonDataModule(str(archive), stream=stream, batch_size=8, eval_batch_size=16)
    data.setup("fit")
    return data


def _features(module: ProSLModule, archive: Path) -> Tensor:
    loader = _data(archive, module.hparams["stream"]).feature_dataloader()
    with torch.no_grad():
        return torch.cat([module.eval().key_features(module.prepare(batch)) for batch in loader])


def _modules(options: dict) -> dict[str, ProSLModule]:
    modules = {}
    for stream in STREAMS:
        pl.seed_everything(0, verbose=False)
        modules[stream] = ProSLModule(**options, stream=stream)
    return modules


def _fit(
    folder: Path, archive: Path, options: dict, epochs: int, shared: bool = True, start: Path | None = None,
    watch: Callable[[], pl.Callback] | None = None,
) -> dict[str, ProSLModule]:  # fmt: skip
    """Train the three streams side by side; checkpoints are `folder/STREAM.ckpt`."""
    modules, group, trainers = _modules(options), SideBySide(), {}
    clusters = SharedClusters(list(modules.values())) if shared else None
    for stream, module in modules.items():
        callbacks = [CodebookCallback("torch", shared=clusters), *([watch()] if watch else [])]
        trainers[stream] = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", callbacks=callbacks, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        checkpoint = None if start is None else str(start / f"{stream}.ckpt")
        group.add(stream, trainers[stream], module, _data(archive, stream), checkpoint)
    assert group.fit() == {}
    for stream, trainer in trainers.items():
        trainer.save_checkpoint(folder / f"{stream}.ckpt")
    return modules


def test_the_labels_are_the_clusters_of_all_features_side_by_side(tiny_archive, tiny_options):
    modules = _modules(tiny_options | {"seed": 3})
    found = SharedClusters(list(modules.values())).assignment(_data(tiny_archive, "joint"), 5, "torch")
    assert all(module.training for module in modules.values())
    features = torch.cat([_features(module, tiny_archive) for module in modules.values()], dim=1)
    expected = kmeans(F.normalize(features, dim=1), 4, seed=derive_seed(3, 5), backend="torch").assignment
    assert torch.equal(found, expected)


def test_the_first_that_asks_clusters_and_the_next_epoch_gets_new_labels(tiny_archive, tiny_options):
    modules = _modules(tiny_options)
    shared, data = SharedClusters(list(modules.values())), _data(tiny_archive, "joint")
    first = shared.assignment(data, 1, "torch")
    for module in modules.values():  # as if they had gone on
        for parameter in module.key_encoder.parameters():
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(parameter)))
    assert shared.assignment(data, 1, "torch") is first
    second = shared.assignment(data, 2, "torch")
    assert not torch.equal(second, first)
    assert shared.assignment(data, 1, "torch") is first  # of a model that a kill left an epoch behind
    shared.reset()
    assert torch.equal(shared.assignment(data, 2, "torch"), second)
    assert not torch.equal(shared.assignment(data, 1, "torch"), first)


def test_models_keep_their_own_means_as_centroids(tiny_archive, tiny_options):
    modules = _modules(tiny_options)
    shared, data = SharedClusters(list(modules.values())), _data(tiny_archive, "bone")
    own = _features(modules["bone"], tiny_archive)
    found = shared.clustering(own, data, 1, "torch")
    for label in range(4):
        mean = F.normalize(own[found.assignment == label].mean(dim=0), dim=0)
        assert torch.allclose(found.centroids[label], mean, atol=1e-6)
    cosine = (own * found.centroids[found.assignment]).sum(dim=1).mean()
    assert found.mean_cosine == pytest.approx(float(cosine), abs=1e-6)


def test_a_label_without_members_has_no_direction():
    features = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=1)
    found = means_of(features, torch.tensor([2, 2]), 3)
    assert torch.equal(found.centroids[:2], torch.zeros(2, 2))
    assert torch.allclose(found.centroids[2], F.normalize(features.mean(dim=0), dim=0))


class _Labels(pl.Callback):
    """Labels at the start of every epoch, by stream."""

    seen: dict[str, list[Tensor]]

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.seen.setdefault(pl_module.hparams["stream"], []).append(pl_module.codebook.assignment.clone())


def test_streams_trained_side_by_side_have_the_same_labels_in_every_epoch(tmp_path, tiny_archive, tiny_options):
    watch = _Labels()
    watch.seen = {}
    modules = _fit(tmp_path, tiny_archive, tiny_options, 4, watch=lambda: watch)
    for joint, bone, motion in zip(*(watch.seen[stream] for stream in STREAMS), strict=True):
        assert torch.equal(joint, bone)
        assert torch.equal(joint, motion)
    assert [len(labels) for labels in watch.seen["joint"]] == [0, 36, 36, 36]
    centroids = [module.codebook.centroids for module in modules.values()]
    assert not torch.allclose(centroids[0], centroids[1])
    alone = _fit(tmp_path, tiny_archive, tiny_options, 4, shared=False)
    labels = [module.codebook.assignment for module in alone.values()]
    assert not torch.equal(labels[0], labels[1])


def test_all_are_loaded_before_the_first_clustering_of_resumed_runs(tmp_path, tiny_archive, tiny_options):
    _fit(tmp_path, tiny_archive, tiny_options, 1)  # ends before the semantic stage, without a codebook
    loaded = [load_module(tmp_path / f"{stream}.ckpt") for stream in STREAMS]
    expected = SharedClusters(loaded).assignment(_data(tiny_archive, "joint"), 1, "torch")
    watch = _Labels()
    watch.seen = {}
    _fit(tmp_path, tiny_archive, tiny_options, 2, start=tmp_path, watch=lambda: watch)
    for stream in STREAMS:
        assert torch.equal(watch.seen[stream][0], expected)


def test_a_resumed_group_ends_as_if_it_had_not_stopped(tmp_path, tiny_archive, tiny_options):
    whole = _fit(tmp_path, tiny_archive, tiny_options, 3)
    _fit(tmp_path, tiny_archive, tiny_options, 2)
    resumed = _fit(tmp_path, tiny_archive, tiny_options, 3, start=tmp_path)
    for stream in STREAMS:
        for name, value in whole[stream].state_dict().items():
            assert torch.equal(value, resumed[stream].state_dict()[name]), (stream, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{}], "for two or more models"),
        ([{}, {"semantic": False}], "needs semantic=True in every model"),
        ([{}, {"num_clusters": 5}], "num_clusters 4, 5: one only"),
    ],
)
def test_models_that_cannot_share_are_refused(tiny_options, changes, message):
    with pytest.raises(UsageError, match=message):
        SharedClusters([ProSLModule(**tiny_options | change) for change in changes])

"""A device without enough memory: the message names the needs and what to lower."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.features import extract_tables
from prosl_lightning.evaluation.neighbours import search
from prosl_lightning.evaluation.retrieval import mean_average_precision
from prosl_lightning.prosl import cuda_graph


class _Full(ProSLModule):
    """Runs out of memory in the second step, forward or backward."""

    where = "forward"

    def step(self, batch, draw):
        metrics = super().step(batch, draw)
        if self.global_step < 1:
            return metrics
        if self.where == "forward":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        metrics["loss"].register_hook(_raise)
        return metrics


def _raise(_):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")


class _Unchanged:
    def __init__(self, device):
        pass

    def run(self, step):
        return step()


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_step_that_does_not_fit_says_what_to_lower(tmp_path, tiny_archive, tiny_options, monkeypatch, graph, where):
    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", _Unchanged)
    module = _Full(**tiny_options, cuda_graph=graph)
    module.where = where
    data = SkeletonDataModule(str(tiny_archive), batch_size=8)
    data._frames = torch.zeros(2**28, dtype=torch.int8)  # as if it were on a GPU
    monkeypatch.setattr(SkeletonDataModule, "train_dataloader", lambda self: _mapped(self))
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UsageError) as caught:
        trainer.fit(module, datamodule=data)
    first, second = str(caught.value).splitlines()
    assert first.startswith(
        "out of memory on cpu in a training step of 8 sequences: the archive takes 0.25 GiB, weights"
    )
    assert second.startswith(
        "lower data.batch_size, or set trainer.precision to bf16-mixed, or leave the archive on the"
    )
    assert isinstance(caught.value.__cause__, torch.cuda.OutOfMemoryError)


def _mapped(data):
    frames, data._frames = data._frames, None
    loader = _ORIGINAL(data)
    data._frames = frames
    return loader


_ORIGINAL = SkeletonDataModule.train_dataloader


def test_what_a_gpu_holds_is_told(monkeypatch):
    from prosl_lightning.prosl import out_of_memory

    class Trainer:
        datamodule, optimizers, precision = None, (), "bf16-mixed"

    class Module:
        device, _trainer = torch.device("cuda"), Trainer
        parameters = buffers = staticmethod(lambda: [torch.zeros(2**18)])

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**29, 2**33))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 5 * 2**30 + 2**21)
    where = out_of_memory.explained_in_training(Module, "the codebook's features", "eval_batch_size")
    with pytest.raises(UsageError) as caught, where:
        _raise(None)
    assert str(caught.value) == (
        "out of memory on cuda in the codebook's features: of 8.00 GiB 0.50 GiB are free, this process held 5.00 GiB "
        "at most, the archive takes 0.00 GiB, weights, banks and optimizer 0.00 GiB\nlower data.eval_batch_size"
    )


class _NoCodebook(ProSLModule):
    def key_features(self, joints):
        _raise(None)


class _NoImportance(ProSLModule):
    def key_features(self, joints):
        return super().key_features(joints) if len(joints) <= 16 else _raise(None)


@pytest.mark.parametrize("semantic_start", [0, 1])
@pytest.mark.parametrize(
    ("kind", "at_once", "what", "to_do"),
    [
        (_NoCodebook, 16, "the codebook's features of 16 sequences", "lower data.eval_batch_size"),
        (_NoImportance, 4, "the joint importance of 4 sequences", "lower data.eval_batch_size below 4"),
        (_NoImportance, 32, "the joint importance of 16 sequences", "lower data.eval_batch_size"),
    ],
)
def test_a_codebook_that_does_not_fit_says_what_to_lower(
    tiny_archive, tiny_options, monkeypatch, kind, at_once, what, to_do, semantic_start
):
    monkeypatch.setattr("prosl_lightning.prosl.callback._IMPORTANCE_CHUNK", at_once)
    module = kind(**tiny_options | {"semantic_start": semantic_start, "importance_samples": 16})
    data = SkeletonDataModule(str(tiny_archive), batch_size=8, eval_batch_size=16)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UsageError) as caught:
        trainer.fit(module, datamodule=data)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"out of memory on cpu in {what}: the archive takes 0.00 GiB, weights, banks")
    assert second == to_do


def test_an_evaluation_that_does_not_fit_says_what_to_lower(tiny_archive, tiny_options, monkeypatch):
    data = SkeletonDataModule(str(tiny_archive), batch_size=8, eval_batch_size=16)
    data.setup()
    module = ProSLModule(**tiny_options)
    monkeypatch.setattr(module, "embed", _raise)
    with pytest.raises(UsageError, match="(?s)in the extraction of features of 16 seq.*lower data.eval_batch_size$"):
        extract_tables(module, data)
    monkeypatch.setattr("prosl_lightning.evaluation.neighbours._by_candidates", lambda *_: _raise(None))
    monkeypatch.setattr("prosl_lightning.evaluation.retrieval._sorted", _raise)
    gallery, queries, labels = torch.randn(9, 4), torch.randn(5, 4), torch.zeros(9, dtype=torch.int64)
    with pytest.raises(UsageError, match="(?s)neighbours of 5 features among 9 of width 4\nfree .*CUDA_VISIBLE"):
        search(gallery, queries)
    with pytest.raises(UsageError, match="(?s)the ranking of 9 features for each of 5\nfree .*CUDA_VISIBLE"):
        mean_average_precision(gallery, labels, queries, labels[:5])


def test_an_archive_that_does_not_fit_after_all_says_so(tiny_archive, monkeypatch):
    data = SkeletonDataModule(str(tiny_archive), batch_size=8)
    monkeypatch.setattr(data, "_fits", lambda _: True)
    monkeypatch.setattr(torch.Tensor, "to", lambda *_, **__: _raise(None))
    with pytest.raises(UsageError, match="out of memory on cpu in copying the archive in .*data.resident false$"):
        data.setup()


def test_an_archive_that_must_be_resident_and_does_not_fit_is_refused(tiny_archive, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 2**33))
    for resident, fits in ((False, False), ("auto", False)):
        data = SkeletonDataModule(str(tiny_archive), batch_size=8, resident=resident)
        data.setup()
        assert data._fits(torch.device("cuda")) is fits
        assert data.resident_bytes == 0
    data = SkeletonDataModule(str(tiny_archive), batch_size=8, resident=True)
    data.setup()
    with pytest.raises(UsageError, match=r"data.resident is true, but the archive .* 0.00 GiB free: set it to auto"):
        data._fits(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**33, 2**33))
    assert data._fits(torch.device("cuda"))

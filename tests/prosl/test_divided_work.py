"""What several processes agree on before they train, told without starting any: order, division, refusals."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch.utils.data.distributed import DistributedSampler

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.data.datamodule import TrainingOrder
from prosl_lightning.errors import UsageError
from prosl_lightning.prosl.checks import check_data
from prosl_lightning.prosl.distributed import prepare
from prosl_lightning.prosl.extract import divide


def test_processes_together_see_the_batches_of_one():
    data = list(range(50))
    one = TrainingOrder(data, 12, 1, 0, seed=7)  # type: ignore[arg-type]
    assert len(one) == 48
    for epoch in (0, 3):
        one.set_epoch(epoch)
        expected = torch.tensor(list(one)).view(-1, 12)
        assert len(set(expected.flatten().tolist())) == 48
        for world in (2, 3):
            parts = [TrainingOrder(data, 12 // world, world, number, seed=7) for number in range(world)]  # type: ignore[arg-type]
            for part in parts:
                part.set_epoch(epoch)
                assert len(part) == 48 // world
            together = torch.cat([torch.tensor(list(part)).view(-1, 12 // world) for part in parts], dim=1)
            assert torch.equal(together, expected)


def test_the_order_of_one_process_is_that_of_a_distributed_sampler():
    ours, theirs = TrainingOrder(range(50), 10, 1, 0, seed=1), DistributedSampler(range(50), 1, 0, seed=1)  # type: ignore[arg-type]
    for sampler in (ours, theirs):
        sampler.set_epoch(2)
    assert list(ours) == list(theirs)


def test_a_loader_is_not_divided_in_one_process():
    loader = [1, 2, 3]
    assert divide(loader) is loader


def test_strategies_that_divide_the_model_are_refused():
    with pytest.raises(UsageError, match="the strategy is FSDPStrategy; on several processes ProSLModule trains with"):
        prepare(SimpleNamespace(world_size=2, strategy=FSDPStrategy()))  # type: ignore[arg-type]
    prepare(SimpleNamespace(world_size=1, strategy=None))  # type: ignore[arg-type]


def test_the_bank_must_hold_a_step_of_all_processes(tiny_archive, tiny_options):
    module, data = ProSLModule(**tiny_options), SkeletonDataModule(str(tiny_archive), batch_size=12)
    data.setup()
    check_data(module, data, 2)
    with pytest.raises(UsageError, match="batch_size is 12 on 3 processes, more than bank_size 32"):
        check_data(module, data, 3)

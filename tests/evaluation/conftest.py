"""A small untrained module on the tiny archive: evaluations need an encoder, not a good one."""

from __future__ import annotations

import pytest
import torch

from prosl_lightning import ProSLModule, SkeletonDataModule


@pytest.fixture
def module(tiny_options) -> ProSLModule:
    torch.manual_seed(0)
    return ProSLModule(**tiny_options).eval()


@pytest.fixture
def data(tiny_archive) -> SkeletonDataModule:
    """36 training and 12 test sequences of three classes."""
    found = SkeletonDataModule(str(tiny_archive), "x-sub", batch_size=8, eval_batch_size=16)
    found.setup()
    return found

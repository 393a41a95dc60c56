"""A training step never waits for the device: it runs on tensors that hold no values, and copies none from the host."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from prosl_lightning import ProSLModule
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.encoders.hico import _Branch

META = torch.device("meta")
SAMPLES = 40
STGCN = {"hidden_channels": 4, "feature_size": 16, "projection_size": 8}
BASES = {
    "hico-lstm": {"hidden_size": 8, "num_layers": 1, "granularity": 2, "projection_size": 8},
    "hico-transformer": {"hidden_size": 8, "num_heads": 2, "projection_size": 8},
    "isc": {"hidden_size": 8, "num_layers": 1, "projection_size": 8},
    "skeletonclr": STGCN,
    "hiclr": STGCN,
}


class HostCopy(AssertionError):
    """The step made a tensor on the host and sent it to the device, which waits for it."""


class NoHost(TorchDispatchMode):
    """Stops where values go from one device to another; meta tensors themselves stop where values are read.

    They know no generators, so these are dropped.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = {name: None if name == "generator" else value for name, value in (kwargs or {}).items()}
        result = func(*args, **kwargs)
        if func._schema.name in ("aten::_to_copy", "aten::copy_"):
            devices = {value.device for value in (*args, result) if isinstance(value, torch.Tensor)}
            if len(devices) > 1:
                raise HostCopy(func._schema.name)
        return result


class NoLists(TorchFunctionMode):
    """Stops where a tensor is made on the device from values of the host."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and result.device == META:
            raise HostCopy(func.__name__)
        return result


class MetaGenerator(torch.Generator):
    device = META


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # the meta device has none


def _module(base: str, stage: str, **changes) -> ProSLModule:
    module = ProSLModule(
        base=base, base_args=BASES[base], layout="coco-17", num_bodies=1, num_frames=8, min_crop_frames=4, bank_size=32,
        num_clusters=4,
        confidence_threshold="relative", semantic_start=0 if stage == "semantic" else 9, **changes,
    )  # fmt: skip
    if stage == "semantic":
        shape = (SAMPLES, 17) if changes.get("importance") == "sample" else (17,)
        module.codebook.update(torch.eye(4, 8), torch.arange(SAMPLES) % 4, torch.ones(shape))
    assert module.stage == stage
    return module.to(META)


def _batch() -> SkeletonBatch:
    joints = torch.empty(6, 30, 3, 17, 1, dtype=torch.float16, device=META).permute(0, 2, 1, 3, 4)
    return SkeletonBatch(joints, *(torch.empty(6, dtype=torch.int64, device=META) for _ in range(3)))


def _train(module: ProSLModule) -> dict[str, torch.Tensor]:
    optimizer = module.configure_optimizers()["optimizer"]
    with NoHost():
        module.step(_batch(), MetaGenerator())  # constants are sent once
    with NoHost(), NoLists():
        metrics = module.step(_batch(), MetaGenerator())
        metrics["loss"].backward()
        optimizer.step()
        optimizer.step()
    return metrics


@pytest.mark.parametrize("stage", ["contrast", "semantic"])
@pytest.mark.parametrize("base", BASES)
def test_no_step_waits_for_the_device(base, stage):
    metrics = _train(_module(base, stage))
    assert all(value.device == META and value.shape == () for value in metrics.values())
    assert ("semantic_query" in metrics) == (stage == "semantic")


@pytest.mark.parametrize(
    "changes", [{"importance": "sample"}, {"stream": "bone"}, {"stream": "motion"}, {"filtered_terms": "instance"}]
)
def test_nor_does_one_with_other_options(changes):
    _train(_module("isc", "semantic", **changes))


def test_nor_does_one_with_packed_levels(monkeypatch):
    monkeypatch.setattr(_Branch, "_packs", lambda *_: True)
    _train(_module("hico-lstm", "semantic"))


FAULTS = {
    "item": lambda loss: loss.item(),
    "truth": bool,
    "list": lambda loss: loss.tolist(),
    "nonzero": lambda loss: loss.nonzero(),
    "boolean index": lambda loss: loss[loss > 0],
    "host tensor": lambda loss: loss + torch.ones(()).to(loss.device),
    "host list": lambda loss: loss * torch.tensor([1.0], device=loss.device),
    "new tensor": lambda loss: loss * loss.new_tensor(1.0),
    "to the host": lambda loss: loss.cpu(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_waits_is_found(fault):
    module = _module("isc", "contrast")
    losses = module.losses
    calls = []

    def waiting(*args):
        metrics = losses(*args)
        calls.append(1)
        if len(calls) == 2:
            FAULTS[fault](metrics["loss"])
        return metrics

    module.losses = waiting
    with pytest.raises((HostCopy, RuntimeError, NotImplementedError)):
        _train(module)
    assert len(calls) == 2

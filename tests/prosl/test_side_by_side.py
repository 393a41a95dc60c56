"""SideBySide: several models in one process end exactly as each would alone, and share one archive."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.prosl.side_by_side import SideBySide, _TakeTurns, _Turns

# Different seeds and streams; the weights' seed is set before each is built.
MODELS = {"joint-0": ("joint", 0), "bone-0": ("bone", 0), "motion-1": ("motion", 1)}


class _Draws(Callback):
    """What somebody's own code takes from the global generator, once a batch."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def on_train_batch_start(self, *_: object) -> None:
        self.drawn.append(float(torch.rand(())))


def _build(name: str, archive: Path, options: dict, *callbacks: Callback, **trainer_options):
    stream, seed = MODELS[name]
    pl.seed_everything(seed, verbose=False)
    model = ProSLModule(**options, stream=stream, seed=seed)
    data = SkeletonDataModule(str(archive), stream=stream, batch_size=8, eval_batch_size=16, seed=seed)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer_options = {"max_epochs": 3, "accelerator": "cpu", "enable_model_summary": False} | quiet | trainer_options
    return pl.Trainer(callbacks=list(callbacks), **trainer_options), model, data


def test_every_model_ends_as_it_would_alone(tiny_archive, tiny_options):
    options = tiny_options | {"milestones": (1,), "base": "hico-transformer", "semantic_start": 2}
    options["base_args"] = {"hidden_size": 16, "num_layers": 1, "projection_size": 8, "num_heads": 2}
    alone, drawn, group, together, beside = {}, {}, SideBySide(), {}, {}
    for name in MODELS:
        draws = _Draws()
        trainer, model, data = _build(name, tiny_archive, options, draws)
        trainer.fit(model, datamodule=data)
        alone[name], drawn[name] = model.state_dict(), draws.drawn
    for name in MODELS:
        beside[name] = _Draws()
        trainer, together[name], data = _build(name, tiny_archive, options, beside[name])
        group.add(name, trainer, together[name], data)
    before = torch.get_rng_state()
    assert group.fit() == {}
    assert torch.equal(torch.get_rng_state(), before)
    for name, model in together.items():
        state = model.state_dict()
        assert state.keys() == alone[name].keys()
        assert int(model.codebook.epoch) == 2
        for key, value in alone[name].items():
            assert torch.equal(state[key], value), (name, key)
        assert beside[name].drawn == drawn[name]
    assert not torch.equal(alone["joint-0"]["codebook.centroids"], alone["bone-0"]["codebook.centroids"])


class _Steps(Callback):
    """Notes whose step is done, in one list for all models."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self._name, self._steps = name, steps

    def on_train_batch_start(self, *_: object) -> None:
        self._steps.append(self._name)


def test_models_take_turns_and_a_longer_one_goes_on_alone(tiny_archive, tiny_options):
    group, steps = SideBySide(), []
    for name, epochs in zip(MODELS, (1, 2, 1), strict=True):
        group.add(name, *_build(name, tiny_archive, tiny_options, _Steps(name, steps), max_epochs=epochs))
    assert group.fit() == {}
    assert steps == [*MODELS] * 4 + ["bone-0"] * 4


def test_the_archive_is_open_once_and_once_on_the_device(tiny_archive, tiny_options, monkeypatch):
    monkeypatch.setattr(SkeletonDataModule, "_fits", lambda self, device: True)  # as on a GPU
    group, modules = SideBySide(), []
    for name in MODELS:
        trainer, model, data = _build(name, tiny_archive, tiny_options, max_epochs=1)
        group.add(name, trainer, model, data)
        modules.append(data)
    assert group.fit() == {}
    assert len({id(data.archive) for data in modules}) == 1
    assert len({id(data.archive.frames) for data in modules}) == 1
    assert len({data._frames.data_ptr() for data in modules}) == 1
    loaders = [data.train_dataloader().dataset for data in modules]
    assert all(loader._resident is modules[0]._frames for loader in loaders)


class _Fails(Callback):
    def on_train_epoch_end(self, *_: object) -> None:
        raise RuntimeError("broken on purpose")


def test_a_model_that_fails_leaves_the_others_to_go_on(tiny_archive, tiny_options):
    group, models = SideBySide(), {}
    for name in MODELS:
        trainer, models[name], data = _build(
            name, tiny_archive, tiny_options, *([_Fails()] if name == "joint-0" else []), max_epochs=2
        )
        group.add(name, trainer, models[name], data)
    with pytest.warns(UserWarning, match="joint-0 has failed in epoch 0, the other models go on; why is told at"):
        errors = group.fit()
    assert {name: str(error) for name, error in errors.items()} == {"joint-0": "broken on purpose"}
    assert [int(model.codebook.epoch) for model in models.values()] == [-1, 1, 1]


def test_nobody_is_said_to_go_on_when_none_is_left(tiny_archive, tiny_options, recwarn):
    group = SideBySide()
    for name in ("joint-0", "bone-0"):
        group.add(name, *_build(name, tiny_archive, tiny_options, _Fails(), max_epochs=1))
    assert [*group.fit()] == ["joint-0", "bone-0"]
    told = [str(warning.message) for warning in recwarn if "the other models go on" in str(warning.message)]
    assert told == ["joint-0 has failed in epoch 0, the other models go on; why is told at the end"]


class _Interrupts(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def interruptible():
    """A process that a shell started in the background ignores Ctrl+C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_all_after_the_step_under_way(tiny_archive, tiny_options, interruptible):
    group, steps = SideBySide(), []
    for name in MODELS:
        interrupts = [_Interrupts()] if name == "bone-0" else []
        group.add(name, *_build(name, tiny_archive, tiny_options, _Steps(name, steps), *interrupts, max_epochs=50))
    with pytest.raises(KeyboardInterrupt):
        group.fit()
    assert [*MODELS] * 2 == steps[:6]
    assert len(steps) < 30
    before = len(steps)
    time.sleep(0.2)  # a thread still running would take another step
    assert len(steps) == before
    assert not {thread.name for thread in threading.enumerate()} & set(MODELS)


def test_each_model_works_on_a_cuda_stream_of_its_own(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(("wait for", device)))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: ("stream on", device))
    monkeypatch.setattr(torch.cuda, "set_stream", calls.append)
    for device in (torch.device("cpu"), torch.device("cuda", 1)):
        trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device))
        _TakeTurns(_Turns([]), 0).setup(trainer, None, "fit")
    # The frames are copied on the default stream, which the new one must not overtake.
    assert calls == [("wait for", torch.device("cuda", 1)), ("stream on", torch.device("cuda", 1))]


def test_what_cannot_be_trained_side_by_side_is_refused(tiny_archive, tiny_options):
    group = SideBySide()
    assert group.fit() == {}
    trainer, model, data = _build("joint-0", tiny_archive, tiny_options, devices=2)
    with pytest.raises(UsageError, match="share one device, the trainer has 2: use devices=1"):
        group.add("joint-0", trainer, model, data)
    fitting = _build("joint-0", tiny_archive, tiny_options)
    group.add("joint-0", *fitting)
    with pytest.raises(UsageError, match="two models of the name joint-0"):
        group.add("joint-0", *fitting)

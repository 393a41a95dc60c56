"""Steps recorded as CUDA graphs, by a stand-in for the graph: what is trained, when it is recorded, what is refused."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LambdaCallback, ModelCheckpoint

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.prosl import cuda_graph
from prosl_lightning.prosl.cuda_graph import WARM_UP

STEPS = 4  # of 36 training sequences in batches of 8


class StandIn:
    """Repeats a step by running it again; as with a real graph, recording alone changes nothing."""

    def __init__(self, device: torch.device) -> None:
        self.told: list[str] = []
        self.alive_at_runs: list[int] = []
        self._recorded: list[weakref.ref] = []
        MADE.append(self)

    def run(self, step):
        self.told.append("run")
        self.alive_at_runs.append(self.alive())
        return step()

    def record(self, step, draw):
        assert isinstance(draw, torch.Generator)
        self.told.append("record")
        assert self.alive() == 0, "the memory of two recorded steps is not taken at once"
        fixed: dict[str, torch.Tensor] = {}

        def replay():
            self.told.append("replay")
            for name, value in step().items():
                fixed.setdefault(name, torch.empty_like(value)).copy_(value)
            return fixed

        self._recorded.append(weakref.ref(replay))
        return replay

    def alive(self) -> int:
        return sum(one() is not None for one in self._recorded)


MADE: list[StandIn] = []


@pytest.fixture
def on_cpu(monkeypatch):
    """Lets the CPU record, with the stand-in."""
    MADE.clear()
    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", StandIn)


class Watch(Callback):
    """Remembers what others see of training: steps, losses, learning rates."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append((trainer.current_epoch, batch_idx, trainer.global_step, rate, float(outputs["loss"])))


def _fit(folder: Path, archive: Path, options: dict, epochs: int, ckpt_path=None, callbacks=(), **trainer_options):
    pl.seed_everything(0, verbose=False)
    module, watch = ProSLModule(**options), Watch()
    every = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)
    given = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=epochs, callbacks=[every, watch, *callbacks], **given | trainer_options)
    data = SkeletonDataModule(str(archive), stream=module.hparams["stream"], batch_size=8, eval_batch_size=16)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module, watch, trainer


def _same(one: ProSLModule, other: ProSLModule) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


TRANSFORMER = {"base": "hico-transformer", "base_args": {"hidden_size": 16, "num_heads": 2, "dropout": 0.3}}


CASES = {
    "gru": ({}, {}),
    "bf16": ({}, {"precision": "bf16-mixed"}),
    "dropout": (TRANSFORMER, {}),
    "importance of samples": ({"importance": "sample", "stream": "bone"}, {}),
    "base method alone": ({"semantic": False}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_trains_as_automatic_optimisation_does(tmp_path, tiny_archive, tiny_options, on_cpu, case):
    changes, trainer = CASES[case]
    options = tiny_options | {"milestones": (2,), "semantic_start": 1} | changes
    plain, seen, at_plain = _fit(tmp_path / "plain", tiny_archive, options, 3, **trainer)
    graph, seen_too, at_graph = _fit(tmp_path / "graph", tiny_archive, options | {"cuda_graph": True}, 3, **trainer)
    assert MADE[0].told.count("replay") >= 3
    _same(plain, graph)
    assert seen.seen == seen_too.seen
    assert at_graph.global_step == at_plain.global_step == 3 * STEPS
    assert (plain.automatic_optimization, graph.automatic_optimization) == (True, False)


def test_it_is_recorded_anew_when_stage_or_learning_rate_change_and_only_then(
    tmp_path, tiny_archive, tiny_options, on_cpu
):
    options = tiny_options | {"milestones": (3,), "semantic_start": 2, "cuda_graph": True}
    _fit(tmp_path, tiny_archive, options, 5)
    begin = ["run"] * WARM_UP + ["record"]
    contrast = begin + ["replay"] * (2 * STEPS - WARM_UP)
    semantic = begin + ["replay"] * (STEPS - WARM_UP)
    lower_rate = begin + ["replay"] * (2 * STEPS - WARM_UP)  # a new codebook in between
    (recorder,) = MADE
    assert recorder.told == contrast + semantic + lower_rate
    assert not any(recorder.alive_at_runs), "steps of a new kind run when the old recording has been freed"


def test_a_codebook_elsewhere_in_memory_is_recorded_anew(tmp_path, tiny_archive, tiny_options, on_cpu):
    class Move(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                pl_module.codebook.centroids = pl_module.codebook.centroids.clone()

    options = tiny_options | {"semantic_start": 0, "cuda_graph": True, "milestones": ()}
    _fit(tmp_path, tiny_archive, options, 3, callbacks=[Move()])
    begin = ["run"] * WARM_UP + ["record"]
    assert MADE[0].told == begin + ["replay"] * (2 * STEPS - WARM_UP) + begin + ["replay"] * (STEPS - WARM_UP)


@pytest.mark.parametrize(("first", "then"), [(False, True), (True, False), (True, True)])
def test_a_resumed_run_may_change_over(tmp_path, tiny_archive, tiny_options, on_cpu, first, then):
    options = tiny_options | {"milestones": (2,)}
    whole, seen, _ = _fit(tmp_path / "whole", tiny_archive, options, 4)
    _fit(tmp_path / "first", tiny_archive, options | {"cuda_graph": first}, 2)
    checkpoint = tmp_path / "first" / "epoch=1.ckpt"
    resumed, seen_too, trainer = _fit(
        tmp_path / "on", tiny_archive, options | {"cuda_graph": then}, 4, ckpt_path=checkpoint
    )
    _same(whole, resumed)
    assert seen_too.seen == seen.seen[2 * STEPS :]
    assert trainer.global_step == 4 * STEPS


class Batches(torch.utils.data.IterableDataset):
    """Batches of given sizes and lengths from one data set of random clips."""

    def __init__(self, plan):
        draw = torch.Generator().manual_seed(0)
        self.batches = []
        for n, frames in plan:
            joints = torch.randn(n, 3, frames, 25, 2, generator=draw)
            length = torch.randint(8, frames + 1, (n,), generator=draw)
            self.batches.append((joints, length, torch.arange(n), torch.zeros(n, dtype=torch.int64)))

    def __iter__(self):
        from prosl_lightning.data.batch import SkeletonBatch

        return iter(SkeletonBatch(*batch) for batch in self.batches)

    def __len__(self):
        return len(self.batches)


def test_batches_of_other_sizes_and_longer_ones(tiny_options, on_cpu):
    plan = [(8, 30), (8, 20), (8, 25), (8, 30), (8, 12), (5, 30), (8, 30), (8, 31)]
    fitted = []
    for graph in (False, True):
        pl.seed_everything(0, verbose=False)
        module = ProSLModule(**tiny_options | {"semantic": False, "cuda_graph": graph})
        loader = torch.utils.data.DataLoader(Batches(plan), batch_size=None)
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, loader)
        fitted.append(module)
    _same(*fitted)
    # The odd batch runs as it is and the recorded step serves on; the longer one needs larger tensors.
    assert MADE[0].told == [*["run"] * 3, "record", "replay", "replay", "run", "replay", "run"]
    assert MADE[0].alive_at_runs == [0, 0, 0, 1, 0]


REFUSED = {
    "accumulate_grad_batches 1": {"accumulate_grad_batches": 2},
    "no gradient clipping": {"gradient_clip_val": 1.0},
    "detect_anomaly": {"detect_anomaly": True},
}


@pytest.mark.parametrize("named", REFUSED)
def test_options_it_cannot_serve_are_refused(tmp_path, tiny_archive, tiny_options, on_cpu, named):
    with pytest.raises(UsageError, match=f"^cuda_graph needs {named}.*set cuda_graph to false$"):
        _fit(tmp_path, tiny_archive, tiny_options | {"cuda_graph": True}, 1, **REFUSED[named])


def test_trainers_it_cannot_serve_are_refused(tmp_path, tiny_archive, tiny_options):
    with pytest.raises(UsageError, match="cuda_graph needs a CUDA device, the trainer runs on cpu"):
        _fit(tmp_path, tiny_archive, tiny_options | {"cuda_graph": True}, 1)
    cuda = {
        "strategy": _Named(root_device=torch.device("cuda")),
        "accumulate_grad_batches": 1,
        "gradient_clip_val": None,
    }
    several = _Named(**cuda, world_size=2, precision="32-true")
    with pytest.raises(UsageError, match="needs one process, the trainer has 2"):
        cuda_graph.check_trainer(several)
    with pytest.raises(UsageError, match="needs precision 32-true or bf16-mixed, it is 16-mixed"):
        cuda_graph.check_trainer(_Named(**cuda, world_size=1, precision="16-mixed"))
    for precision in ("16-true", "bf16-true", "64-true", "transformer-engine"):
        with pytest.raises(UsageError, match=f"needs precision 32-true or bf16-mixed, it is {precision}: change that"):
            cuda_graph.check_trainer(_Named(**cuda, world_size=1, precision=precision))
    for precision in ("bf16-mixed", "32-true"):
        cuda_graph.check_trainer(_Named(**cuda, world_size=1, precision=precision))
    cuda["strategy"].parallel_devices = [torch.device("cuda", 0)]
    with pytest.raises(UsageError, match="needs a strategy for one device"):
        cuda_graph.check_trainer(_Named(**cuda, world_size=1, precision="bf16-mixed"))


class _Named:
    def __init__(self, **values):
        self.__dict__.update(values)


class _WithAdam(ProSLModule):
    def configure_optimizers(self):
        return torch.optim.Adam(self.query_encoder.parameters())


class _WithWarmUp(ProSLModule):
    def configure_optimizers(self):
        found = super().configure_optimizers()
        schedule = torch.optim.lr_scheduler.LinearLR(found["optimizer"])
        return {"optimizer": found["optimizer"], "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.mark.parametrize(("kind", "named"), [(_WithAdam, "own optimizer, found Adam"), (_WithWarmUp, "LinearLR")])
def test_other_optimizers_and_schedules_are_refused(tiny_archive, tiny_options, on_cpu, kind, named):
    module = kind(**tiny_options, cuda_graph=True)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UsageError, match=named):
        trainer.fit(module, datamodule=SkeletonDataModule(str(tiny_archive), batch_size=8))


def _hooked(hook: str, base: type) -> type:
    return type("Hooked", (base,), {hook: lambda *_, **__: None})


@pytest.mark.parametrize("hook", cuda_graph._HOOKS)
def test_callbacks_between_backward_pass_and_update_are_refused(tmp_path, tiny_archive, tiny_options, on_cpu, hook):
    options = tiny_options | {"cuda_graph": True}
    for callback in (_hooked(hook, Callback)(), LambdaCallback(**{hook: lambda *_: None})):
        with pytest.raises(UsageError, match=f"^{hook} of {type(callback).__name__} .*set cuda_graph to false$"):
            _fit(tmp_path, tiny_archive, options, 1, callbacks=[callback])
    assert not MADE


@pytest.mark.parametrize("hook", cuda_graph._MODULE_HOOKS)
def test_subclasses_that_change_the_update_are_refused(tiny_archive, tiny_options, on_cpu, hook):
    module = _hooked(hook, ProSLModule)(**tiny_options, cuda_graph=True)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UsageError, match=f"^{hook} of Hooked"):
        trainer.fit(module, datamodule=SkeletonDataModule(str(tiny_archive), batch_size=8))


def test_what_was_recorded_is_freed_at_the_end_of_training(tmp_path, tiny_archive, tiny_options, on_cpu):
    module, _, _ = _fit(tmp_path, tiny_archive, tiny_options | {"cuda_graph": True}, 1)
    assert module._captured_step is None

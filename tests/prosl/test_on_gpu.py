"""What only a CUDA device can show: draws in a recorded step, training by replays, and that no step waits for it."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.prosl.cuda_graph import CudaRecorder
from prosl_lightning.prosl.side_by_side import SideBySide
from prosl_lightning.seeds import generator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
ENCODER = {"hidden_size": 32, "projection_size": 8}


def _draws(draw: torch.Generator) -> dict[str, torch.Tensor]:
    uniform = torch.rand(1000, device="cuda", generator=draw)
    integers = torch.randint(77, (1000,), device="cuda", generator=draw)
    exponential = torch.empty(1000, device="cuda").exponential_(generator=draw)
    return {"uniform": uniform, "integers": integers, "exponential": exponential}


def test_a_replay_draws_what_an_ordinary_step_draws():
    draw = torch.Generator("cuda")
    recorder = CudaRecorder(torch.device("cuda", 0))
    recorder.run(lambda: _draws(draw))
    replay = recorder.record(lambda: _draws(draw), draw)
    for seed in (3, 2**62 + 1, 3):
        draw.manual_seed(seed)
        found = {name: value.clone() for name, value in replay().items()}
        expected = _draws(torch.Generator("cuda").manual_seed(seed))
        assert all(torch.equal(found[name], expected[name]) for name in expected), seed


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("base", ["hico-lstm", "hico-gru", "hico-transformer"])
def test_replays_train_as_ordinary_steps_do(tmp_path, tiny_archive, tiny_options, base, precision):
    weights = []
    for graph in (False, True):
        pl.seed_everything(0, verbose=False)
        module = ProSLModule(
            **tiny_options | {"base": base, "base_args": ENCODER, "milestones": (2,)}, cuda_graph=graph
        )
        trainer = pl.Trainer(
            default_root_dir=tmp_path, max_epochs=3, accelerator="gpu", devices=1, precision=precision, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=SkeletonDataModule(str(tiny_archive), batch_size=8, eval_batch_size=16))
        assert trainer.global_step == 12
        weights.append(torch.cat([p.detach().flatten().cpu() for p in module.query_encoder.parameters()]))
    difference = float((weights[0] - weights[1]).norm() / weights[0].norm())
    assert difference < (1e-4 if precision == "32-true" else 1e-2)


@pytest.mark.parametrize("base", ["hico-lstm", "hico-gru", "hico-transformer"])
@pytest.mark.parametrize("semantic_start", [0, 9])
def test_no_step_waits_for_the_device(tiny_archive, tiny_options, base, semantic_start):
    data = SkeletonDataModule(str(tiny_archive), batch_size=8)
    data.setup()
    batch = SkeletonBatch(*(value.cuda() for value in next(iter(data.train_dataloader()))))
    module = ProSLModule(**tiny_options | {"base": base, "base_args": ENCODER, "semantic_start": semantic_start}).cuda()
    module.codebook.update(torch.randn(4, 8), torch.arange(data.num_samples) % 4, torch.ones(25))
    optimizer = module.configure_optimizers()["optimizer"]
    for number in range(3):
        # Constants are sent, and libraries loaded, in the first steps.
        torch.cuda.set_sync_debug_mode("error" if number == 2 else "default")
        try:
            loss = module.step(batch, generator("cuda", number))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("base", ["hico-lstm", "hico-gru", "isc"])
def test_recurrent_layers_are_float32_in_mixed_precision(tiny_options, base, packed):
    args = {"hidden_size": 32, "projection_size": 8} | ({} if base == "isc" else {"packed_levels": packed})
    encoder = ProSLModule(**tiny_options | {"base": base, "base_args": args}).query_encoder.cuda()
    seen = []
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.RNNBase):
            layer.register_forward_hook(lambda _, given, found: seen.extend([given[0].data.dtype, found[0].data.dtype]))
    clips = torch.randn(4, 3, tiny_options["num_frames"], 25, 2, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        loss = encoder.project(clips)["instance"].float().sum()
    loss.backward()
    assert set(seen) == {torch.float32}
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


def test_recorded_steps_with_dropout_train_beside_each_other_as_alone(tiny_archive, tiny_options):
    changes = {"base": "hico-transformer", "base_args": ENCODER | {"dropout": 0.3}, "cuda_graph": True}

    def train(count: int) -> list[torch.Tensor]:
        group, modules = SideBySide(), []
        for number in range(count):
            pl.seed_everything(0, verbose=False)
            module = ProSLModule(**tiny_options | changes)
            trainer = pl.Trainer(
                max_epochs=3, accelerator="gpu", devices=1, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            data = SkeletonDataModule(str(tiny_archive), batch_size=8, eval_batch_size=16)
            group.add(str(number), trainer, module, data)
            modules.append(module)
        assert not group.fit()
        return [torch.cat([p.detach().flatten().cpu() for p in m.query_encoder.parameters()]) for m in modules]

    (alone,) = train(1)
    for beside in train(3):
        assert float((alone - beside).norm() / alone.norm()) < 1e-4

"""`scale_input`: inputs of unit deviation, measured once, and kept with the encoder wherever it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.commands.run_folder import check_resumable
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.backbone import Backbone
from prosl_lightning.evaluation.features import load_module


def _fit(folder: Path, archive: Path, options: dict, epochs: int = 1, ckpt_path: Path | None = None) -> ProSLModule:
    pl.seed_everything(0, verbose=False)
    module = ProSLModule(**options)
    data = SkeletonDataModule(str(archive), batch_size=8, eval_batch_size=16, stream=options.get("stream", "joint"))
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, logger=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    trainer.save_checkpoint(folder / "end.ckpt")
    return module


def _inputs(module: ProSLModule | Backbone, archive: Path, stream: str = "joint") -> torch.Tensor:
    data = SkeletonDataModule(str(archive), batch_size=8, eval_batch_size=16, stream=stream)
    data.setup("fit")
    return torch.cat([module.prepare(batch) for batch in data.feature_dataloader()])


@pytest.mark.parametrize("stream", ["joint", "bone", "motion"])
def test_inputs_have_unit_deviation_over_the_training_set(tmp_path, tiny_archive, tiny_options, stream):
    options = tiny_options | {"stream": stream, "semantic": False}
    scaled = _fit(tmp_path, tiny_archive, options | {"scale_input": True})
    found = _inputs(scaled, tiny_archive, stream)
    assert float(found.double().std(correction=0)) == pytest.approx(1, abs=1e-5)
    plain = _inputs(ProSLModule(**options), tiny_archive, stream)
    assert float(scaled.input_scale) == pytest.approx(float(1 / plain.double().std(correction=0)), rel=1e-5)
    assert torch.allclose(found, plain * scaled.input_scale)
    assert not torch.allclose(found, plain)


def test_views_in_training_are_scaled_too(tiny_archive, tiny_options):
    data = SkeletonDataModule(str(tiny_archive), batch_size=8, stream="motion")
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    module = ProSLModule(**tiny_options | {"stream": "motion", "scale_input": True})
    plain = module.draw_views(batch, torch.Generator().manual_seed(0))
    module.input_scale.fill_(5)
    scaled = module.draw_views(batch, torch.Generator().manual_seed(0))
    for before, after in zip(plain, scaled, strict=True):
        assert torch.allclose(after, before * 5)


def test_the_scale_goes_with_the_checkpoint_into_evaluations_and_resumed_runs(tmp_path, tiny_archive, tiny_options):
    options = tiny_options | {"stream": "motion", "scale_input": True}
    module = _fit(tmp_path, tiny_archive, options)
    loaded = load_module(tmp_path / "end.ckpt")
    assert float(loaded.input_scale) == float(module.input_scale) > 1
    backbone = Backbone.of(loaded)
    again = Backbone.rebuild(backbone.options)
    expected = _inputs(module, tiny_archive, "motion")
    for each in (backbone, again, Backbone.of(backbone)):
        assert torch.allclose(_inputs(each, tiny_archive, "motion"), expected)
    resumed = _fit(tmp_path / "on", tiny_archive, options, 2, tmp_path / "end.ckpt")
    assert float(resumed.input_scale) == float(module.input_scale)


def test_a_second_fit_of_one_module_measures_anew(tmp_path, tiny_archive, tiny_options):
    module = _fit(tmp_path, tiny_archive, tiny_options | {"scale_input": True, "semantic": False})
    found = float(module.input_scale)
    module.input_scale.fill_(3)
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=SkeletonDataModule(str(tiny_archive), batch_size=8, eval_batch_size=16))
    assert float(module.input_scale) == found


def test_init_from_takes_the_scale_over_or_asks_for_it(tmp_path, tiny_archive, tiny_options):
    options = tiny_options | {"semantic": False}
    _fit(tmp_path / "first", tiny_archive, options | {"scale_input": True})
    checkpoint = tmp_path / "first" / "end.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["input_scale"].fill_(7)  # as if of other data
    torch.save(content, checkpoint)
    on = _fit(tmp_path / "on", tiny_archive, options | {"scale_input": True, "init_from": str(checkpoint)})
    assert float(on.input_scale) == 7
    with pytest.raises(DataError, match="was trained with scale_input; set it to true"):
        _fit(tmp_path / "off", tiny_archive, options | {"init_from": str(checkpoint)})
    _fit(tmp_path / "plain", tiny_archive, options)
    unscaled = {"scale_input": True, "init_from": str(tmp_path / "plain" / "end.ckpt")}
    with pytest.raises(DataError, match="was trained without scale_input; set it to false"):
        _fit(tmp_path / "off", tiny_archive, options | unscaled)


def test_checkpoints_from_before_the_option_still_load(tmp_path, tiny_archive, tiny_options):
    _fit(tmp_path, tiny_archive, tiny_options | {"semantic": False})
    content = torch.load(tmp_path / "end.ckpt", weights_only=True)
    del content["state_dict"]["input_scale"], content["hyper_parameters"]["scale_input"]
    torch.save(content, tmp_path / "old.ckpt")
    assert float(load_module(tmp_path / "old.ckpt").input_scale) == 1


def test_plain_loaders_are_refused(tiny_archive, tiny_options):
    data = SkeletonDataModule(str(tiny_archive), batch_size=8)
    data.setup("fit")
    module = ProSLModule(**tiny_options | {"semantic": False, "scale_input": True})
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=1)
    with pytest.raises(UsageError, match="scale_input needs a data module .* or train with scale_input=False"):
        trainer.fit(module, train_dataloaders=data.train_dataloader())


def test_a_resumed_run_keeps_its_scale_and_old_runs_go_on(tmp_path, tiny_archive, tiny_options):
    data = SkeletonDataModule(str(tiny_archive), batch_size=8)
    data.setup("fit")
    options = tiny_options | {"semantic": False}
    for before, after in ((True, False), (False, True)):
        _fit(tmp_path, tiny_archive, options | {"scale_input": before})
        changed = ProSLModule(**options | {"scale_input": after})
        with pytest.raises(DataError, match=f"scale_input was {before}, is now {after}"):
            check_resumable(tmp_path / "end.ckpt", changed, data)
    content = torch.load(tmp_path / "end.ckpt", weights_only=True)
    del content["state_dict"]["input_scale"], content["hyper_parameters"]["scale_input"]
    torch.save(content, tmp_path / "old.ckpt")
    assert check_resumable(tmp_path / "old.ckpt", ProSLModule(**options), data) == 1
    with pytest.raises(DataError, match="scale_input was off, is now True"):
        check_resumable(tmp_path / "old.ckpt", ProSLModule(**options | {"scale_input": True}), data)
    _fit(tmp_path / "on", tiny_archive, options, 2, tmp_path / "old.ckpt")

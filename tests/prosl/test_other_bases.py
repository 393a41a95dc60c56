"""Base methods other than HiCo under a Trainer: checkpoints, resuming, a class of the user's own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from prosl_lightning import ProSLModule, SkeletonDataModule, load_encoder
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.encoder import load_encoder as loader

GCN = {"hidden_channels": 2, "feature_size": 6, "projection_size": 4}
ARGS = {"skeletonclr": GCN, "hiclr": GCN, "isc": {"hidden_size": 6, "num_layers": 2, "projection_size": 4}}

OWN = """
from torch import nn
from prosl_lightning.encoders import ProjectedEncoder

class Noisy(ProjectedEncoder):
    def __init__(self, *, layout, num_bodies, num_frames, width=6):
        super().__init__(width, projection_size=4)
        self.layers = nn.Sequential(nn.Linear(3 * layout.num_joints, width), nn.Dropout(0.5))
    def forward(self, x):
        return self.layers(x.mean((2, 4)).flatten(1))
"""


def _fit(folder: Path, archive: Path, options: dict, epochs: int, ckpt_path: Path | None = None) -> ProSLModule:
    pl.seed_everything(0, verbose=False)
    module = ProSLModule(**options)
    kept = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, callbacks=[kept],
        enable_model_summary=False, logger=False,
    )  # fmt: skip
    trainer.fit(module, SkeletonDataModule(str(archive), batch_size=8, eval_batch_size=16), ckpt_path=ckpt_path)
    return module


def _same(one: ProSLModule, other: ProSLModule) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("base", list(ARGS))
def test_any_base_trains_resumes_exactly_and_opens_from_its_checkpoint(tmp_path, tiny_archive, tiny_options, base):
    options = tiny_options | {"base": base, "base_args": ARGS[base], "num_frames": 8}
    whole = _fit(tmp_path, tiny_archive, options, 3)
    assert whole.stage == "semantic"
    _same(whole, _fit(tmp_path / "on", tiny_archive, options, 3, tmp_path / "epoch=1.ckpt"))
    loaded = ProSLModule.load_from_checkpoint(tmp_path / "epoch=2.ckpt", weights_only=True)
    _same(whole, loaded)
    batch = next(iter(whole.trainer.datamodule.feature_dataloader()))
    encoder = load_encoder(tmp_path / "epoch=2.ckpt")
    found = encoder.embed([batch.joints[0, :, : batch.length[0]].permute(1, 3, 2, 0).numpy()], normalized=True)
    with torch.no_grad():
        expected = whole.eval().embed(batch)[:1]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)


def test_a_class_of_the_users_is_found_again_by_its_checkpoint(tmp_path, tiny_archive, tiny_options, monkeypatch):
    (tmp_path / "mine_xyz.py").write_text(OWN)
    options = tiny_options | {"base": "mine_xyz.Noisy", "base_args": {"width": 5}, "num_frames": 8}
    path = tmp_path / "epoch=1.ckpt"
    with monkeypatch.context() as there:
        there.syspath_prepend(tmp_path)
        whole = _fit(tmp_path, tiny_archive, options, 2)
        # Its dropout is seeded although nothing was said about it.
        _same(whole, _fit(tmp_path / "on", tiny_archive, options, 2, tmp_path / "epoch=0.ckpt"))
        assert torch.load(path, weights_only=True)["hyper_parameters"]["base"] == "mine_xyz.Noisy"
        _same(whole, ProSLModule.load_from_checkpoint(path, weights_only=True))
        assert loader(path).backbone.network.feature_size == 5
        sys.modules.pop("mine_xyz")
    with pytest.raises(UsageError, match=r"epoch=1.ckpt: base 'mine_xyz.Noisy': module 'mine_xyz' cannot be imported"):
        loader(path)
    with pytest.raises(UsageError, match="must be installed or in a folder of PYTHONPATH, also where a checkpoint is"):
        ProSLModule.load_from_checkpoint(path, weights_only=True)


def test_public_hico_weights_are_refused_for_another_base(tmp_path, fixture_arrays):
    from prosl_lightning.errors import DataError
    from prosl_lightning.prosl.initialise import load_initial_weights

    arrays = fixture_arrays("hico_encoder_gru")
    weights = {f"encoder_q.{name[6:]}": torch.tensor(v) for name, v in arrays.items() if name.startswith("param/")}
    torch.save({"state_dict": weights}, tmp_path / "public.pth.tar")
    module = ProSLModule(base="isc", base_args=ARGS["isc"])
    with pytest.raises(DataError, match="holds a hico-gru: set base to it, not to 'isc'"):
        load_initial_weights(module, str(tmp_path / "public.pth.tar"))


def test_an_encoder_without_a_projection_that_a_term_needs_is_named(tmp_path, monkeypatch):
    (tmp_path / "mine_uvw.py").write_text(
        OWN
        + "    def project(self, x):\n        return {'whole': self.head(self(x))}\n\n"
        + "from prosl_lightning.bases import BaseMethod\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"Noisy.project gives whole; a contrast term of the base method needs 'inst"):
        ProSLModule(base="mine_uvw.Noisy")
    sys.modules.pop("mine_uvw")

"""Two Lightnings, `pytorch_lightning` and `lightning.pytorch`: which one is used, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prosl_lightning import _lightning
from prosl_lightning.errors import UsageError

pytest.importorskip("lightning")


def _python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PROSL_")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False,
        env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def test_the_default_is_pytorch_lightning_and_importing_the_other_afterwards_warns():
    found = _python("-c", """if True:
        import sys, warnings
        from prosl_lightning import ProSLModule
        assert "lightning.pytorch" not in sys.modules
        import pytorch_lightning
        assert issubclass(ProSLModule, pytorch_lightning.LightningModule)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import lightning.pytorch
        ours = [str(warning.message) for warning in caught if "prosl_lightning" in str(warning.message)]
        assert len(ours) == 1, ours
        assert "already uses pytorch_lightning" in ours[0], ours
        assert "set PROSL_LIGHTNING=lightning.pytorch" in ours[0], ours
    """)  # fmt: skip
    assert found.returncode == 0, found.stderr


def test_lightning_that_was_imported_first_is_used_and_trains(tiny_archive, tiny_options, tmp_path):
    found = _python("-c", """if True:
        import json, sys
        import lightning.pytorch as pl
        from prosl_lightning import ProSLModule, SkeletonDataModule
        folder, archive, options = sys.argv[1:]
        module = ProSLModule(**json.loads(options))
        assert isinstance(module, pl.LightningModule)
        trainer = pl.Trainer(default_root_dir=folder, max_epochs=2, accelerator="cpu", logger=False,
                             enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(module, datamodule=SkeletonDataModule(archive, batch_size=8))
        assert module.stage == "semantic" and len(module.codebook.assignment) == 36
        assert "pytorch_lightning" not in sys.modules
        trainer.save_checkpoint(folder + "/own.ckpt")
    """, tmp_path, tiny_archive, json.dumps(tiny_options))  # fmt: skip
    assert found.returncode == 0, found.stderr
    _assert_loads_here(tmp_path / "own.ckpt")


def test_the_variable_chooses_for_the_command_line(tiny_archive, tiny_options, tmp_path):
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps({
        "trainer": {"default_root_dir": str(tmp_path), "max_epochs": 2, "accelerator": "cpu"},
        "data": {"root": str(tiny_archive), "batch_size": 8}, "model": tiny_options,
    }))  # fmt: skip
    found = _python("-m", "prosl_lightning", "fit", "--config", config, PROSL_LIGHTNING="lightning.pytorch")
    assert found.returncode == 0, found.stderr
    assert "stage=semantic" in found.stdout
    assert (tmp_path / "logs/version_0/config.yaml").read_text().startswith("# lightning.pytorch==")
    _assert_loads_here(tmp_path / "checkpoints" / "last.ckpt")


def _assert_loads_here(checkpoint: Path) -> None:
    """A checkpoint of the other Lightning opens in this process, which has its own."""
    from prosl_lightning import ProSLModule

    module = ProSLModule.load_from_checkpoint(checkpoint, weights_only=True)
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert module.codebook.is_built
    assert all(torch.equal(value, stored[name]) for name, value in module.state_dict().items())


def test_a_wrong_value_of_the_variable_is_one_clear_error(monkeypatch):
    found = _python("-m", "prosl_lightning", "fit", PROSL_LIGHTNING="lightning")
    assert found.returncode == 2
    assert found.stderr == (
        "prosl fit: error: PROSL_LIGHTNING is 'lightning'; expected one of pytorch_lightning, lightning.pytorch\n"
    )
    monkeypatch.setenv("PROSL_LIGHTNING", "torch")
    with pytest.raises(UsageError, match="PROSL_LIGHTNING is 'torch'"):
        _lightning._choose()
